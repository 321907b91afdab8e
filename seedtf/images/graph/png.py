"""Parses the chunks of a PNG with TensorFlow ops, as ``images.formats.png`` does in Python."""

from __future__ import annotations

from typing import NamedTuple

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
    make_header_status,
)

__all__ = ["read_png"]

_ALPHA_TYPES = (4, 6)
_NAMES = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"iTXt")
_IHDR, _PLTE, _IDAT, _IEND, _TRNS, _EXIF, _ITXT = (big_endian_code(name) for name in _NAMES)
_TEXTS = tuple(big_endian_code(name) for name in COMPRESSED_TEXTS)
# The bit that makes the first letter of a chunk's name lower case: decoders may skip such a chunk.
_ANCILLARY = big_endian_code(b"\x20\0\0\0")
# The key of an XMP packet begins 8 bytes after the start of its chunk, and `window` returns the 8 bytes
# that start at each position. To compare a whole key, `has_text` also needs the element that starts 8
# bytes before the end of the key, which is this many positions after the start of the chunk.
_BYTES_AHEAD = 8 + len(XMP_KEY) - 8


class _Chunks(NamedTuple):
    """What the chunks before ``position`` say; scalars, except for ``gaps``.

    Attributes:
        status: int64, an index into ``STATUSES``, or PARSING.
        position: int64, where the next chunk is searched.
        exif, xmp: int64, results of ``read_exif`` and ``read_xmp``; 0 before such a chunk was read.
        kept: int64, the end of the last chunk that the pixels depend on.
        gaps: int64 ``[MAX_EDITS, 2]``, start and stop of bytes that no pixel depends on. The rows are
            for the bytes before the palette, the transparency, the pixels and the end. These bytes are
            removed only if there was a compressed text, which libpng would decompress.
        has_exif, has_xmp, has_palette, has_trns: bool, whether there was a chunk of this kind.
        has_compressed: bool, whether there was a compressed text.
        has_data: bool, whether there was an IDAT chunk, which has pixels.
        has_all_data: bool, whether another chunk has followed the IDAT chunks.
    """

    status: tf.Tensor
    position: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    kept: tf.Tensor
    gaps: tf.Tensor
    has_exif: tf.Tensor
    has_xmp: tf.Tensor
    has_palette: tf.Tensor
    has_trns: tf.Tensor
    has_compressed: tf.Tensor
    has_data: tf.Tensor
    has_all_data: tf.Tensor


