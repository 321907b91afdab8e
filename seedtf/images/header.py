"""Parses image headers: format, size, orientation and transparency, or the reason for a refusal.

TensorFlow's decoders allocate as much memory as a header claims, and decode some variants wrongly
without an error. Every file is therefore checked here first, from its bytes alone. Nothing is
decoded, and TensorFlow is not imported.
"""

from __future__ import annotations

import dataclasses
import struct

from seedtf.compat.tensorflow import DECODES_WEBP
from seedtf.images.formats.base import Header, RefusedError
from seedtf.images.formats.bmp import read_bmp
from seedtf.images.formats.boxes import read_avif, read_heic
from seedtf.images.formats.gif import read_gif
from seedtf.images.formats.jpeg import read_jpeg
from seedtf.images.formats.png import read_png
from seedtf.images.formats.pnm import read_pnm
from seedtf.images.formats.tiff import read_tiff
from seedtf.images.formats.webp import read_webp
from seedtf.images.kinds import SNIFFED_BYTES, sniff

__all__ = [
    "CROP",
    "FIT_MODES",
    "MAX_PIXELS",
    "PAD",
    "STRETCH",
    "Header",
    "RefusedError",
    "check_size",
    "read_header",
]

MAX_PIXELS = 100_000_000
"""Largest width × height that is decoded by default; ``images/README.md`` lists its cost."""

STRETCH, PAD, CROP = FIT_MODES = ("stretch", "pad", "crop")
"""How ``images.decode.resize_image`` makes a square of an image that is not square."""

_READERS = {
    "jpeg": read_jpeg,
    "png": read_png,
    "gif": read_gif,
    "bmp": read_bmp,
    "webp": read_webp,
    "tiff": read_tiff,
    "avif": read_avif,
    "heic": read_heic,
    "pnm": read_pnm,
}


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Parses the header of an encoded image and checks that the file may be decoded.

    Args:
        data: the whole file.
        max_pixels: the largest width × height that is accepted.

    Raises:
        RefusedError: the file is empty, is not an image, has an incomplete or damaged header, is too
            large, or is of a variant that neither TensorFlow nor Pillow decodes to what image viewers
            show.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> Image.new("RGB", (640, 480)).save("leaf.png")
        >>> read_header(Path("leaf.png").read_bytes())
        Header(format='png', width=640, height=480, orientation=1, has_alpha=False)
    """
    if not data:
        raise RefusedError("empty file", "0 bytes")
    kind = sniff(data[:SNIFFED_BYTES])
    if not kind:
        raise RefusedError("not an image", f"starts with {data[:12]!r}")
    if kind not in _READERS:
        raise RefusedError("unsupported variant", f"{kind}; save it as PNG or JPEG")
    try:
        header = _READERS[kind](data)
    except (struct.error, IndexError, OverflowError):
        # A field of the header lies, or points to a position, after the end of the file.
        raise RefusedError("truncated", "ends inside the header") from None
    if kind == "webp" and not DECODES_WEBP:
        header = dataclasses.replace(header, needs_pillow=True)
    check_size(header.width, header.height, max_pixels)
    return header


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises RefusedError for a size that is not positive or has more than ``max_pixels`` pixels."""
    if width < 1 or height < 1:
        raise RefusedError("corrupt", f"size {width}×{height}")
    if width * height > max_pixels:
        raise RefusedError("too large", f"{width}×{height} is more than {max_pixels} pixels")
