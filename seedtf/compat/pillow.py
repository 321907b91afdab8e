"""Opens an image file with Pillow as one given format.

AVIF needs Pillow 11.3 or newer, and HEIC needs the package pillow-heif.
"""

from __future__ import annotations

import importlib
import io
import warnings
from typing import Any

from PIL import Image

__all__ = ["MissingDecoderError", "open_image"]

# Module of Pillow and class that opens a file, for each format.
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
    """No installed decoder can open the format; the message says what to install.

    Tried with Pillow 13.0.0; tested by
    ``test_without_its_extra_a_heic_file_is_refused_with_what_to_install``.
    """


def open_image(data: bytes, kind: str) -> Image.Image:
    """Opens a file as ``kind``, a key of ``_CLASSES`` or ``heic``, without decoding its pixels.

    ``Image.open`` is not used, because it refuses images above a size limit of its own.

    Raises:
        MissingDecoderError: this installation has no decoder for ``kind``.
        Exception: Pillow raises errors of many types for a damaged file.

    Tried with Pillow 13.0.0 and pillow-heif 1.8.1; tested by
    ``test_a_heic_photograph_decodes_to_nearly_the_encoded_pixels``.
    """
    # Warnings such as "tag 274 had too many entries" are hidden, because they do not name the file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    module, name = _CLASSES.get(kind, ("", ""))
    plugin: Any
    if kind == "heic":
        plugin = _import_decoder("pillow_heif", "HEIC", "pip install 'seedtf[heic]'")
        return plugin.HeifImageFile(io.BytesIO(data))
    plugin = _import_decoder(f"PIL.{module}", kind.upper(), "install Pillow 11.3 or newer")
    if kind == "avif" and not plugin.SUPPORTED:
        raise MissingDecoderError("AVIF: this Pillow was built without it; install Pillow's wheel")
    return getattr(plugin, name)(io.BytesIO(data))


def _import_decoder(module: str, kind: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDecoderError(f"{kind}: {remedy}, or save the file as JPEG or PNG") from None
