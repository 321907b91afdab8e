"""The verdict in the graph is the verdict in Python, for whole and for damaged files."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seedtf.data.header import RefusedError, read_header
from seedtf.results.serving_header import FAULTS, MAX_STEPS, judge_header

PICTURE = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (31, 47, 3)).astype(np.uint8), "RGB"
)


def encode(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.convert(mode).save(buffer, kind, **options)
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


def in_python(data: bytes) -> tuple:
    try:
        header = read_header(data)
    except RefusedError as error:
        return (error.fault,)
    return ("ok", header.width, header.height, header.orientation, header.has_alpha)


def in_graph(data: bytes) -> tuple:
    verdict = judge_header(tf.constant(data))
    fault = FAULTS[int(verdict.fault)]
    if fault != "ok":
        return (fault,)
    return ("ok", *(int(value) for value in verdict[1:4]), bool(verdict.has_alpha))


@pytest.mark.parametrize("data", [*WHOLE, *FOREIGN])
def test_whole_and_foreign_files(data: bytes) -> None:
    assert in_graph(data) == in_python(data)


def test_the_files_reach_every_verdict() -> None:
    huge = WHOLE[4][:16] + struct.pack(">II", 60_000, 60_000) + WHOLE[4][24:]
    seen = {in_graph(data)[0] for data in [*WHOLE, *FOREIGN, huge]}
    none = WHOLE[4][:16] + struct.pack(">II", 0, 9) + WHOLE[4][24:]
    assert in_graph(none) == in_python(none) == ("corrupt",)
    assert seen | {"corrupt"} == set(FAULTS)


@settings(max_examples=400)
@given(st.data())
def test_damaged_files(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(WHOLE)))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(1, min(len(damaged), 400))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, min(len(damaged), 120) - 1))
        damaged[place] = data.draw(st.sampled_from([0, 1, 255]) | st.integers(0, 255))
    assert in_graph(bytes(damaged)) == in_python(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + b"\xff\x01" * (2 * MAX_STEPS),
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + bytes(17) + b"\0\0\0\0abcd0000" * MAX_STEPS,
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"\x21\xfe" + b"\1\0" * MAX_STEPS,
        b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\1a" + b"\1a" * MAX_STEPS + b"\0,",
    ],
    ids=["jpeg", "png", "gif", "gif chain"],
)
def test_an_endless_header_is_refused(data: bytes) -> None:
    assert in_graph(data + bytes(100)) == ("unsupported variant",)
