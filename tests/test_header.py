"""read_header parses the headers of all supported formats, and refuses other files before decoding."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from seedtf.images.header import MAX_PIXELS, Header, RefusedError, read_header

IMAGE = Image.fromarray(np.arange(7 * 5 * 3, dtype=np.uint8).reshape(5, 7, 3))
RGBA = IMAGE.convert("RGBA")
RGBA.putpixel((0, 0), (1, 2, 3, 40))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with only an orientation; ``order`` is ``<`` (little-endian) or ``>``."""
    byte_order = b"II" if order == "<" else b"MM"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + byte_order + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def png_chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    """A chunk of a PNG; ``length`` replaces the true length in its length field."""
    size = struct.pack(">I", len(data) if length is None else length)
    return size + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiny_png(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def refusal(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, str]:
    """The fault and the detail with which ``read_header`` refuses ``data``."""
    with pytest.raises(RefusedError) as error:
        read_header(data, max_pixels)
    assert str(error.value) == f"{error.value.fault}: {error.value.detail}"
    assert "\n" not in str(error.value)
    return error.value.fault, error.value.detail


# For each name: the file, its format, and whether an image of this kind may be transparent.
ACCEPTED = {
    "jpeg": (encode(IMAGE, "JPEG"), "jpeg", False),
    "grey jpeg": (encode(IMAGE.convert("L"), "JPEG"), "jpeg", False),
    "progressive jpeg": (encode(IMAGE, "JPEG", progressive=True), "jpeg", False),
    "cmyk jpeg": (encode(IMAGE.convert("CMYK"), "JPEG"), "jpeg", False),
    "png": (encode(IMAGE, "PNG"), "png", False),
    "palette png": (encode(IMAGE.quantize(8), "PNG"), "png", False),
    "rgba png": (encode(RGBA, "PNG"), "png", True),
    "grey alpha png": (encode(RGBA.convert("LA"), "PNG"), "png", True),
    "palette png with tRNS": (encode(IMAGE.quantize(8), "PNG", transparency=1), "png", True),
    "bmp": (encode(IMAGE, "BMP"), "bmp", False),
    "gif": (encode(IMAGE.quantize(8), "GIF"), "gif", False),
    "lossy webp": (encode(IMAGE, "WEBP"), "webp", False),
    "lossless webp": (encode(IMAGE, "WEBP", lossless=True), "webp", False),
    "webp with exif": (encode(IMAGE, "WEBP", exif=exif(1)), "webp", False),
    "webp with alpha": (encode(RGBA, "WEBP"), "webp", True),
    "lossless webp with alpha": (encode(RGBA, "WEBP", lossless=True), "webp", True),
    "animated webp": (
        encode(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(180)]),
        "webp",
        False,
    ),
    "transparent gif": (encode(IMAGE.quantize(8), "GIF", transparency=1), "gif", False),
    "palette bmp": (encode(IMAGE.quantize(8), "BMP"), "bmp", False),
    "tiff": (encode(IMAGE, "TIFF"), "tiff", False),
    "pnm": (encode(IMAGE, "PPM"), "pnm", False),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_format_size_and_transparency_are_parsed(name: str) -> None:
    data, kind, has_alpha = ACCEPTED[name]
    header = read_header(data)
    assert (header.format, header.width, header.height) == (kind, 7, 5)
    assert (header.orientation, header.has_alpha) == (1, has_alpha)


def test_a_bmp_may_be_stored_top_down() -> None:
    data = bytearray(encode(IMAGE, "BMP"))
    struct.pack_into("<i", data, 22, -5)  # a negative height: the top row comes first
    assert read_header(bytes(data)) == Header("bmp", 7, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_every_orientation_is_read_in_both_byte_orders(orientation: int, order: str) -> None:
    block = exif(orientation, order)
    for kind in ("JPEG", "PNG", "WEBP"):
        assert read_header(encode(IMAGE, kind, exif=block)).orientation == orientation


def test_an_orientation_after_the_pixels_of_a_png_is_read() -> None:
    plain = encode(IMAGE, "PNG")
    late = plain[:-12] + png_chunk(b"eXIf", exif(6)[6:]) + plain[-12:]
    assert read_header(late).orientation == 6


@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        b"Exif\0\0",
        b"Exif\0\0XX*\0",
        exif(6)[:20],
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ],
)
def test_an_invalid_orientation_counts_as_upright(block: bytes) -> None:
    jpeg = encode(IMAGE, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    assert read_header(jpeg[:2] + segment + jpeg[2:]).orientation == 1


def gif_whose_frame_covers_part_of_the_canvas() -> bytes:
    data = bytearray(encode(IMAGE.quantize(8), "GIF"))
    struct.pack_into("<HH", data, 6, 9, 9)  # the size of the canvas; the frame has 7×5 pixels
    return bytes(data)


def jpeg_of_12_bits() -> bytes:
    data = bytearray(encode(IMAGE, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12  # bits per sample, in the frame header
    return bytes(data)


def bmp_with(offset: int, code: str, value: int) -> bytes:
    """A BMP whose header has ``value``, in the struct format ``code``, at ``offset``."""
    data = bytearray(encode(IMAGE, "BMP"))
    struct.pack_into(f"<{code}", data, offset, value)
    return bytes(data)


GIF = encode(IMAGE.quantize(8), "GIF")
# For each name: the file, its fault, and how the detail starts.
REFUSED = {
    "empty": (b"", "empty file", "0 bytes"),
    "html": (b"<!doctype html><title>404", "not an image", "starts with b'<!doctype ht'"),
    "lfs pointer": (b"version https://git-lfs", "not an image", "starts with b'version http'"),
    "tiff": (b"II*\0\x08\0\0\0", "truncated", "ends inside the header"),
    "bigtiff": (b"II+\0\x08\0\0\0" + b"\xff" * 8, "truncated", "ends inside the header"),
    "jpeg 2000": (b"\xffO\xffQ", "unsupported variant", "jpeg 2000; save it as PNG or JPEG"),
    "wave": (b"RIFF\0\0\0\0WAVEfmt ", "not an image", "starts with b'RIFF"),
    "bmw": (b"BMW,year\n", "not an image", "starts with b'BMW,year"),
    "huge chunk": (
        tiny_png(1, 1, png_chunk(b"tEXt", b"", 1 << 30)),
        "truncated",
        "PNG chunk b'tEXt' of 1073741824 bytes exceeds the file",
    ),
    "huge png": (
        tiny_png(100_000, 100_000, png_chunk(b"IDAT", b"x")),
        "too large",
        "100000×100000 is more than 100000000 pixels",
    ),
    "png of no width": (tiny_png(0, 5, png_chunk(b"IDAT", b"x")), "corrupt", "size 0×5"),
    "jpeg without a frame": (b"\xff\xd8\xff\xd9", "corrupt", "JPEG without a frame header"),
    "12-bit jpeg": (jpeg_of_12_bits(), "unsupported variant", "JPEG with 12 bits per sample"),
    "bmp of unknown header": (bmp_with(14, "I", 41), "not an image", "starts with b'BM"),
    "bmp without offset": (bmp_with(10, "I", 0), "unsupported variant", "BMP with its pixels at"),
    "bmp of negative width": (bmp_with(18, "i", -7), "corrupt", "size -7×5"),
    "partial gif": (
        gif_whose_frame_covers_part_of_the_canvas(),
        "unsupported variant",
        "GIF whose first frame covers part of the canvas",
    ),
    "gif without a frame": (GIF[:13] + bytes(24) + b";", "corrupt", "GIF without a frame"),
    "webp of unknown kind": (b"RIFF\0\0\0\0WEBPabcd" + bytes(20), "corrupt", "WebP chunk b'abcd'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unusable_file_is_refused_with_fault_and_detail(name: str) -> None:
    data, fault, detail = REFUSED[name]
    actual_fault, actual_detail = refusal(data)
    assert actual_fault == fault
    assert actual_detail.startswith(detail)


def test_the_tiny_png_that_claims_a_gigabyte_is_57_bytes() -> None:
    assert len(REFUSED["huge chunk"][0]) == 57


def test_max_pixels_limits_width_times_height() -> None:
    data = encode(IMAGE, "PNG")
    assert read_header(data, max_pixels=35).width == 7
    assert refusal(data, 34) == ("too large", "7×5 is more than 34 pixels")


# A PNG or a GIF that ends after its header is refused, too; see the next test. In other formats, such a
# file may be accepted by read_header; the decoder then refuses the file.
@pytest.mark.parametrize("name", ["jpeg", "png", "bmp", "gif", "lossy webp", "lossless webp"])
def test_a_file_cut_inside_its_header_is_refused(name: str) -> None:
    data = ACCEPTED[name][0]
    for end in range(1, 25):
        fault, _ = refusal(data[:end])
        assert fault in ("truncated", "not an image", "corrupt", "unsupported variant")


def test_a_png_or_a_gif_frame_without_its_end_is_refused() -> None:
    for data in (ACCEPTED["png"][0], GIF[:-1]):
        assert all(refusal(data[:end]) for end in range(len(data)))


@settings(max_examples=200)
@given(st.sampled_from([data for data, _, _ in ACCEPTED.values()]), st.data())
def test_a_damaged_file_gives_a_header_or_a_refusal(file: bytes, data: st.DataObject) -> None:
    damaged = bytearray(file[: data.draw(st.integers(0, len(file)))])
    changes = st.tuples(st.integers(0, max(len(damaged) - 1, 0)), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, max_size=8)) if damaged else []:
        damaged[position] = value
    try:
        header = read_header(bytes(damaged))
    except RefusedError:
        return
    assert 1 <= header.width * header.height <= MAX_PIXELS
    assert 1 <= header.orientation <= 8


@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]), st.binary())
@example(b"RIFF", b"\0\0\0\0WEBPVP8X" + b"\0" * 4)
def test_random_bytes_after_the_magic_bytes_give_a_header_or_a_refusal(
    magic: bytes, noise: bytes
) -> None:
    try:
        assert read_header(magic + noise).width >= 1
    except RefusedError as error:
        assert error.fault


def test_parsing_a_header_does_not_import_tensorflow() -> None:
    code = "import sys, seedtf.images.header; print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def avif(sizes: int, *items: bytes) -> bytes:
    """An AVIF of 8×8 pixels; ``items`` are the entries of its ``iloc`` box.

    ``sizes`` states, in 4 bits each, how many bytes an offset, a length, a base offset and an index
    take in the entries.
    """
    version = bytes(4)
    iloc = box(b"iloc", version, struct.pack(">HH", sizes, len(items)), *items)
    entries = (
        box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", number, 0, b"av01"))
        for number in range(len(items))
    )
    iinf = box(b"iinf", version, struct.pack(">H", len(items)), *entries)
    size = box(b"iprp", box(b"ipco", box(b"ispe", version, struct.pack(">II", 8, 8))))
    return box(b"ftyp", b"avif" + version + b"avif") + box(b"meta", version, iloc, iinf, size)


@pytest.mark.parametrize(
    "data",
    [
        avif(0, *(struct.pack(">HHH", number, 0, 65_535) for number in range(900))),
        avif(0, *(struct.pack(">HHH", number, 0, 1) for number in range(900))),
        avif(0x4400, *(struct.pack(">HHHII", number, 0, 1, 40, 0) for number in range(900))),
    ],
    ids=["parts without bytes", "whole files", "overlapping parts"],
)
def test_an_avif_of_900_overlapping_or_empty_items_is_refused_quickly(data: bytes) -> None:
    start = time.process_time()
    assert refusal(data)[0] == "corrupt"
    assert time.process_time() - start < 0.2


def test_an_avif_item_that_begins_after_the_end_of_the_file_is_refused() -> None:
    # The length 0 means "up to the end of the file", so the length of this item would be negative.
    assert refusal(avif(0x4400, struct.pack(">HHHII", 0, 0, 1, 2**31, 0)))[0] == "truncated"
