"""What a file's first bytes say: format, size, orientation, transparency; or why it is refused.

The decoders below this module allocate by what a header claims and get some variants silently wrong,
so every file is judged here first, from bytes alone. Nothing is decoded and TensorFlow is not needed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from seedtf.compat.tensorflow import DECODES_WEBP

__all__ = [
    "MAX_PIXELS",
    "MOST_SCANS",
    "Header",
    "RefusedError",
    "gif_frames",
    "jpeg_segments",
    "read_header",
]

MAX_PIXELS = 100_000_000
"""Largest width × height that is decoded (300 MB of uint8 RGB)."""

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff[^\xff]")
# neither a stuffed zero nor a restart
_JPEG_MARKER_AMID_PIXELS = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
MOST_SCANS = 100
"""Most scans of a JPEG: each costs a pass over the whole image and may be 10 bytes long; encoders
write up to about 20."""

_JPEG_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
# start-of-frame markers; C4, C8 and CC are tables, not frames
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXIF_ORIENTATION = 0x0112


class RefusedError(Exception):
    """The file is not used. ``fault`` is a short fixed name, ``detail`` says what was found."""

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What a decoder needs to know beforehand.

    Attributes:
        format: ``jpeg``, ``png``, ``gif``, ``bmp`` or ``webp``, by the magic bytes, not the name.
        width, height: pixels as stored, before orientation.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        has_alpha: a PNG with transparency; other transparent files are refused.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    has_alpha: bool = False


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Judges a whole encoded file by its header.

    Args:
        data: the file's bytes.
        max_pixels: the largest width × height accepted.

    Raises:
        RefusedError: empty, of no known format, truncated in the header, too large, or of a variant
            that the decoders would show differently from an image viewer.
    """
    if not data:
        raise RefusedError("empty file", "0 bytes")
    read = next((reader for magic, reader in _READERS if data.startswith(magic)), None)
    if read is None:
        raise RefusedError("not an image", f"starts with {data[:12]!r}")
    try:
        header = read(data)
    except (struct.error, IndexError):
        raise RefusedError("truncated", "ends inside the header") from None
    if header.format == "webp" and not DECODES_WEBP:
        detail = "WebP, which this TensorFlow cannot decode; save it as PNG or JPEG"
        raise RefusedError("unsupported variant", detail)
    if header.width < 1 or header.height < 1:
        raise RefusedError("corrupt", f"size {header.width}×{header.height}")
    if header.width * header.height > max_pixels:
        size = f"{header.width}×{header.height}"
        raise RefusedError("too large", f"{size} is more than {max_pixels} pixels")
    # the decoder unpacks every frame of a GIF, though the first alone is shown
    if header.format == "gif" and (pixels := sum(gif_frames(data))) > max_pixels:
        raise RefusedError("too large", f"{pixels} pixels in all frames, more than {max_pixels}")
    return header


def _read_jpeg(data: bytes) -> Header:
    orientation = 1
    for marker, position, length in jpeg_segments(data):
        if marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[position + 8 : position + length])
        if marker in _JPEG_FRAMES:
            precision, height, width = struct.unpack_from(">BHH", data, position + 2)
            if precision != 8:
                raise RefusedError("unsupported variant", f"JPEG with {precision} bits a sample")
            if _has_many_scans(data, position + length):
                raise RefusedError("unsupported variant", f"JPEG of over {MOST_SCANS} scans")
            return Header("jpeg", width, height, orientation)
    raise RefusedError("corrupt", "JPEG without a frame header")


