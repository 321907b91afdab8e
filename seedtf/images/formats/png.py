"""Parses the chunks of a PNG (PNG 1.2, section 3)."""

from __future__ import annotations

import struct

from seedtf.images.formats.base import Header, RefusedError
from seedtf.images.formats.orientation import upright_orientation

__all__ = ["XMP_KEY", "read_png"]

XMP_KEY = b"XML:com.adobe.xmp\0\0"
"""The start of an iTXt chunk with an XMP packet that is not compressed."""

_FIRST_CHUNK = b"\0\0\0\x0dIHDR"
_ALPHA_TYPES = (4, 6)


def read_png(data: bytes) -> Header:
    """Parses a file that starts as a PNG.

    ``has_alpha`` is set for any tRNS chunk; libpng, which decodes the image, ignores one that comes
    after the pixels or before the palette. Checksums are not compared, and a compressed XMP packet is
    not read.

    Raises:
        RefusedError: the first chunk is not the header, a chunk exceeds the file, or there are two
            EXIF chunks.
        struct.error: the file ends before its last chunk.
    """
    first_chunk = data[8:16]
    width, height, _, color_type = struct.unpack_from(">IIBB", data, 16)
    # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
    if first_chunk != _FIRST_CHUNK:
        raise RefusedError("unsupported variant", f"PNG that starts with chunk {first_chunk[4:]!r}")
    exif = xmp = b""
    has_alpha, has_exif, position = color_type in _ALPHA_TYPES, False, 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            # Do not leave this to libpng, which would allocate what the chunk claims, even a gigabyte.
            raise RefusedError(
                "truncated", f"PNG chunk {kind!r} of {length} bytes exceeds the file"
            )
        if kind == b"tRNS":
            has_alpha = True
        elif kind == b"eXIf":
            if has_exif:
                raise RefusedError("unsupported variant", "PNG with two EXIF chunks")
            exif, has_exif = data[position + 8 : position + 8 + length], True
        elif kind == b"iTXt" and not xmp and data.startswith(XMP_KEY, position + 8):
            xmp = data[position + 8 : position + 8 + length]
        elif kind == b"IEND":  # not IDAT, because eXIf may follow the pixels
            return Header("png", width, height, upright_orientation(exif, xmp), has_alpha)
        position += 12 + length
