"""Recognises the kind of an image file by its first bytes.

TensorFlow decodes most files of the kinds in ``TENSORFLOW_KINDS``. Pillow decodes the files in variants
that TensorFlow does not support, and those of the kinds in ``PILLOW_KINDS``. Other kinds are
recognised only so that an error can name them.
"""

from __future__ import annotations

import re

__all__ = [
    "BMP_HEADERS",
    "IMAGE_SUFFIXES",
    "OTHER_MAGIC",
    "PILLOW_BRANDS",
    "PILLOW_KINDS",
    "SNIFFED_BYTES",
    "SUFFIXES",
    "TENSORFLOW_KINDS",
    "sniff",
]

SNIFFED_BYTES = 64
"""The number of bytes at the start of a file that ``sniff`` needs."""

TENSORFLOW_KINDS = ("jpeg", "png", "gif", "bmp", "webp")
PILLOW_KINDS = ("tiff", "avif", "heic", "pnm")

SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp"),
    "png": (".png", ".apng"),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "heic": (".heic", ".heif", ".hif"),
    "pnm": (".ppm", ".pgm", ".pnm"),
    "jpeg 2000": (".jp2", ".j2k", ".jpx"),
    "jpeg xl": (".jxl",),
}
"""The usual suffixes of each kind, in lower case; no other type of file uses these suffixes."""

IMAGE_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""A file with one of these suffixes is listed as an image without being opened."""

_TENSORFLOW_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
)
_OTHER_MAGIC = (
    *((magic, "tiff") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((magic, "jpeg 2000") for magic in (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xffO\xffQ")),
    *((magic, "jpeg xl") for magic in (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\n")),
    (b"8BPS", "photoshop"),
)
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""The lengths of the known headers of a BMP, which tell it from a text that begins with "BM"."""

_PNM = re.compile(rb"P[56][\t-\r ][0-9#]")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis")
# Brands that AVIF and HEIC share. For these, the list of compatible brands in the file decides.
_SHARED_BRANDS = (b"mif1", b"msf1")

OTHER_MAGIC = tuple(magic for magic, _ in _OTHER_MAGIC)
"""The first bytes of images that TensorFlow does not decode."""

PILLOW_BRANDS = (*_AVIF_BRANDS, *_HEIC_BRANDS, *_SHARED_BRANDS)
"""The brands of AVIF and HEIC, which follow ``ftyp`` at byte 8 of a file."""


def sniff(start: bytes) -> str:
    """The kind of a file, from its first bytes.

    Args:
        start: the first 64 bytes of the file or more; the whole file if it is shorter.

    Returns:
        A key of ``SUFFIXES``, ``photoshop``, or an empty string if the file is not an image.

    Example:
        >>> sniff(b"II*\\0" + bytes(60)), sniff(b"BMI,age"), sniff(b"\\0\\0\\0\\x18ftypavif")
        ('tiff', '', 'avif')
    """
    for magic, kind in (*_TENSORFLOW_MAGIC, *_OTHER_MAGIC):
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in BMP_HEADERS:
        return "bmp"
    if _PNM.match(start):
        return "pnm"
    return _sniff_brand(start) if start[4:8] == b"ftyp" else ""


def _sniff_brand(start: bytes) -> str:
    """The kind of a file made of boxes (ISO 14496-12): avif, heic, or empty for other files."""
    brand = start[8:12]
    if brand in _AVIF_BRANDS:
        return "avif"
    if brand in _HEIC_BRANDS:
        return "heic"
    if brand in _SHARED_BRANDS:
        compatible = start[16 : int.from_bytes(start[:4], "big")]
        return "avif" if any(name in compatible for name in _AVIF_BRANDS) else "heic"
    return ""
