"""parse_header_graph agrees with read_header on whole, damaged and hostile files."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hostile_files import hostile_files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seedtf.images.header import RefusedError, read_header
from seedtf.images.header_graph import STATUSES, parse_header_graph
from seedtf.images.parts_graph import MAX_STEPS

IMAGE = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (31, 47, 3)).astype(np.uint8), "RGB"
)


def encode(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    IMAGE.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


WHOLE = [
    *(encode(kind, exif=exif(o)) for kind in ("JPEG", "PNG", "WEBP") for o in (1, 3, 6, 8)),
    encode("JPEG", progressive=True),
    encode("JPEG", "L"),
    encode("JPEG", "CMYK"),
    *(encode("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1")),
    encode("PNG", "P", transparency=3),
    encode("GIF"),
    encode("GIF", "P", transparency=3),
    *(encode("BMP", mode) for mode in ("RGB", "P", "RGBA")),
    encode("WEBP"),
    encode("WEBP", lossless=True),
    encode("WEBP", "RGBA", lossless=True),
    encode("WEBP", "RGBA"),
]
FOREIGN = [b"", b"\xff", b"\xff\xd8\xff", b"<html>", b"RIFF\0\0\0\0WAVEfmt ", b"GIF8", b"BM"]
PNG = encode("PNG")
JPEG = b"\xff\xd8\xff\xc2\0\x0b\x08\0\x09\0\x07\1\1\x11\0"
SCAN, END, RESTART = b"\xff\xda\0\2", b"\xff\xd9", b"\xff\xd0\xff\0"


def gif(width: int, height: int, *frames: tuple[int, int]) -> bytes:
    """A canvas, a first frame of its size, then ``frames``; no frame has pixel data."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    sizes = [(width, height), *frames]
    blocks = [b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\2\1a\0" for size in sizes]
    return head + b"\x21\xfe\2ab\0".join(blocks) + b";"


def in_python(data: bytes) -> tuple:
    try:
        header = read_header(data)
    except RefusedError as error:
        return (error.fault,)
    return ("ok", header.width, header.height, header.orientation, header.has_alpha)


def in_graph(data: bytes) -> tuple:
    header = parse_header_graph(tf.constant(data))
    fault = STATUSES[int(header.status)]
    if fault != "ok":
        return (fault,)
    return ("ok", *(int(value) for value in header[1:4]), bool(header.has_alpha))


@pytest.mark.parametrize("data", [*WHOLE, *FOREIGN])
def test_both_agree_on_whole_and_foreign_files(data: bytes) -> None:
    assert in_graph(data) == in_python(data)


def test_the_files_cover_every_status() -> None:
    huge = WHOLE[4][:16] + struct.pack(">II", 60_000, 60_000) + WHOLE[4][24:]
    seen = {in_graph(data)[0] for data in [*WHOLE, *FOREIGN, huge]}
    empty = WHOLE[4][:16] + struct.pack(">II", 0, 9) + WHOLE[4][24:]
    assert in_graph(empty) == in_python(empty) == ("corrupt",)
    assert seen | {"corrupt"} == set(STATUSES)


@settings(max_examples=400)
@given(st.data())
def test_both_agree_on_damaged_files(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(WHOLE)))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(1, min(len(damaged), 400))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        position = data.draw(st.integers(0, min(len(damaged), 120) - 1))
        damaged[position] = data.draw(st.sampled_from([0, 1, 255]) | st.integers(0, 255))
    assert in_graph(bytes(damaged)) == in_python(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (JPEG + SCAN * 100 + END, "ok"),
        (JPEG + SCAN * 101 + END, "unsupported variant"),
        (JPEG + (b"\xff" + SCAN + RESTART) * 101, "unsupported variant"),
        (JPEG + SCAN * 101 + b"\xff", "unsupported variant"),
        (JPEG + SCAN * 100 + SCAN[:3], "ok"),
        (JPEG + SCAN * 100 + END + b"\0\2" + SCAN * 900, "ok"),
        (JPEG + SCAN * 99 + b"\xff\xfe\0\x82" + SCAN * 32 + SCAN + END, "ok"),
        (gif(10_000, 5_000, (10_000, 5_000)), "ok"),
        (gif(10_000, 5_000, (9_999, 5_000), (70, 70)), "ok"),
        (gif(10_000, 5_000, (10_000, 5_000), (1, 1)), "too large"),
        (gif(10, 5, (10, 5), (11, 1)), "unsupported variant"),
        (gif(10, 5, (1, 6), (1, 1)), "unsupported variant"),
        (gif(9, 9, (65_000, 65_000)), "too large"),
        (gif(0, 9, (65_000, 65_000)), "corrupt"),
        (gif(9, 9, (65_000, 65_000))[:-6], "ok"),  # without the flags of the second frame
    ],
)
def test_scans_and_frames_that_are_costly_to_decode_are_counted(data: bytes, fault: str) -> None:
    assert in_graph(data)[0] == in_python(data)[0] == fault


