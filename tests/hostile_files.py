"""JPEG, PNG, GIF, BMP and WebP files, damaged copies of them, and decompression bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

__all__ = ["hostile_files", "whole_files"]


def whole_files() -> dict[str, bytes]:
    """Small JPEG, PNG, GIF, BMP and WebP files, by name."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8))
    image = coarse.resize((48, 40), Image.Resampling.BICUBIC)
    other, clear = image.rotate(180), image.convert("RGBA")
    clear.putalpha(image.convert("L"))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a viewer turns the image by 90° clockwise
    return {
        "plain.jpg": _encode(image, "JPEG"),
        "progressive.jpg": _encode(image, "JPEG", progressive=True),
        "grey.jpg": _encode(image.convert("L"), "JPEG"),
        "cmyk.jpg": _encode(image.convert("CMYK"), "JPEG"),
        "turned.jpg": _encode(image, "JPEG", exif=exif),
        "plain.png": _encode(image, "PNG"),
        "alpha.png": _encode(clear, "PNG"),
        "palette.png": _encode(image.quantize(16), "PNG", transparency=1),
        "deep.png": _encode(deep, "PNG"),
        "plain.gif": _encode(image.quantize(16), "GIF"),
        "moving.gif": _encode(
            image.quantize(16), "GIF", save_all=True, append_images=[other.quantize(16)]
        ),
        "plain.bmp": _encode(image, "BMP"),
        "32 bits.bmp": _encode(clear, "BMP"),
        "plain.webp": _encode(image, "WEBP"),
        "lossless.webp": _encode(image, "WEBP", lossless=True),
        "turned.webp": _encode(image, "WEBP", exif=exif),
    }


