"""Parses image headers: format, size, orientation and transparency, or the reason for a refusal.

TensorFlow's decoders allocate as much memory as a header claims, and decode some variants wrongly
without an error. Every file is therefore checked here first, from its bytes alone. Nothing is
decoded, and TensorFlow is not imported.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from seedtf.compat.tensorflow import DECODES_WEBP

__all__ = [
    "MAX_PIXELS",
    "MAX_SCANS",
    "Header",
    "RefusedError",
    "gif_frames",
    "read_header",
]

MAX_PIXELS = 100_000_000
"""Largest width × height that is decoded. That takes 300 to 650 MB, or 1.1 GB with transparency."""

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff[^\xff]")
# Inside entropy-coded data, stuffed zeros and restart markers do not end the scan.
_JPEG_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
MAX_SCANS = 100
"""Largest number of scans in a JPEG. A scan may be 10 bytes long and still costs the decoder a pass
over the whole image; encoders write about 20 at most."""

# Markers without a length. libjpeg also skips the zero that it expects in entropy-coded data alone.
_JPEG_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x00, 0x01}
# The start-of-frame markers. C4, C8 and CC are tables, not frames.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXIF_ORIENTATION = 0x0112


class RefusedError(Exception):
    """The file cannot be used.

    Attributes:
        fault: a short fixed name of the reason, such as ``truncated``.
        detail: one line that describes what the file contains.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What a decoder needs to know about a file before it decodes it.

    Attributes:
        format: ``jpeg``, ``png``, ``gif``, ``bmp`` or ``webp``, by the magic bytes, not by the suffix.
        width, height: size in pixels as stored, before the orientation is applied.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        has_alpha: whether the file is a PNG with transparency; other transparent files are refused.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    has_alpha: bool = False

    @property
    def for_decoder(self) -> tuple[int, int, int, int]:
        """What ``images.decode`` needs: width, height, orientation and has_alpha."""
        return self.width, self.height, self.orientation, int(self.has_alpha)


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Parses the header of an encoded image and checks that the file may be decoded.

    Args:
        data: the whole file.
        max_pixels: the largest width × height that is accepted.

    Raises:
        RefusedError: the file is empty, has no known format, ends inside its header, is too large,
            or is of a variant that TensorFlow decodes differently from an image viewer.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> Image.new("RGB", (640, 480)).save("leaf.png")
        >>> read_header(Path("leaf.png").read_bytes())
        Header(format='png', width=640, height=480, orientation=1, has_alpha=False)
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
    if header.format == "gif":
        _check_gif_frames(header, data, max_pixels)
    return header


def _check_gif_frames(header: Header, data: bytes, max_pixels: int) -> None:
    """Checks all frames of a GIF: TensorFlow decodes each, although only the first one is used."""
    pixels, is_larger = 0, False
    for width, height in gif_frames(data):
        pixels += width * height
        is_larger |= width > header.width or height > header.height
    if pixels > max_pixels:
        raise RefusedError("too large", f"{pixels} pixels in all frames, more than {max_pixels}")
    # TensorFlow allocates the largest width × the largest height, not the canvas.
    if is_larger:
        raise RefusedError("unsupported variant", "GIF with a frame larger than the canvas")


def _read_jpeg(data: bytes) -> Header:
    orientation = 1
    for marker, position, length in _jpeg_segments(data):
        if marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[position + 8 : position + length])
        if marker in _JPEG_FRAMES:
            precision, height, width = struct.unpack_from(">BHH", data, position + 2)
            if precision != 8:
                raise RefusedError("unsupported variant", f"JPEG with {precision} bits per sample")
            if _has_many_scans(data, position + length):
                raise RefusedError("unsupported variant", f"JPEG with more than {MAX_SCANS} scans")
            return Header("jpeg", width, height, orientation)
    raise RefusedError("corrupt", "JPEG without a frame header")


def _has_many_scans(data: bytes, position: int) -> bool:
    """Whether more than ``MAX_SCANS`` scans follow the frame header that ends at ``position``."""
    scans = 0
    while scans <= MAX_SCANS:
        marker = _JPEG_MARKER_AFTER_SCAN.search(data, position)
        if marker is None or marker[0] == b"\xff\xd9" or marker.end() + 2 > len(data):
            return False
        scans += marker[0] == b"\xff\xda"
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return True


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields each segment before the first scan (ITU-T T.81, B.1.1): marker, position, length.

    ``position`` is where the two bytes of the length are; they count towards the length, and the
    payload follows them.

    Raises:
        IndexError, struct.error: the file ends before its first scan.
    """
    position = 2
    while True:
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            raise IndexError("no further marker")
        marker, position = match[0][1], match.end()
        if marker in _JPEG_STANDALONE:
            continue
        if marker in (0xD9, 0xDA):
            return
        (length,) = struct.unpack_from(">H", data, position)
        yield marker, position, length
        position += length


def _read_png(data: bytes) -> Header:
    first_chunk = data[8:16]
    width, height, _, color_type = struct.unpack_from(">IIBB", data, 16)
    # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
    if first_chunk != b"\0\0\0\x0dIHDR":
        raise RefusedError("unsupported variant", f"PNG that starts with chunk {first_chunk[4:]!r}")
    orientation, has_alpha, position = 1, color_type in (4, 6), 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            # libpng would allocate the length that a chunk claims, even a gigabyte.
            raise RefusedError(
                "truncated", f"PNG chunk {kind!r} of {length} bytes exceeds the file"
            )
        if kind == b"tRNS":
            has_alpha = True
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        if kind == b"IEND":  # not IDAT, because eXIf may follow the pixels
            return Header("png", width, height, orientation, has_alpha)
        position += 12 + length


def _read_gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _color_table_bytes(flags)
    transparent = False
    while data[position] == 0x21:  # an extension block before the first frame
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


def gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields width and height of each frame. Damage after the first one ends it and decoding alike."""
    position = 13 + _color_table_bytes(data[10])
    try:
        while data[position] in (0x21, 0x2C):
            if data[position] == 0x21:
                position = _skip_sub_blocks(data, position + 2)
                continue
            width, height, flags = struct.unpack_from("<HHB", data, position + 5)
            yield width, height
            position = _skip_sub_blocks(data, position + 10 + _color_table_bytes(flags) + 1)
    except (struct.error, IndexError):
        return


def _read_bmp(data: bytes) -> Header:
    header_bytes, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    if header_bytes != 40 or bits not in (24, 32) or compression:
        variant = f"{bits}-bit BMP, header of {header_bytes} bytes, compression {compression}"
        raise RefusedError("unsupported variant", f"{variant}; save it as PNG")
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
    """The orientation tag of a TIFF block (TIFF 6.0, section 2); 1 if it is missing or invalid."""
    tiff = tiff.removeprefix(b"Exif\0\0")
    byte_order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if byte_order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{byte_order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{byte_order}H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{byte_order}HHIH", tiff, entry)
            if tag == _EXIF_ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _color_table_bytes(flags: int) -> int:
    """The length of the colour table that a GIF's ``flags`` byte declares."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, position: int) -> int:
    """The position after the GIF sub-blocks that start at ``position``."""
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