def _has_many_scans(data: bytes, position: int) -> bool:
    """Whether the image behind its frame header at ``position`` has over ``MOST_SCANS`` scans."""
    scans = 0
    while scans <= MOST_SCANS:
        found = _JPEG_MARKER_AMID_PIXELS.search(data, position)
        if found is None or found[0] == b"\xff\xd9" or found.end() + 2 > len(data):
            return False
        scans += found[0] == b"\xff\xda"
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return True


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments before the first scan (ITU-T T.81, B.1.1): marker, where its length stands, length.

    The length counts its own two bytes, the payload follows them.

    Raises:
        IndexError, struct.error: the file ends before a scan begins.
    """
    position = 2
    while True:
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise IndexError("no further marker")
        marker, position = found[0][1], found.end()
        if marker in _JPEG_STANDALONE:
            continue
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", data, position)
        yield marker, position, length
        position += length


def _read_png(data: bytes) -> Header:
    width, height, _, color_type = struct.unpack_from(">IIBB", data, 16)
    orientation, has_alpha, position = 1, color_type in (4, 6), 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            # also stops a tiny file whose chunk claims a gigabyte before anything is allocated
            raise RefusedError(
                "truncated", f"PNG chunk {kind!r} of {length} bytes exceeds the file"
            )
        if kind == b"tRNS":
            has_alpha = True
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        if kind == b"IEND":  # the orientation may stand behind the pixels
            return Header("png", width, height, orientation, has_alpha)
        position += 12 + length


def _read_gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _color_table_bytes(flags)
    transparent = False
    while data[position] == 0x21:  # extension blocks before the first frame
        transparent |= data[position + 1] == 0xF9 and bool(data[position + 3] & 1)
        position = _skip_sub_blocks(data, position + 2)
    if data[position] != 0x2C:
        raise RefusedError("corrupt", "GIF without a frame")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
    if (left, top, frame_width, frame_height) != (0, 0, width, height):
        raise RefusedError("unsupported variant", "GIF whose first frame covers part of the canvas")
    if transparent:
        raise RefusedError("unsupported variant", "GIF with transparency; save it as PNG")
    _skip_sub_blocks(data, position + 10 + _color_table_bytes(flags) + 1)
    return Header("gif", width, height)


def gif_frames(data: bytes) -> Iterator[int]:
    """The pixels of each frame; damage behind the first ends the count, as it ends decoding."""
    position = 13 + _color_table_bytes(data[10])
    try:
        while data[position] in (0x21, 0x2C):
            if data[position] == 0x21:
                position = _skip_sub_blocks(data, position + 2)
                continue
            width, height, flags = struct.unpack_from("<HHB", data, position + 5)
            yield width * height
            position = _skip_sub_blocks(data, position + 10 + _color_table_bytes(flags) + 1)
    except (struct.error, IndexError):
        return


def _read_bmp(data: bytes) -> Header:
    header_bytes, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    if header_bytes != 40 or bits not in (24, 32) or compression:
        found = f"{bits}-bit BMP, header of {header_bytes} bytes, compression {compression}"
        raise RefusedError("unsupported variant", f"{found}; save it as PNG")
    return Header("bmp", width, abs(height))


def _read_webp(data: bytes) -> Header:
    if data[8:12] != b"WEBP":
        raise RefusedError("not an image", f"RIFF file of type {data[8:12]!r}")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        if packed >> 28 & 1:
            raise RefusedError("unsupported variant", "WebP with alpha; save it as PNG")
        return Header("webp", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise RefusedError("corrupt", f"WebP chunk {kind!r}")
    if data[20] & 0x12:
        raise RefusedError("unsupported variant", "animated or transparent WebP; save it as PNG")
    width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    return Header("webp", width, height, _webp_orientation(data))


def _webp_orientation(data: bytes) -> int:
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            return _exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return 1


def _exif_orientation(tiff: bytes) -> int:
    """The orientation tag of a TIFF block (TIFF 6.0, section 2), 1 where it is absent or broken."""
    tiff = tiff.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _EXIF_ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _color_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, position: int) -> int:
    while size := data[position]:
        position += 1 + size
    return position + 1


_READERS = (
    (b"\xff\xd8\xff", _read_jpeg),
    (_PNG_MAGIC, _read_png),
    (b"GIF8", _read_gif),
    (b"BM", _read_bmp),
    (b"RIFF", _read_webp),
)