def hostile_files(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of over 200 files. ``seed`` decides how the damaged files are damaged."""
    rng = np.random.default_rng(seed)
    for name, data in whole_files().items():
        yield name, data
        for kind, damaged in _damaged(rng, data):
            stem, _, suffix = name.rpartition(".")
            yield f"{stem} {kind}.{suffix}", damaged
    yield from _bombs()


def _damaged(rng: np.random.Generator, data: bytes) -> Iterator[tuple[str, bytes]]:
    size = len(data)
    for number, cut in enumerate(rng.integers(1, size, 3)):
        yield f"cut {number}", data[:cut]
    yield "cut at the end", data[:-2]
    for count in (1, 8, 64):
        yield f"flipped {count}", _flip(rng, data, 0, count)
    # Size fields, tables and flags are at the start of a file, so one copy is damaged only there.
    yield "flipped head", _flip(rng, data[:64], 4, 3) + data[64:]
    first, second, third = np.sort(rng.integers(0, size, 3))
    yield "swapped", data[:first] + data[second:third] + data[first:second] + data[third:]
    yield "repeated", data[:second] + data[first:]
    yield "missing part", data[:first] + data[second:]
    yield "zeros", data[:first] + bytes(second - first) + data[second:]
    yield "noise", data[:first] + rng.bytes(second - first) + data[second:]
    yield "long tail", data + rng.bytes(5000)
    if data.startswith(b"\x89PNG"):
        chunks = _chunks(data)
        order = [0, *rng.permutation(np.arange(1, len(chunks)))]
        yield "chunks shuffled", data[:8] + b"".join(chunks[index] for index in order)
        yield "chunk twice", data[:8] + b"".join([chunks[0], *chunks])
        yield "no pixels", data[:8] + b"".join(c for c in chunks if c[4:8] != b"IDAT")


def _bombs() -> Iterator[tuple[str, bytes]]:
    """An empty file, files that claim a large size, and small files that need much memory or time."""
    magic, end = b"\x89PNG\r\n\x1a\n", _chunk(b"IEND", b"")
    files = whole_files()
    yield "empty.jpg", b""
    yield "57 bytes.png", magic + _png_head(8, 8) + struct.pack(">I4s", 2**30, b"zTXt") + bytes(16)
    for side in (23_000, 2**27, 2**31 - 1):
        yield f"claims {side}.png", magic + _png_head(side, side) + _chunk(b"IDAT", b"x") + end
    rows = zlib.compress(bytes(2001 * 12_000), 9)
    yield "too many rows.png", magic + _png_head(2000, 2000) + _chunk(b"IDAT", rows) + end
    claim = _chunk(b"abCd", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    yield "private chunk.png", magic + claim + _blank_png(23_000)[8:]
    yield "transparent.png", _blank_png(5_000, _chunk(b"tRNS", b"\x40"))
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000), 9))
    yield "text bomb.png", files["plain.png"][:33] + text + files["plain.png"][33:]
    yield "many chunks.png", files["plain.png"][:33] + _chunk(b"tEXt", b"a\0") * 20_000 + end
    yield "claims 65500.jpg", _resized_jpeg(files["plain.jpg"], 65_500)
    yield "too few pixels.jpg", _resized_jpeg(files["plain.jpg"], 2_000)
    yield "scans.jpg", _repeat_last_scan(files["progressive.jpg"], 30_000)
    yield (
        "few scans, large.jpg",
        _resized_jpeg(_repeat_last_scan(files["progressive.jpg"], 90), 1_900),
    )
    # The bytes FF 00 begin no segment, but here two bytes that look like a length follow them. A parser
    # that reads a segment of this length skips the real tables. It then finds a frame header of 8×8
    # pixels, which is part of the comment after the tables.
    large = _encode(Image.new("L", (3_000, 3_000)), "JPEG", quality=10)
    frame = large.index(b"\xff\xc0")
    tables = large[2 : frame + 13]
    claim = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 8, 8) + b"\1\1\x11\0\xff\xda\0\2"
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(claim)) + claim
    stuffing = b"\xff\0" + struct.pack(">H", 2 + len(tables) + 4)
    yield "stuffing.jpg", b"\xff\xd8" + stuffing + tables + comment + large[frame + 13 :]
    yield "no marker.jpg", b"\xff\xd8\xff" + bytes(8_000_000)
    yield "fill bytes.jpg", b"\xff\xd8" + b"\xff" * 8_000_000
    yield "many segments.jpg", b"\xff\xd8" + b"\xff\xfe\x00\x02" * 200_000
    gif = files["plain.gif"]
    small_frame = _gif_frame(gif, 48, 40)
    large_frame = small_frame[:5] + struct.pack("<HH", 65_000, 65_000) + small_frame[9:]
    yield "row and column.gif", _row_and_column_gif(65_535)
    yield "second frame.gif", gif[:-1] + large_frame + b";"
    yield "frames.gif", gif[:-1] + small_frame * 4_000 + b";"
    blank = _encode(Image.new("P", (20_000, 20_000)), "GIF")
    yield "blank frame.gif", gif[:-1] + _gif_frame(blank, 20_000, 20_000) + b";"
    for width, height in ((2**31 - 1, -(2**31)), (-5, 5), (0, 0), (65_536, 65_536), (48, 2**30)):
        head = files["plain.bmp"][:18] + struct.pack("<ii", width, height)
        yield f"claims {width}×{height}.bmp", head + files["plain.bmp"][26:]
    yield "offset.bmp", files["plain.bmp"][:10] + b"\xff" * 4 + files["plain.bmp"][14:]
    webp = files["turned.webp"]
    yield "canvas.webp", webp[:24] + b"\xff\x1f\0\xff\x1f\0" + webp[30:]
    yield "claims 16383.webp", _encode(Image.new("RGB", (16_383, 300)), "WEBP", lossless=True)


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _flip(rng: np.random.Generator, data: bytes, start: int, count: int) -> bytes:
    flipped = bytearray(data)
    for position in rng.integers(start, len(data), count):
        flipped[position] ^= int(rng.integers(1, 256))
    return bytes(flipped)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _blank_png(side: int, *chunks: bytes) -> bytes:
    """A PNG of ``side`` × ``side`` equal pixels, with a palette and 1 bit per pixel."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 3, 0, 0, 0))
    pixels = zlib.compress(bytes((1 + (side + 7) // 8) * side), 9)
    parts = [
        head,
        _chunk(b"PLTE", bytes(6)),
        *chunks,
        _chunk(b"IDAT", pixels),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _row_and_column_gif(side: int) -> bytes:
    """A GIF with frames of 1×1, side×1 and 1×side pixels, for which TensorFlow allocates side×side."""
    frames = b""
    for width, height in ((1, 1), (side, 1), (1, side)):
        image = _encode(Image.new("P", (width, height)), "GIF")
        frames += _gif_frame(image, width, height)
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frames + b";"


def _png_head(width: int, height: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def _chunks(data: bytes) -> list[bytes]:
    chunks, position = [], 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunks.append(data[position : position + 12 + length])
        position += 12 + length
    return chunks


def _resized_jpeg(data: bytes, side: int) -> bytes:
    """A JPEG with ``side`` × ``side`` in its frame header, but with the pixel data of ``data``."""
    frame = max(data.find(b"\xff\xc0\0\x11"), data.find(b"\xff\xc2\0\x11"))
    return data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]


def _repeat_last_scan(data: bytes, times: int) -> bytes:
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * times + b"\xff\xd9"


def _gif_frame(data: bytes, width: int, height: int) -> bytes:
    """The bytes of a GIF from the frame of this size to the end, without the trailer (one byte)."""
    return data[data.index(b"\x2c" + bytes(4) + struct.pack("<HH", width, height)) : -1]
