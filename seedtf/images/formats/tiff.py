"""Parses the first directory of a TIFF (TIFF 6.0) or BigTIFF."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from seedtf.images.formats.base import Header, RefusedError

__all__ = ["read_tiff"]

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
_MAX_TAGS = 4096
# The size in bytes of one value, indexed by the number of its type: BYTE is type 1, IFD8 type 18; 0 for
# an unused number.
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_UNSIGNED_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_ACCEPTED_TILE_PIXELS = 1 << 24


def read_tiff(data: bytes) -> Header:
    """Parses the first page of a file that starts as a TIFF.

    Raises:
        RefusedError: the first page is a preview, as in camera raw files; there are more than 4096
            tags; the tags claim more bytes than the file has; or a tile has more pixels than the image
            and also more than 2^24.
        struct.error: the file ends inside its directory.
    """
    values: dict[int, int] = {}
    tag_bytes = 0
    for tag, value, size in _tags(data):
        values.setdefault(tag, value)
        tag_bytes += size
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    if _DNG_VERSION in values or values.get(_SUBFILE_TYPE, 0) & 1:
        detail = "camera raw, whose first page is a preview; save it as TIFF, PNG or JPEG"
        raise RefusedError("unsupported variant", detail)
    tile = values.get(_TILE_WIDTH, 0), values.get(_TILE_HEIGHT, 0)
    if tile[0] * tile[1] > max(width * height, _ACCEPTED_TILE_PIXELS):
        raise RefusedError("too large", f"TIFF with tiles of {tile[0]}×{tile[1]} pixels")
    # Pillow reads every tag into memory. Many tags that point to the same bytes of the file could take
    # more memory than the file.
    if tag_bytes > len(data):
        detail = f"TIFF whose tags claim {tag_bytes} bytes, in a file of {len(data)}"
        raise RefusedError("corrupt", detail)
    return Header("tiff", width, height, needs_pillow=True)


def _tags(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields for each tag its number, its first value and the size of all its values in bytes.

    The first value is 0 if the type of the tag is not an unsigned integer.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_bigtiff = 43 in data[2:4]  # the version: 43 in BigTIFF, 42 in TIFF; its byte order varies
    offset_code, count_code, start = ("Q", "Q", 8) if is_bigtiff else ("I", "H", 4)
    (position,) = struct.unpack_from(order + offset_code, data, start)
    (num_tags,) = struct.unpack_from(order + count_code, data, position)
    if num_tags > _MAX_TAGS:
        raise RefusedError("corrupt", f"TIFF with {num_tags} tags")
    entry = struct.Struct(f"{order}HH{offset_code}")
    inline_bytes = struct.calcsize(offset_code)
    first = position + struct.calcsize(count_code)
    step = entry.size + inline_bytes
    for entry_at in range(first, first + num_tags * step, step):
        tag, kind, num_values = entry.unpack_from(data, entry_at)
        size = num_values * _TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0
        value, code = 0, _UNSIGNED_CODES.get(kind)
        if code and num_values:
            value_at = entry_at + entry.size
            if size > inline_bytes:  # The entry has only the position of the values.
                (value_at,) = struct.unpack_from(order + offset_code, data, value_at)
            (value,) = struct.unpack_from(order + code, data, value_at)
        yield tag, value, size
