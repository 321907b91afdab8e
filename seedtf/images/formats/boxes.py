"""Parses the boxes of AVIF and HEIC (ISO 14496-12 and 23008-12) for the sizes of the images."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from seedtf.images.formats.av1 import largest_frame
from seedtf.images.formats.base import Header, RefusedError

__all__ = ["read_avif", "read_heic"]


def read_avif(data: bytes) -> Header:
    """Parses a file whose brand is AVIF.

    The decoder allocates the size that the AV1 data claim, whatever the boxes claim; the larger one
    is the size in the header.

    Raises:
        RefusedError: no size is found, or the data are not in the file.
        struct.error: the file ends inside its boxes.
    """
    width, height = _largest(data)
    for start, end in _coded_items(data):
        coded = largest_frame(data, start, end)
        if coded[0] * coded[1] > width * height:
            width, height = coded
    edits = ((8, 12, b"avif"),)  # the still image, also of an animation
    return Header("avif", width, height, edits=edits, by_pillow=True)


def read_heic(data: bytes) -> Header:
    """Parses a file whose brand is HEIC; libheif has limits of its own for what is coded.

    Raises:
        RefusedError: no size is found.
        struct.error: the file ends inside its boxes.
    """
    return Header("heic", *_largest(data), by_pillow=True)


def _largest(data: bytes) -> tuple[int, int]:
    """The size of the largest image of the file: of the whole, if it consists of tiles."""
    properties = _find(data, b"meta", b"iprp", b"ipco")
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
    """Yields kind, start and end of the content of each box between two positions."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else start + size
        if stop < content or stop > end:
            raise RefusedError("truncated", f"box {kind!r} of {size} bytes exceeds the file")
        yield kind, content, stop
        start = stop


def _find(data: bytes, *path: bytes) -> tuple[int, int]:
    """Start and end of the content of the first box with each kind, inside the one before."""
    start, end = 0, len(data)
    for wanted in path:
        found = (box for box in _boxes(data, start, end) if box[0] == wanted)
        _, start, end = next(found, (b"", 0, -1))
        if end < 0:
            raise RefusedError("corrupt", f"no box {wanted!r}")
        start += 4 if wanted in (b"meta", b"iloc", b"iinf") else 0  # version and flags
    return start, end


def _coded_items(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields start and end of the AV1 data of each item."""
    meta = _find(data, b"meta")
    kinds = {}
    start, end = _find(data, b"meta", b"iinf")
    start += 2 if data[start - 4] == 0 else 4
    for kind, item, _ in _boxes(data, start, end):
        if kind == b"infe" and data[item] >= 2:
            code = ">H2x4s" if data[item] == 2 else ">I2x4s"
            number, coding = struct.unpack_from(code, data, item + 4)
            kinds[number] = coding
    idat = next((box[1] for box in _boxes(data, *meta) if box[0] == b"idat"), 0)
    unread = len(data)
    for number, in_idat, extents in _locations(data):
        if kinds.get(number) == b"av01":
            for offset, length in extents:
                first = offset + (idat if in_idat else 0)
                last = first + length if length else len(data)
                if last > len(data):
                    raise RefusedError("truncated", "the image data exceed the file")
                unread -= last - first
                # Otherwise each of many items could cover the whole file.
                if unread < 0:
                    raise RefusedError("corrupt", "AVIF whose items share their data")
                yield first, last


def _locations(data: bytes) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yields number, whether it is in the box idat, and offset and length of the parts of each item."""
    position, end = _find(data, b"meta", b"iloc")
    version = data[position - 4]
    sizes = struct.unpack_from(">BB", data, position)
    offset_size, length_size, base_size, index_size = (s >> n & 15 for s in sizes for n in (4, 0))
    position += 2

    def number(size: int) -> int:
        nonlocal position
        position += size
        if position > end:
            raise RefusedError("truncated", "ends inside the list of items")
        return int.from_bytes(data[position - size : position], "big")

    wide = 2 if version < 2 else 4
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # the file that holds the data, 0 for this one
        base = number(base_size)
        extents = []
        count = number(2)
        # Fields of no bytes would let a few bytes stand for 65,535 parts of each item.
        if count > 1 and not offset_size + length_size:
            raise RefusedError("corrupt", f"AVIF with {count} equal parts of an item")
        for _ in range(count):
            number(index_size if version else 0)
            offset = base + number(offset_size)
            extents.append((offset, number(length_size)))
        yield item, method == 1, extents
