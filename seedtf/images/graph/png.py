"""Parses the chunks of a PNG with TensorFlow ops, as ``images.formats.png`` does in Python."""

from __future__ import annotations

import tensorflow as tf

from seedtf.images.formats.png import XMP_KEY
from seedtf.images.graph.chains import WINDOW, follow_chain
from seedtf.images.graph.file_bytes import (
    FileBytes,
    big_endian,
    big_endian_code,
    field,
    has_text,
    int64,
    is_in,
    matches_at,
    peek,
    window,
)
from seedtf.images.graph.orientation import read_exif, read_xmp, upright_orientation
from seedtf.images.graph.status import (
    OK,
    PARSING,
    TRUNCATED,
    UNSUPPORTED,
    HeaderStatus,
    first_status,
    parsed,
)

__all__ = ["read_png"]

_ALPHA_TYPES = (4, 6)
_NAMES = (b"IEND", b"tRNS", b"eXIf", b"iTXt")
_IEND, _TRNS, _EXIF, _ITXT = (big_endian_code(name) for name in _NAMES)
# The key of an XMP packet begins 8 bytes after the start of its chunk. An element of a window has 8
# bytes, so the last 8 bytes of the key are in the element this many positions further on.
_BYTES_AHEAD = 8 + len(XMP_KEY) - 8


def read_png(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts as a PNG."""
    head = peek(file, 16, 10)
    width, height = big_endian(head[:4]), big_endian(head[4:8])
    has_alpha = is_in(head[9], _ALPHA_TYPES)
    has_exif, has_xmp = tf.constant(False), tf.constant(False)
    exif, xmp = int64(0), int64(0)
    position = int64(8)
    # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
    status = first_status(
        (file.length < 26, TRUNCATED),
        (~matches_at(file, 8, b"\0\0\0\x0dIHDR"), UNSUPPORTED),
        default=PARSING,
    )
    while status == PARSING:
        position = _skip_irrelevant(file, position, has_alpha, has_xmp)
        part = peek(file, position, 8)
        length, kind = big_endian(part[:4]), big_endian(part[4:])
        start, end, after = position + 8, position + 8 + length, position + 12 + length
        is_exif = (kind == _EXIF) & (after <= file.length)
        is_xmp = (kind == _ITXT) & ~has_xmp & matches_at(file, start, XMP_KEY)
        if is_exif:
            exif = read_exif(file, start, end)
        if is_xmp:
            xmp = read_xmp(file, start, end)
        # Do not leave this to libpng, which would allocate what the chunk claims, even a gigabyte.
        status = first_status(
            ((start > file.length) | (after > file.length), TRUNCATED),
            (is_exif & has_exif, UNSUPPORTED),
            (kind == _IEND, OK),
            default=PARSING,
        )
        has_alpha |= kind == _TRNS
        has_exif, has_xmp = has_exif | is_exif, has_xmp | is_xmp
        position = after
    orientation = upright_orientation(exif, xmp)
    return parsed(file, status, width, height, orientation=orientation, has_alpha=has_alpha)


def _skip_irrelevant(
    file: FileBytes, position: tf.Tensor, has_alpha: tf.Tensor, has_xmp: tf.Tensor
) -> tf.Tensor:
    """Skips the chunks in a window at ``position`` that do not change the result."""
    part = window(file, position, WINDOW, _BYTES_AHEAD)
    count = tf.size(part) - _BYTES_AHEAD
    length, kind = field(part[:count], 0, 4), field(part[:count], 4, 4)
    is_stop = (kind == _IEND) | (kind == _EXIF) | ((kind == _TRNS) & ~has_alpha)
    # Compare the whole key. Each stop costs a loop step, and with a shorter comparison a hostile file
    # could have many stops.
    is_stop |= (kind == _ITXT) & has_text(part, 8, XMP_KEY, count) & ~has_xmp
    return position + follow_chain(12 + length, is_stop)
