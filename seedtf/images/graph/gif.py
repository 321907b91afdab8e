"""Parses the first frame of a GIF with TensorFlow ops, as ``images.formats.gif`` does in Python."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from seedtf.images.graph.chains import WINDOW, follow_chain
from seedtf.images.graph.file_bytes import (
    FileBytes,
    big_endian,
    field,
    int64,
    little_endian,
    peek,
    window,
)
from seedtf.images.graph.status import (
    BY_PILLOW,
    CORRUPT,
    TRUNCATED,
    UNSUPPORTED,
    Edits,
    HeaderStatus,
    first_status,
    make_edits,
    make_header_status,
)

__all__ = ["read_gif"]

# A frame has many small parts, because a sub-block has at most 255 bytes of data. For small parts, a
# larger window than WINDOW is faster.
_FRAME_WINDOW = 1 << 14
_EXTENSION, _FRAME, _END = 0x21, 0x2C, b";"
# The first three bytes of a graphic control extension; the third is the size of its block.
_CONTROL = 0x21F904
_WHITE = b"\xff\xff\xff"


def read_gif(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts as a GIF, up to the end of its first frame."""
    # The header has 13 bytes, and the descriptor of a frame has 10. A colour table may follow each of
    # them. A byte with the code size stands before the sub-blocks of a frame.
    screen = peek(file, 6, 5)
    width, height = little_endian(screen[:2]), little_endian(screen[2:4])
    first_block = 13 + _table_bytes(screen[4])
    start, transparent, has_two_transparent = _find_frame(file, first_block)
    frame = peek(file, start, 10)
    left, top, *size = (little_endian(frame[at : at + 2]) for at in (1, 3, 5, 7))
    is_outside = (left + size[0] > width) | (top + size[1] > height)
    is_whole = (left == 0) & (top == 0) & (size[0] == width) & (size[1] == height)
    end = _skip_frame(file, start + 11 + _table_bytes(frame[9]))
    status = first_status(
        ((file.length < 11) | (start >= file.length), TRUNCATED),
        (has_two_transparent, UNSUPPORTED),
        (frame[0] != _FRAME, CORRUPT),
        (start + 10 > file.length, TRUNCATED),
        (is_outside | (~is_whole & (transparent < 0)), UNSUPPORTED),
        (end > file.length, TRUNCATED),
        (~is_whole, BY_PILLOW),
    )
    has_local_table = frame[9] >= 0x80
    color_position = tf.where(has_local_table, start + 10, int64(13)) + 3 * transparent
    table_bytes = _table_bytes(tf.where(has_local_table, frame[9], screen[4]))
    is_in_table = (transparent >= 0) & (3 * transparent < table_bytes)
    edits = _make_edits(file, first_block, start, end, tf.where(is_in_table, color_position, -1))
    return make_header_status(file, status, width, height, edits=edits)


def _make_edits(
    file: FileBytes,
    first_block: tf.Tensor,
    start: tf.Tensor,
    end: tf.Tensor,
    color_position: tf.Tensor,
) -> Edits:
    """Edits that keep only the first frame, and make its transparent colour white.

    The edits remove the extensions before the frame and all bytes after the frame.

    Args:
        file: the GIF.
        first_block: the position of the first extension, or of the frame if there is no extension.
        start, end: the positions where the frame starts and ends.
        color_position: the position in the file of the three bytes of the transparent colour; -1 if
            no colour table has it.
    """
    has_color = color_position >= 0
    extensions_span, empty_span = tf.stack([first_block, start]), tf.stack([start, start])
    color_span = tf.where(has_color, tf.stack([color_position, color_position + 3]), empty_span)
    color_bytes = tf.where(has_color, _WHITE, b"")
    # Edits are in the order of their positions, and the global colour table is before the extensions.
    is_in_global_table = has_color & (color_position < first_block)
    first = (
        tf.where(is_in_global_table, color_span, extensions_span),
        tf.where(is_in_global_table, color_bytes, b""),
    )
    second = (
        tf.where(is_in_global_table, extensions_span, color_span),
        tf.where(is_in_global_table, b"", color_bytes),
    )
    edits = make_edits(
        file,
        (*tf.unstack(first[0]), first[1]),
        (*tf.unstack(second[0]), second[1]),
        (end, file.length, tf.constant(_END)),
    )
    only_trailer_follows = (end + 1 == file.length) & (peek(file, end, 1)[0] == ord(_END))
    is_needed = has_color | (start > first_block) | ~only_trailer_follows
    return Edits(
        tf.where(is_needed, edits.spans, file.length), tf.where(is_needed, edits.texts, b"")
    )


