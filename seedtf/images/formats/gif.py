"""Parses the first frame of a GIF (GIF89a specification), and lists the sizes of all frames."""

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

    ``Header.edits`` cut off all frames after the first, because TensorFlow decodes every frame and
    allocates the largest width × the largest height of all frames. They also make the transparent
    colour of the first frame white, and remove the extensions before the frame, one of which declares
    this colour. If the first frame covers only a part of the canvas, Pillow decodes the file.

    Raises:
        RefusedError: there is no frame, or the first frame has two transparent colours or exceeds the
            canvas. The file is also refused if the first frame covers only a part of the canvas and
            has no transparent colour, because viewers disagree on the colour of the rest.
        IndexError, struct.error: the file ends before its first frame does.
    """
    # The header has 13 bytes: 6 of signature, then width, height, flags and two more fields. A colour
    # table may follow.
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
    table = position + 10  # The descriptor of a frame has 10 bytes; a colour table may follow.
    end = _skip_sub_blocks(data, table + _table_bytes(frame_flags) + 1)
    if not is_whole:
        return Header("gif", width, height, needs_pillow=True)
    if frame_flags & 0x80:
        white = _white_edit(table, frame_flags, transparent)
    else:
        white = _white_edit(13, flags, transparent)
    edits = [(first_block, position, b""), *white, (end, len(data), _END)]
    changing = sorted(edit for edit in edits if data[edit[0] : edit[1]] != edit[2])
    return Header("gif", width, height, edits=tuple(changing))


def gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields width and height of each frame of a file that ``read_gif`` accepts.

    If the file is damaged, the frames after the damage are missing.
    """
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


def _white_edit(table: int, flags: int, index: int | None) -> list[Edit]:
    """The edit that makes colour ``index`` white; none if the colour table at ``table`` lacks it."""
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
