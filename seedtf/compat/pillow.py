"""Pillow: opening one format alone, and the formats that depend on its version or on a plug-in."""

from __future__ import annotations

import importlib
import io
import warnings
from typing import Any

from PIL import Image

__all__ = ["MissingDecoderError", "open_image"]

_CLASSES = {
    "avif": ("AvifImagePlugin", "AvifImageFile"),
    "bmp": ("BmpImagePlugin", "BmpImageFile"),
    "gif": ("GifImagePlugin", "GifImageFile"),
    "jpeg": ("JpegImagePlugin", "JpegImageFile"),
    "pnm": ("PpmImagePlugin", "PpmImageFile"),
    "tiff": ("TiffImagePlugin", "TiffImageFile"),
    "webp": ("WebPImagePlugin", "WebPImageFile"),
}


class MissingDecoderError(Exception):
    """What to install before a format can be opened.

    Tried with Pillow 13.0.0; tested by
    ``test_without_its_extra_a_heic_file_is_refused_with_what_to_install``.
    """


def open_image(data: bytes, kind: str) -> Image.Image:
    """Opens a file as ``kind``, one of ``images.kinds``, without decoding its pixels.

    ``Image.open`` would also refuse sizes that are larger than a limit of Pillow's own, and try other
    formats.

    Raises:
        MissingDecoderError: this installation has no decoder for ``kind``.
        Exception: Pillow's errors for a damaged file are of many types.

    Tried with Pillow 13.0.0 and pillow-heif 1.8.1; tested by
    ``test_a_heic_photograph_is_shown_as_its_encoder_got_it``.
    """
    # Remarks such as "tag 274 had too many entries" do not name the file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    module, name = _CLASSES.get(kind, ("", ""))
    plugin: Any
    if kind == "heic":
        plugin = _import("pillow_heif", "HEIC", "pip install 'seedtf[heic]'")
        return plugin.HeifImageFile(io.BytesIO(data))
    plugin = _import(f"PIL.{module}", kind.upper(), "install Pillow 11.3 or newer")
    if kind == "avif" and not plugin.SUPPORTED:
        raise MissingDecoderError("AVIF: this Pillow was built without it; install Pillow's wheel")
    return getattr(plugin, name)(io.BytesIO(data))


def _import(module: str, kind: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDecoderError(f"{kind}: {remedy}, or save the file as JPEG or PNG") from None
