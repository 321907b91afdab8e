"""Parses the chunks of a WebP (WebP container specification)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from seedtf.images.formats.base import Header, RefusedError
from seedtf.images.formats.orientation import upright_orientation

__all__ = ["read_webp"]

# Flags of the chunk VP8X.
_ANIMATION, _XMP, _EXIF, _ALPHA = 0x02, 0x04, 0x08, 0x10
_FRAME_HEADER_BYTES = 16


def read_webp(data: bytes) -> Header:
    """Parses a file that starts as a WebP.

    EXIF and XMP are used only if libwebp would find them too, that is, if their flag is set and they
    lie within the size in the RIFF header. ``Header.edits`` turn the first frame of an animation into a
    still image. If this frame does not cover the canvas, Pillow decodes the file instead.

    Raises:
        RefusedError: the kind of the first chunk is unknown, the image has an alpha chunk but the alpha
            flag is not set, or the first frame of an animation is missing or incomplete.
        IndexError, struct.error: the file ends inside its header.
    """
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        size = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        return Header("webp", *size, has_alpha=bool(packed >> 28 & 1))
    if kind != b"VP8X":
        raise RefusedError("corrupt", f"WebP chunk {kind!r}")
    return _read_extended(data)


def _read_extended(data: bytes) -> Header:
    flags = data[20]
    width, height = (_read_uint24(data, position) + 1 for position in (24, 27))
    exif: bytes | None = None
    xmp: bytes | None = None
    pixel_chunk: tuple[bytes, int, int] | None = None
    for kind, position, length in _chunks(data):
        payload = slice(position, position + length)
        if kind == b"EXIF" and flags & _EXIF and exif is None:
            exif = data[payload]
        elif kind == b"XMP " and flags & _XMP and xmp is None:
            xmp = data[payload]
        elif kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF") and pixel_chunk is None:
            pixel_chunk = kind, position, length
    orientation = upright_orientation(exif or b"", xmp or b"")
    if flags & _ANIMATION:
        return _read_animation(data, width, height, orientation, pixel_chunk)
    kind, position, _ = pixel_chunk or (b"", 0, 0)
    _check_alpha_flag(kind, flags)
    # A lossless image (VP8L) has a transparency bit of its own.
    has_alpha = _lossless_has_alpha(data, position) if kind == b"VP8L" else bool(flags & _ALPHA)
    return Header("webp", width, height, orientation, has_alpha)


def _check_alpha_flag(kind: bytes, flags: int) -> None:
    """Raises RefusedError for an alpha chunk without its flag: only some decoders show such alpha."""
    if kind == b"ALPH" and not flags & _ALPHA:
        raise RefusedError("unsupported variant", "WebP with transparency but without its flag")


def _read_animation(
    data: bytes,
    width: int,
    height: int,
    orientation: int,
    pixel_chunk: tuple[bytes, int, int] | None,
) -> Header:
    """The header of an animation, with edits that turn its first frame into a still image.

    ``pixel_chunk``: kind, position and length of the first chunk that belongs to an image.
    """
    if pixel_chunk is None or pixel_chunk[0] != b"ANMF":
        raise RefusedError("corrupt", "animated WebP without a frame")
    _, start, length = pixel_chunk
    pixels_start, frame_end = start + _FRAME_HEADER_BYTES, start + length
    if frame_end > len(data) or length < _FRAME_HEADER_BYTES + 8:
        raise RefusedError("truncated", "ends inside the first frame of a WebP")
    x, y, *sides = (_read_uint24(data, position) for position in range(start, start + 12, 3))
    if (x, y, sides[0] + 1, sides[1] + 1) != (0, 0, width, height):
        return Header("webp", width, height, orientation, needs_pillow=True)
    kind = data[pixels_start : pixels_start + 4]
    _check_alpha_flag(kind, data[20])
    is_lossless = kind == b"VP8L"
    has_alpha = _lossless_has_alpha(data, pixels_start + 8) if is_lossless else kind == b"ALPH"
    flags = bytes([_ALPHA if has_alpha else 0, 0, 0, 0])
    # The new file: RIFF header, VP8X chunk, then the chunks of the first frame.
    vp8x_chunk = struct.pack("<4sI", b"VP8X", 10) + flags + data[24:30]
    size = 4 + len(vp8x_chunk) + frame_end - pixels_start
    new_start = struct.pack("<4sI4s", b"RIFF", size, b"WEBP") + vp8x_chunk
    edits = ((0, pixels_start, new_start), (frame_end, len(data), b""))
    return Header("webp", width, height, orientation, has_alpha, edits)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields for each chunk its kind, the position of its payload, and the length of the payload."""
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    position, end = 12, min(len(data), 8 + riff_bytes)
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, position + 8, length
        position += 8 + length + length % 2


def _lossless_has_alpha(data: bytes, position: int) -> bool:
    """The transparency bit of a VP8L chunk whose payload starts at ``position``."""
    return len(data) > position + 4 and bool(data[position + 4] >> 4 & 1)


def _read_uint24(data: bytes, position: int) -> int:
    if position + 3 > len(data):
        raise IndexError("ends inside the header")
    return int.from_bytes(data[position : position + 3], "little")