@pytest.mark.parametrize("kind", [b"abCd", b"CgBI"])
def test_a_png_must_start_with_its_header_chunk(kind: bytes) -> None:
    claim = struct.pack(">I", 13) + kind + struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0) + bytes(4)
    data = PNG[:8] + claim + PNG[8:]
    assert in_graph(data) == in_python(data) == ("unsupported variant",)


def test_a_stuffed_zero_before_the_frame_has_no_length() -> None:
    """FF 00 is skipped, so the frame header of 7×9 pixels counts, not the one in the comment."""
    frame, hidden = JPEG[2:], JPEG[2:7] + b"\0\1\0\1" + JPEG[11:]
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(hidden)) + hidden
    data = JPEG[:2] + b"\xff\0" + struct.pack(">H", 2 + len(frame) + 4) + frame + comment + SCAN
    assert in_graph(data) == in_python(data) == ("ok", 7, 9, 1, False)


@pytest.mark.parametrize("before", [1, 100, 65_533, 65_534, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_bytes_before_a_marker_are_skipped(before: int, filling: bytes) -> None:
    data = JPEG[:2] + b"\xff\xfe\0\2" + filling * before + JPEG[2:] + SCAN
    assert in_graph(data) == in_python(data) == ("ok", 7, 9, 1, False)


@settings(max_examples=200)
@given(st.data())
def test_both_agree_on_damage_between_frames_and_scans(data: st.DataObject) -> None:
    most = [gif(9_000, 4_000, *[(9_000, 4_000)] * 2), JPEG + (RESTART + SCAN) * 101 + END]
    damaged = bytearray(data.draw(st.sampled_from(most)))
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(12, len(damaged) - 1))
        damaged[position] = data.draw(st.sampled_from([0, 44, 217, 218, 255]) | st.integers(0, 255))
    del damaged[data.draw(st.integers(len(damaged) - 60, len(damaged))) :]
    assert in_graph(bytes(damaged)) == in_python(bytes(damaged))


def test_both_agree_on_hostile_files() -> None:
    results = {name: (in_graph(data), in_python(data)) for name, data in hostile_files()}
    assert len(results) >= 200
    differing = {name: graph for name, (graph, python) in results.items() if graph != python}
    # They have more than MAX_STEPS parts, which only the graph limits.
    many_parts = ("many chunks.png", "many segments.jpg")
    assert differing == dict.fromkeys(many_parts, ("unsupported variant",))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + b"\xff\x01" * (2 * MAX_STEPS),
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + bytes(17) + b"\0\0\0\0abcd0000" * MAX_STEPS,
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"\x21\xfe" + b"\1\0" * MAX_STEPS,
        b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\1a" + b"\1a" * MAX_STEPS + b"\0,",
        b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\0" * MAX_STEPS,
        gif(1, 1, *[(1, 1)] * (MAX_STEPS // 3)),
        JPEG + b"\xff\xfe\0\2" * MAX_STEPS + SCAN * 101,
    ],
    ids=["jpeg", "png", "gif", "gif chain", "gif extensions", "gif frames", "jpeg segments"],
)
def test_a_header_of_too_many_parts_is_refused(data: bytes) -> None:
    assert in_graph(data + bytes(100)) == ("unsupported variant",)