def read_png(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts as a PNG."""
    # The width is at byte 16 of the file, the height at byte 20, the colour type at byte 25. The first
    # chunk, IHDR, ends at byte 33.
    head = peek(file, 16, 10)
    width, height = big_endian(head[:4]), big_endian(head[4:8])
    is_alpha_type = is_in(head[9], _ALPHA_TYPES)
    # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
    status = first_status(
        (file.length < 26, TRUNCATED),
        (~matches_at(file, 8, b"\0\0\0\x0dIHDR"), UNSUPPORTED),
        default=PARSING,
    )
    gaps, flags = tf.fill([MAX_EDITS, 2], file.length), [tf.constant(False)] * 7
    (seen,) = tf.while_loop(
        lambda seen: seen.status == PARSING,
        lambda seen: (_read_chunk(file, seen, is_alpha_type),),
        (_Chunks(status, int64(8), int64(0), int64(0), int64(33), gaps, *flags),),
    )
    # The gaps are disjoint. So sorting each column on its own keeps start and stop of a gap together.
    spans = tf.where(seen.has_compressed, tf.sort(seen.gaps, axis=0), file.length)
    return make_header_status(
        file,
        seen.status,
        width,
        height,
        orientation=upright_orientation(seen.exif, seen.xmp),
        has_alpha=is_alpha_type | seen.has_trns,
        edits=Edits(spans, tf.fill([MAX_EDITS], b"")),
    )


def _read_chunk(file: FileBytes, seen: _Chunks, is_alpha_type: tf.Tensor) -> _Chunks:
    """Reads the next chunk that changes the result."""
    position = _skip_irrelevant(file, seen)
    part = peek(file, position, 8)
    length, kind = big_endian(part[:4]), big_endian(part[4:])
    start, end, after = position + 8, position + 8 + length, position + 12 + length
    is_exif = (kind == _EXIF) & (after <= file.length)
    is_xmp = (kind == _ITXT) & ~seen.has_xmp & matches_at(file, start, XMP_KEY)
    is_trns, is_palette, is_data = kind == _TRNS, kind == _PLTE, kind == _IDAT
    is_repeated = (is_trns & seen.has_trns) | (is_palette & seen.has_palette & ~seen.has_data)
    is_refused = (is_exif & seen.has_exif) | is_repeated | _is_unknown_critical(kind, position)
    # A chunk that exceeds the file is refused here, because libpng would allocate the length that it
    # claims, even a gigabyte.
    status = first_status(
        ((start > file.length) | (after > file.length), TRUNCATED),
        (is_refused, UNSUPPORTED),
        (kind == _IEND, OK),
        default=PARSING,
    )
    is_after_data = seen.has_data & ~seen.has_all_data & ~is_data
    # All IDAT chunks up to the first other chunk after them are kept.
    kept = tf.where(is_after_data, position, seen.kept)
    # Row k of `gaps` is set when `firsts[k]` is true: at the palette, the transparency, the first IDAT
    # chunk and the end.
    firsts = tf.stack(
        [
            is_palette & ~seen.has_palette & ~seen.has_data,
            is_trns & ~is_alpha_type & ~seen.has_data,
            is_data & ~seen.has_data,
            kind == _IEND,
        ]
    )
    return _Chunks(
        status=status,
        position=after,
        exif=tf.cond(is_exif, lambda: read_exif(file, start, end), lambda: seen.exif),
        xmp=tf.cond(is_xmp, lambda: read_xmp(file, start, end), lambda: seen.xmp),
        kept=tf.where(tf.reduce_any(firsts), after, kept),
        gaps=tf.where(firsts[:, tf.newaxis], tf.stack([kept, position]), seen.gaps),
        has_exif=seen.has_exif | is_exif,
        has_xmp=seen.has_xmp | is_xmp,
        has_palette=seen.has_palette | is_palette,
        has_trns=seen.has_trns | is_trns,
        has_compressed=seen.has_compressed | is_in(kind, _TEXTS),
        has_data=seen.has_data | is_data,
        has_all_data=seen.has_all_data | is_after_data,
    )


def _is_unknown_critical(kind: tf.Tensor, position: tf.Tensor | int) -> tf.Tensor:
    """Whether a chunk is unknown and no decoder may skip it; also true of an IHDR that is not first."""
    is_known = is_in(kind, (_PLTE, _IDAT, _IEND)) | ((kind == _IHDR) & (position == 8))
    return (tf.bitwise.bitwise_and(kind, tf.constant(_ANCILLARY, tf.int64)) == 0) & ~is_known


def _skip_irrelevant(file: FileBytes, seen: _Chunks) -> tf.Tensor:
    """The position of the next chunk in a window that may change the result.

    If there is none, the position of the last chunk in the window.
    """
    part = window(file, seen.position, WINDOW, _BYTES_AHEAD)
    count = tf.size(part) - _BYTES_AHEAD
    length, kind = field(part[:count], 0, 4), field(part[:count], 4, 4)
    # The chain stops at each of these kinds. Such stops are few, because a file with a second chunk of
    # one of these kinds is refused.
    is_stop = is_in(kind, (_IEND, _EXIF, _TRNS)) | ((kind == _PLTE) & ~seen.has_data)
    # Compare the whole key. Each stop costs a loop step, and with a shorter comparison a hostile file
    # could have many stops.
    is_stop |= (kind == _ITXT) & has_text(part, 8, XMP_KEY, count) & ~seen.has_xmp
    is_stop |= is_in(kind, _TEXTS) & ~seen.has_compressed
    is_stop |= (kind == _IDAT) & ~seen.has_data
    is_stop |= (kind != _IDAT) & seen.has_data & ~seen.has_all_data
    # -1: the chain stops at every IHDR, and `_read_chunk` tells the first chunk from the others.
    is_stop |= _is_unknown_critical(kind, -1)
    return seen.position + follow_chain(12 + length, is_stop)
