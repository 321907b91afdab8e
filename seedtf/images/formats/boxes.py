"""Reads the image size from the boxes of an AVIF or HEIC file (ISO 14496-12 and 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from seedtf.images.formats.av1 import largest_frame
from seedtf.images.formats.base import Header, RefusedError

__all__ = ["read_avif", "read_heic"]


def read_avif(data: bytes) -> Header:
    """Parses a file whose brand is AVIF.

    The boxes and the AV1 data can claim different sizes, and the decoder allocates what the AV1 data
    claim. The returned header therefore has the larger size of the two.

    Raises:
        RefusedError: no size is found; a box is missing; a box, the list of items or the image data
            exceed the file; several items share data; several parts of an item have neither offset nor
            length; or a length in the AV1 data is wrong.
        struct.error, IndexError: the file ends inside a field of a box.
    """
    width, height = _largest_size(data)
    for start, end in _coded_items(data):
        coded = largest_frame(data, start, end)
        if coded[0] * coded[1] > width * height:
            width, height = coded
    # With this major brand, the decoder reads only the still image of an animation (avis).
    edits = ((8, 12, b"avif"),)
    return Header("avif", width, height, edits=edits, needs_pillow=True)


def read_heic(data: bytes) -> Header:
    """Parses a file whose brand is HEIC.

    Unlike the AV1 data of an AVIF, the coded data are not parsed, because libheif itself limits the
    size of the image in them.

    Raises:
        RefusedError: no size is found, a box is missing, or a box exceeds the file.
        struct.error, IndexError: the file ends inside a field of a box.
    """
    return Header("heic", *_largest_size(data), needs_pillow=True)


def _largest_size(data: bytes) -> tuple[int, int]:
    """The largest size in the boxes ``ispe``: each tile has one, and so does the whole image."""
    properties = _find_box(data, b"meta", b"iprp", b"ipco")
    sizes = [
        struct.unpack_from(">II", data, start + 4)
        for kind, start, _ in _boxes(data, *properties)
        if kind == b"ispe"
    ]
    if not sizes:
        raise RefusedError("corrupt", "no size of an image in the boxes")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return int(width), int(height)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind of each box between two positions, and start and end of its content."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else start + size
        if stop < content or stop > end:
            raise RefusedError("truncated", f"box {kind!r} claims a wrong size of {size} bytes")
        yield kind, content, stop
        start = stop


def _find_box(data: bytes, *path: bytes) -> tuple[int, int]:
    """Start and end of the content of a box.

    ``path`` has the kinds of the boxes that lead to the box: the outermost first, the box itself last.

    Raises:
        RefusedError: there is no such box.
    """
    start, end = 0, len(data)
    for wanted in path:
        found = (box for box in _boxes(data, start, end) if box[0] == wanted)
        _, start, end = next(found, (b"", 0, -1))
        if end < 0:
            raise RefusedError("corrupt", f"no box {wanted!r}")
        start += 4 if wanted in (b"meta", b"iloc", b"iinf") else 0  # version and flags
    return start, end


def _coded_items(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields start and end of each part of the items that hold AV1 data."""
    meta = _find_box(data, b"meta")
    coding_of = {}  # the ID of each item → how the data of the item are coded
    start, end = _find_box(data, b"meta", b"iinf")
    # Skip the number of items, which takes 4 bytes from version 1 on.
    start += 2 if data[start - 4] == 0 else 4
    for kind, content, _ in _boxes(data, start, end):
        if kind == b"infe" and data[content] >= 2:
            code = ">H2x4s" if data[content] == 2 else ">I2x4s"
            item_id, coding = struct.unpack_from(code, data, content + 4)
            coding_of[item_id] = coding
    idat = next(((a, b) for kind, a, b in _boxes(data, *meta) if kind == b"idat"), (0, 0))
    # All parts together may be as long as the file. Without this limit, each of many items could
    # cover the whole file, and reading all of them would take quadratic time.
    remaining = len(data)
    for item_id, in_idat, extents in _locations(data):
        if coding_of.get(item_id) == b"av01":
            begin, end = idat if in_idat else (0, len(data))
            for offset, length in extents:
                first = begin + offset
                last = first + length if length else end
                # A part of length 0 reaches to `end`, but its start could lie behind `end`.
                if not first <= last <= end:
                    raise RefusedError("truncated", "the image data exceed the file")
                remaining -= last - first
                if remaining < 0:
                    raise RefusedError("corrupt", "AVIF whose items share their data")
                yield first, last


def _locations(data: bytes) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yields for each item its ID, whether its data are in the box ``idat``, and its parts.

    A part is the offset and the length, in bytes, of a piece of the item's data.
    """
    position, end = _find_box(data, b"meta", b"iloc")
    version = data[position - 4]
    sizes = struct.unpack_from(">BB", data, position)
    offset_size, length_size, base_size, index_size = (s >> n & 15 for s in sizes for n in (4, 0))
    position += 2

    def read_uint(size: int) -> int:
        nonlocal position
        position += size
        if position > end:
            raise RefusedError("truncated", "ends inside the list of items")
        return int.from_bytes(data[position - size : position], "big")

    id_bytes = 2 if version < 2 else 4
    for _ in range(read_uint(id_bytes)):
        item_id = read_uint(id_bytes)
        method = read_uint(2) & 15 if version else 0
        read_uint(2)  # Skip the number of the file that has the data, which is 0 for this file.
        base = read_uint(base_size)
        extents = []
        count = read_uint(2)
        # If offset and length take no bytes, the entry of a part takes no bytes either. A tiny file
        # could then list 65,535 parts of each item.
        if count > 1 and not offset_size + length_size:
            raise RefusedError("corrupt", f"AVIF with {count} equal parts of an item")
        for _ in range(count):
            read_uint(index_size if version else 0)
            offset = base + read_uint(offset_size)
            extents.append((offset, read_uint(length_size)))
        yield item_id, method == 1, extents
