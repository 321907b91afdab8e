"""Reads the orientation of an image from its EXIF block (tag 274), otherwise from its XMP packet."""

from __future__ import annotations

import re
import struct

__all__ = [
    "EXIF_PREFIX",
    "MAX_PREFIXES",
    "ORIENTATION",
    "read_exif",
    "read_xmp",
    "upright_orientation",
]

ORIENTATION = 0x0112
"""The tag of the orientation, in EXIF and in TIFF."""

EXIF_PREFIX = b"Exif\0\0"
MAX_PREFIXES = 3
"""How many prefixes of an EXIF block are skipped. Some programs write the prefix twice."""

# The letters of the byte order, then the number 42, whose two bytes Pillow accepts in either order.
_BYTE_ORDERS = {b"II*\0": "<", b"II\0*": "<", b"MM\0*": ">", b"MM*\0": ">"}
# The integer types of TIFF 6.0 with more than one byte: SHORT, LONG, SSHORT, SLONG.
_INTEGERS = {3: "H", 4: "I", 8: "h", 9: "i"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def upright_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, from an EXIF block, otherwise from an XMP packet, otherwise 1.

    Example:
        >>> upright_orientation(b"", b'<rdf:Description tiff:Orientation="6"/>')
        6
    """
    value = read_exif(exif) or read_xmp(xmp)
    return value if 1 <= value <= 8 else 1


def read_exif(block: bytes) -> int:
    """The orientation tag of a TIFF block (TIFF 6.0, section 2).

    Returns:
        The value of the tag. If the tag is missing or cut off, 0, so that the caller reads XMP. If the
        tag has no usable value, 1, so that the caller does not read XMP. A value is not usable if it is
        0, if it is not an integer of 16 or 32 bits, or if it is a list that is empty or has more than
        4 bytes.
    """
    tiff = block
    for _ in range(MAX_PREFIXES):
        tiff = tiff.removeprefix(EXIF_PREFIX)
    byte_order = _BYTE_ORDERS.get(tiff[:4])
    if byte_order is None:
        return 0
    try:
        (offset,) = struct.unpack_from(f"{byte_order}I", tiff, 4)
        (num_entries,) = struct.unpack_from(f"{byte_order}H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * num_entries, 12):
            tag, kind, num_values = struct.unpack_from(f"{byte_order}HHI", tiff, entry)
            value = tiff[entry + 8 : entry + 12]
            if tag == ORIENTATION and len(value) == 4:
                integer = _INTEGERS.get(kind)
                # A list that takes more than 4 bytes is stored elsewhere, and is not read.
                if integer is None or not 1 <= num_values <= 4 // struct.calcsize(integer):
                    return 1
                return struct.unpack_from(byte_order + integer, value)[0] or 1
    except struct.error:
        pass
    return 0


def read_xmp(packet: bytes) -> int:
    """The property ``tiff:Orientation`` of an XMP packet, 0 to 9; 0 if it is missing."""
    match = _XMP.search(packet)
    return int(match[1]) if match else 0
