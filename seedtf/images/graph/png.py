"""Parses the chunks of a PNG with TensorFlow ops, as ``images.formats.png`` does in Python."""

from __future__ import annotations

import tensorflow as tf

from seedtf.images.formats.png import COMPRESSED_TEXTS, XMP_KEY
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
    without_autograph,
)
from seedtf.images.graph.orientation import read_exif, read_xmp, upright_orientation
from seedtf.images.graph.status import (
    MAX_EDITS,
    OK,
    PARSING,
    TRUNCATED,
    UNSUPPORTED,
    Edits,
    HeaderStatus,
    first_status,
    parsed,
)

__all__ = ["read_png"]

_ALPHA_TYPES = (4, 6)
_NAMES = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"iTXt")
_IHDR, _PLTE, _IDAT, _IEND, _TRNS, _EXIF, _ITXT = (big_endian_code(name) for name in _NAMES)
_TEXTS = tuple(big_endian_code(name) for name in COMPRESSED_TEXTS)
_ANCILLARY = big_endian_code(b"\x20\0\0\0")
# The key of an XMP packet begins 8 bytes after the start of its chunk. An element of a window has 8
# bytes, so the last 8 bytes of the key are in the element this many positions further on.
_BYTES_AHEAD = 8 + len(XMP_KEY) - 8


def read_png(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts as a PNG."""
    head = peek(file, 16, 10)
    width, height = big_endian(head[:4]), big_endian(head[4:8])
    is_alpha_type = is_in(head[9], _ALPHA_TYPES)
    has_exif, has_xmp, has_compressed = (tf.constant(False) for _ in range(3))
    has_palette, has_trns = tf.constant(False), tf.constant(False)
    has_data, has_all_data = tf.constant(False), tf.constant(False)
    # What is removed before the palette, the transparency, the pixels and the end.
    gaps = tf.fill([MAX_EDITS, 2], file.length)
    kept = int64(33)  # the end of the last chunk that the pixels depend on
    exif, xmp = int64(0), int64(0)
    position = int64(8)
    # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
    status = first_status(
        (file.length < 26, TRUNCATED),
        (~matches_at(file, 8, b"\0\0\0\x0dIHDR"), UNSUPPORTED),
        default=PARSING,
    )
    while status == PARSING:
        seen = (has_xmp, has_compressed, has_data, has_all_data)
        position = _skip_irrelevant(file, position, seen)
        part = peek(file, position, 8)
        length, kind = big_endian(part[:4]), big_endian(part[4:])
        start, end, after = position + 8, position + 8 + length, position + 12 + length
        is_exif = (kind == _EXIF) & (after <= file.length)
        is_xmp = (kind == _ITXT) & ~has_xmp & matches_at(file, start, XMP_KEY)
        if is_exif:
            exif = read_exif(file, start, end)
        if is_xmp:
            xmp = read_xmp(file, start, end)
        is_repeated = ((kind == _TRNS) & has_trns) | ((kind == _PLTE) & has_palette & ~has_data)
        is_refused = (is_exif & has_exif) | is_repeated | _is_unknown(kind, position)
        # Do not leave this to libpng, which would allocate what the chunk claims, even a gigabyte.
        status = first_status(
            ((start > file.length) | (after > file.length), TRUNCATED),
            (is_refused, UNSUPPORTED),
            (kind == _IEND, OK),
            default=PARSING,
        )
        is_after_data = has_data & ~has_all_data & (kind != _IDAT)
        kept = tf.where(is_after_data, position, kept)
        firsts = tf.stack(
            [
                (kind == _PLTE) & ~has_palette & ~has_data,
                (kind == _TRNS) & ~is_alpha_type & ~has_data,
                (kind == _IDAT) & ~has_data,
                kind == _IEND,
            ]
        )
        gaps = tf.where(firsts[:, tf.newaxis], tf.stack([kept, position]), gaps)
        kept = tf.where(tf.reduce_any(firsts), after, kept)
        has_palette |= kind == _PLTE
        has_data, has_all_data = has_data | (kind == _IDAT), has_all_data | is_after_data
        has_compressed |= is_in(kind, _TEXTS)
        has_trns |= kind == _TRNS
        has_exif, has_xmp = has_exif | is_exif, has_xmp | is_xmp
        position = after
    orientation = upright_orientation(exif, xmp)
    # The gaps are disjoint, so that sorting each column sorts them.
    spans = tf.where(has_compressed, tf.sort(gaps, axis=0), file.length)
    edits = Edits(spans, tf.fill([MAX_EDITS], b""))
    return parsed(
        file,
        status,
        width,
        height,
        orientation=orientation,
        has_alpha=is_alpha_type | has_trns,
        edits=edits,
    )


@without_autograph
def _is_unknown(kind: tf.Tensor, position: tf.Tensor | int) -> tf.Tensor:
    """Whether a chunk is unknown and no decoder may skip it."""
    is_known = is_in(kind, (_PLTE, _IDAT, _IEND)) | ((kind == _IHDR) & (position == 8))
    return (tf.bitwise.bitwise_and(kind, tf.constant(_ANCILLARY, tf.int64)) == 0) & ~is_known


def _skip_irrelevant(
    file: FileBytes, position: tf.Tensor, seen: tuple[tf.Tensor, ...]
) -> tf.Tensor:
    """Skips the chunks in a window at ``position`` that do not change the result.

    ``seen`` says whether there was an XMP packet, a compressed text, pixels, and a chunk after them.
    """
    has_xmp, has_compressed, has_data, has_all_data = seen
    part = window(file, position, WINDOW, _BYTES_AHEAD)
    count = tf.size(part) - _BYTES_AHEAD
    length, kind = field(part[:count], 0, 4), field(part[:count], 4, 4)
    # The chain always stops at these kinds; stops are few, because a second such chunk is refused.
    is_stop = is_in(kind, (_IEND, _EXIF, _TRNS)) | ((kind == _PLTE) & ~has_data)
    # Compare the whole key. Each stop costs a loop step, and with a shorter comparison a hostile file
    # could have many stops.
    is_stop |= (kind == _ITXT) & has_text(part, 8, XMP_KEY, count) & ~has_xmp
    is_stop |= is_in(kind, _TEXTS) & ~has_compressed
    is_stop |= ((kind == _IDAT) & ~has_data) | ((kind != _IDAT) & has_data & ~has_all_data)
    is_stop |= _is_unknown(kind, -1)
    return position + follow_chain(12 + length, is_stop)