def _find_frame(file: FileBytes, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Skips the extensions from ``position`` on.

    Returns:
        The position of the block after the extensions; the number of the transparent colour, or -1;
        whether more than one of the extensions has a transparent colour.
    """
    start = _Search(position, int64(-1), *(tf.constant(flag) for flag in (False, False, True)))
    (found,) = tf.while_loop(
        lambda search: search.is_open & (search.position < file.length),
        lambda search: (_search_window(file, search),),
        (start,),
    )
    return found.position, found.transparent, found.has_two


class _Search(NamedTuple):
    """How far ``_find_frame`` has come; scalars.

    Attributes:
        position: int64, the next position in the file.
        transparent: int64, the number of the transparent colour, or -1.
        has_two: bool, whether more than one extension has a transparent colour.
        in_sub_block: bool, whether the part that starts at ``position`` is a sub-block; otherwise it is
            a block.
        is_open: bool, whether the search for the frame goes on.
    """

    position: tf.Tensor
    transparent: tf.Tensor
    has_two: tf.Tensor
    in_sub_block: tf.Tensor
    is_open: tf.Tensor


def _search_window(file: FileBytes, search: _Search) -> _Search:
    """Skips the extensions in a window up to the next stop, and reads the part there.

    A stop is an extension with a transparent colour, the first block that is no extension, or the last
    part that starts in the window.
    """
    position, in_sub_block = search.position, search.in_sub_block
    # The length of the part at offset p of the window depends on whether it is a block or a sub-block.
    # So the chain has two places for p: 2p if a block starts there, 2p + 1 if a sub-block does.
    values = window(file, position, WINDOW)
    first = field(values, 0, 1)
    is_extension = first == _EXTENSION
    is_control = (field(values, 0, 3) == _CONTROL) & (field(values, 3, 1) % 2 == 1)
    # The steps lead from an extension to its first sub-block, which starts two bytes later; from a
    # sub-block to the next sub-block; and from the last sub-block, which is empty, to the next block.
    block_steps = tf.fill([tf.size(first)], int64(2 * 2 + 1))
    sub_block_steps = 2 * (1 + first) - tf.cast(first == 0, tf.int64)
    steps = tf.reshape(tf.stack([block_steps, sub_block_steps], 1), [-1])
    is_stop = tf.stack([~is_extension | is_control, tf.zeros_like(is_control)], 1)
    place = follow_chain(
        steps, tf.reshape(is_stop, [-1]), 2 * WINDOW, tf.cast(in_sub_block, tf.int32)
    )
    position, in_sub_block = position + place // 2, place % 2 == 1
    part = peek(file, position, 7)
    # The chain may also have stopped because the window has ended, so look at the block again.
    is_control = ~in_sub_block & (big_endian(part[:3]) == _CONTROL) & (part[3] % 2 == 1)
    has_two = search.has_two | (is_control & (search.transparent >= 0))
    is_open = (in_sub_block | (part[0] == _EXTENSION)) & ~has_two
    step = tf.where(in_sub_block, 1 + part[0], 2)
    return _Search(
        tf.where(is_open, position + step, position),
        tf.where(is_control, part[6], search.transparent),
        has_two,
        ~in_sub_block | (part[0] != 0),
        is_open,
    )


def _skip_frame(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """The position after the sub-blocks that start at ``position``.

    If the file ends before the sub-blocks do, this is a position after the end of the file.
    """

    def skip(position: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sizes = field(window(file, position, _FRAME_WINDOW), 0, 1)
        position += follow_chain(1 + sizes, sizes == 0, _FRAME_WINDOW)
        size = peek(file, position, 1)[0]
        return position + 1 + size, size

    position, size = tf.while_loop(
        lambda position, size: (size != 0) & (position < file.length), skip, (position, int64(1))
    )
    return tf.where(size == 0, position, file.length + 1)


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """The length of the colour table that a ``flags`` byte declares."""
    return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)
