"""Parses the header of a BMP."""

from __future__ import annotations

import struct

from seedtf.images.formats.base import Header, RefusedError

__all__ = ["read_bmp"]

_FILE_HEADER_BYTES = 14
# The length of the header of OS/2 1.x, which has sizes of 16 bits and no compression.
_CORE_HEADER_BYTES = 12


def read_bmp(data: bytes) -> Header:
    """Parses a file that starts as a BMP.

    TensorFlow decodes a BMP of 24 or 32 bits per pixel without compression if the file ends with the
    pixels. So ``Header.edits`` cut off the bytes after the pixels, such as the two bytes that Photoshop
    writes there. Pillow decodes palettes, 16 bits per pixel, run lengths, bit fields and all files of
    OS/2 1.x.

    Raises:
        RefusedError: the pixels would begin inside the header.
        struct.error: the file ends inside its header.
    """
    offset, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes == _CORE_HEADER_BYTES:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("bmp", width, height, needs_pillow=True)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    rows = abs(height)
    if bits not in (24, 32) or compression:
        return Header("bmp", width, rows, needs_pillow=True)
    if offset < _FILE_HEADER_BYTES + header_bytes:
        raise RefusedError("unsupported variant", f"BMP with its pixels at byte {offset}")
    row_bytes = (bits * width + 31) // 32 * 4
    end = offset + row_bytes * rows
    edits = ((end, len(data), b""),) if end < len(data) else ()
    return Header("bmp", width, rows, edits=edits)
