"""Parses the first frame of a GIF (GIF89a specification) and cuts the file after it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from seedtf.images.formats.base import Edit, Header, RefusedError

__all__ = ["gif_frames", "read_gif"]

_EXTENSION, _FRAME = 0x21, 0x2C
# The label of a graphic control extension, and the size of its block.
_CONTROL = b"\xf9\4"
_WHITE = b"\xff\xff\xff"
_END = b";"


def read_gif(data: bytes) -> Header:
    """Parses a file that starts as a GIF, up to the end of its first frame.

    The edits leave the first frame alone, because TensorFlow decodes every frame, and allocates the
    largest width × the largest height of all. They make its transparent colour white, and remove the
    extensions, so that the colour is looked up like any other.

    Raises:
        RefusedError: the first frame is larger than the canvas, or covers a part of it without
            transparency: viewers disagree on the colour around it.
        IndexError, struct.error: the file ends before its first frame does.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    first_block = position = 13 + _table_bytes(flags)
    transparent: int | None = None
    while data[position] == _EXTENSION:
        if data.startswith(_CONTROL, position + 1) and data[position + 3] & 1:
            if transparent is not None:
                raise RefusedError("unsupported variant", "GIF with two transparent colours")
            transparent = data[position + 6]
        position = _skip_sub_blocks(data, position + 2)
    if data[position] != _FRAME:
        raise RefusedError("corrupt", "GIF without a frame")
    left, top, *frame_size, frame_flags = struct.unpack_from("<HHHHB", data, position + 1)
    is_whole = (left, top, *frame_size) == (0, 0, width, height)
    if left + frame_size[0] > width or top + frame_size[1] > height:
        raise RefusedError("unsupported variant", "GIF whose first frame exceeds the canvas")
    if not is_whole and transparent is None:
        raise RefusedError("unsupported variant", "GIF whose first frame covers part of the canvas")
    table = position + 10
    end = _skip_sub_blocks(data, table + _table_bytes(frame_flags) + 1)
    if not is_whole:
        return Header("gif", width, height, by_pillow=True)
    if frame_flags & 0x80:
        white = _white(table, frame_flags, transparent)
    else:
        white = _white(13, flags, transparent)
    edits = [(first_block, position, b""), *white, (end, len(data), _END)]
    needed = sorted(edit for edit in edits if data[edit[0] : edit[1]] != edit[2])
    return Header("gif", width, height, edits=tuple(needed))


def gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields width and height of each frame of a file that ``read_gif`` accepts, up to any damage."""
    position = 13 + _table_bytes(data[10])
    try:
        while data[position] in (_EXTENSION, _FRAME):
            if data[position] == _EXTENSION:
                position = _skip_sub_blocks(data, position + 2)
                continue
            width, height, flags = struct.unpack_from("<HHB", data, position + 5)
            yield width, height
            position = _skip_sub_blocks(data, position + 10 + _table_bytes(flags) + 1)
    except (struct.error, IndexError):
        return


def _white(table: int, flags: int, index: int | None) -> list[Edit]:
    """The edit that makes the transparent colour white, if the colour table at ``table`` has it."""
    if index is None or 3 * index >= _table_bytes(flags):
        return []
    return [(table + 3 * index, table + 3 * index + 3, _WHITE)]


def _table_bytes(flags: int) -> int:
    """The length of the colour table that a ``flags`` byte declares."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, position: int) -> int:
    """The position after the sub-blocks that start at ``position``."""
    while size := data[position]:
        position += 1 + size
    return position + 1
