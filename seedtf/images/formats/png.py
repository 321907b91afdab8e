"""Parses the chunks of a PNG (PNG 1.2, section 3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from seedtf.images.formats.base import Edit, Header, RefusedError
from seedtf.images.formats.orientation import upright_orientation

__all__ = ["COMPRESSED_TEXTS", "XMP_KEY", "read_png"]

XMP_KEY = b"XML:com.adobe.xmp\0\0"
"""The start of an iTXt chunk with an XMP packet that is not compressed."""

COMPRESSED_TEXTS = (b"zTXt", b"iTXt", b"iCCP")
"""Chunks that libpng decompresses, although no pixel depends on them. Decompressing 64 kB of these
chunks takes 0.3 s."""

_FIRST_CHUNK = b"\0\0\0\x0dIHDR"
_ALPHA_TYPES = (4, 6)
_FIRST_CHUNK_START = 8
# The bit that makes the first letter of a chunk's name lower case: decoders may skip such a chunk.
_ANCILLARY = 0x20


def read_png(data: bytes) -> Header:
    """Parses a file that starts as a PNG.

    ``has_alpha`` is true if there is any tRNS chunk, although libpng, which decodes the image, ignores
    a tRNS chunk after the pixels or before the palette. Checksums are not verified, and a compressed
    XMP packet is not read. If there are compressed texts, ``Header.edits`` remove the chunks that no
    pixel depends on.

    Raises:
        RefusedError: the first chunk is not the header (IHDR); a chunk exceeds the file; there are two
            EXIF chunks, two tRNS chunks or two palettes before the pixels; or there is an unknown chunk
            that no decoder may skip.
        struct.error: the file ends before its last chunk.
    """
    first_chunk = data[8:16]
    width, height, _, color_type = struct.unpack_from(">IIBB", data, 16)
    # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
    if first_chunk != _FIRST_CHUNK:
        raise RefusedError("unsupported variant", f"PNG that starts with chunk {first_chunk[4:]!r}")
    exif = xmp = b""
    has_alpha, has_exif, seen = color_type in _ALPHA_TYPES, False, set[bytes]()
    for kind, start, end in _chunks(data):
        _check_known(kind, start, seen)
        seen.add(kind)
        if kind == b"tRNS":
            has_alpha = True
        elif kind == b"eXIf":
            if has_exif:
                raise RefusedError("unsupported variant", "PNG with two EXIF chunks")
            exif, has_exif = data[start + 8 : end - 4], True
        elif kind == b"iTXt" and not xmp and data.startswith(XMP_KEY, start + 8):
            xmp = data[start + 8 : end - 4]
    edits = () if seen.isdisjoint(COMPRESSED_TEXTS) else _edits(data, color_type in _ALPHA_TYPES)
    return Header("png", width, height, upright_orientation(exif, xmp), has_alpha, edits)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and end of every chunk up to IEND; EXIF may come after the pixels.

    Raises:
        RefusedError: a chunk exceeds the file.
        struct.error: the file ends before its last chunk.
    """
    position, kind = _FIRST_CHUNK_START, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            # libpng would allocate the length that a chunk claims, even a gigabyte.
            raise RefusedError(
                "truncated", f"PNG chunk {kind!r} of {length} bytes exceeds the file"
            )
        yield kind, position, end
        position = end


def _check_known(kind: bytes, start: int, seen: set[bytes]) -> None:
    """Refuses an unknown chunk that no decoder may skip, and a second palette or tRNS chunk."""
    is_known = kind[0] & _ANCILLARY or kind in (b"IDAT", b"IEND", b"PLTE")
    is_known = is_known or (kind == b"IHDR" and start == _FIRST_CHUNK_START)
    is_repeated = kind == b"tRNS" or (kind == b"PLTE" and b"IDAT" not in seen)
    if not is_known or (is_repeated and kind in seen):
        raise RefusedError("unsupported variant", f"PNG with an unknown or second chunk {kind!r}")


def _edits(data: bytes, is_alpha_type: bool) -> tuple[Edit, ...]:
    """Edits that leave only the chunks that the pixels depend on."""
    edits: list[Edit] = []
    kept_end, seen = _FIRST_CHUNK_START, set[bytes]()
    for kind, start, end in _chunks(data):
        is_needed = kind in (b"IHDR", b"IEND", b"IDAT")
        if b"IDAT" not in seen:
            is_needed |= kind == b"PLTE" or (kind == b"tRNS" and not is_alpha_type)
        is_first = kind not in seen
        continues_data = kind == b"IDAT" and start == kept_end
        seen.add(kind)
        if is_needed and (is_first or continues_data):
            if kept_end < start:
                edits.append((kept_end, start, b""))
            kept_end = end
    return tuple(edits)
