"""Parses the segments of a JPEG up to its first scan (ITU-T T.81, B.1.1)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from seedtf.images.formats.base import Header, RefusedError
from seedtf.images.formats.orientation import EXIF_PREFIX, upright_orientation

__all__ = [
    "ADOBE_SEGMENT",
    "MAX_SCANNED_PIXELS",
    "MAX_SCANS",
    "MAX_SCANS_IF_LARGE",
    "XMP_PREFIX",
    "max_scans",
    "read_jpeg",
]

MAX_SCANS = 100
"""Largest number of scans in a JPEG; encoders write about 20 at most. For a scan of only 10 bytes, the
decoder still makes a pass over the whole image."""

MAX_SCANS_IF_LARGE = 20
"""Number of scans that is accepted in a JPEG with any number of pixels."""

MAX_SCANNED_PIXELS = 20_000_000
"""Largest product of pixels and scans in a JPEG with more than ``MAX_SCANS_IF_LARGE`` scans. Decoding a
scan takes up to a nanosecond of CPU time per pixel, even if the scan has few bytes."""

ADOBE_SEGMENT = b"\xff\xee\0\x0eAdobe\0\x64" + bytes(5)
"""The segment (APP14) by which Adobe's programs mark four components as inverted CMYK."""

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"

_MARKER = re.compile(rb"\xff[^\xff]")
# Inside entropy-coded data, stuffed zeros and restart markers do not end the scan.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
# Markers without a length. libjpeg also skips FF 00, which is valid only in entropy-coded data.
_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x00, 0x01}
# The start-of-frame markers. C4 and CC define tables, and C8 is reserved.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC = (0xC9, 0xCA)
_MIN_ADOBE_BYTES = 14


def read_jpeg(data: bytes) -> Header:
    """Parses a file that starts as a JPEG.

    The first EXIF block and the first XMP packet before the first scan are used. Four components are
    CMYK, which every viewer reads as inverted. TensorFlow does so only if the file has Adobe's segment,
    so ``Header.edits`` add this segment where it is missing.

    Raises:
        RefusedError: the samples do not have 8 bits, there are too many scans, or there is no frame.
        IndexError, struct.error: the file ends before its first scan.
    """
    exif = xmp = b""
    has_adobe, frame, components = False, None, 0
    for marker, position, length in _segments(data):
        payload = data[position + 2 : position + length]
        if marker == 0xE1 and payload.startswith(EXIF_PREFIX):
            exif = exif or payload
        elif marker == 0xE1 and payload.startswith(XMP_PREFIX):
            xmp = xmp or payload
        elif marker == 0xEE and length >= _MIN_ADOBE_BYTES and payload.startswith(b"Adobe"):
            has_adobe = True
        elif marker in _FRAMES and frame is None:
            frame, components = _read_frame(data, marker, position, length)
    if frame is None:
        raise RefusedError("corrupt", "JPEG without a frame header")
    edits = ((2, 2, ADOBE_SEGMENT),) if components == 4 and not has_adobe else ()
    orientation = upright_orientation(exif, xmp)
    size = (frame.width, frame.height)
    return Header("jpeg", *size, orientation, edits=edits, needs_pillow=frame.needs_pillow)


def _read_frame(data: bytes, marker: int, position: int, length: int) -> tuple[Header, int]:
    """Reads the frame header at ``position``.

    Returns:
        A ``Header`` with the size and ``needs_pillow``, and the number of components.
    """
    precision, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
    if precision != 8:
        raise RefusedError("unsupported variant", f"JPEG with {precision} bits per sample")
    limit = max_scans(width * height)
    if _has_many_scans(data, position + length, limit):
        raise RefusedError(
            "unsupported variant", f"JPEG of {width}×{height} with more than {limit} scans"
        )
    return Header("jpeg", width, height, needs_pillow=marker in _ARITHMETIC), components


def max_scans(pixels: int) -> int:
    """The largest number of scans that a JPEG with this number of pixels may have.

    Example:
        >>> max_scans(224 * 224), max_scans(640 * 480), max_scans(4000 * 3000)
        (100, 65, 20)
    """
    return min(max(MAX_SCANNED_PIXELS // max(pixels, 1), MAX_SCANS_IF_LARGE), MAX_SCANS)


def _has_many_scans(data: bytes, position: int, limit: int) -> bool:
    """Whether more than ``limit`` scans follow the frame header that ends at ``position``."""
    num_scans = 0
    while num_scans <= limit:
        marker = _MARKER_AFTER_SCAN.search(data, position)
        if marker is None or marker[0] == b"\xff\xd9" or marker.end() + 2 > len(data):
            return False
        num_scans += marker[0] == b"\xff\xda"
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return True


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields each segment before the first scan: marker, position, length.

    At ``position``, after the marker, are the two bytes of the length, which count towards the length.
    The payload follows.

    Raises:
        IndexError, struct.error: the file ends before its first scan.
    """
    position = 2
    while True:
        match = _MARKER.search(data, position)
        if match is None:
            raise IndexError("no further marker")
        marker, position = match[0][1], match.end()
        if marker in _STANDALONE:
            continue
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", data, position)
        yield marker, position, length
        position += length
