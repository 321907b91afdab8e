"""Image files of users are decoded as Pillow or the standard says, or refused with their fault.

The graph of an export gives the same pixels as training. It cannot decode some files itself, and gets
these files transcoded, as ``seedtf predict EXPORT`` sends them.
"""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
import tensorflow as tf
from image_cases import IMAGE, image_cases
from PIL import Image, ImageOps

from seedtf.export.serving_graph import decode_batch
from seedtf.images.decode import decode_image, make_decoder
from seedtf.images.header import RefusedError, read_header
from seedtf.images.header_graph import STATUSES, parse_header_graph
from seedtf.images.transcode import to_decodable

CASES = image_cases()
SIZE = 12
# Pillow does not decode these files as the PNG specification says. seedtf and libpng do: they compare a
# transparent grey of 2 or 4 bits before scaling, and ignore a tRNS chunk after the pixels.
NOT_AS_PILLOW = {"2-bit grey tRNS.png", "4-bit grey tRNS.png", "colour tRNS late.png"}
REFUSED = {
    "no end.jpg": "corrupt",
    "exif twice.png": "unsupported variant",
    "private chunk first.png": "unsupported variant",
    "no end.png": "truncated",
    "impossible size.png": "too large",
    "two colours.gif": "unsupported variant",
    "part of the canvas.gif": "unsupported variant",
    "outside the canvas.gif": "unsupported variant",
    "pixels missing.gif": "corrupt",
    "short.bmp": "corrupt",
    "offset in the header.bmp": "unsupported variant",
    "animated, flag missing.webp": "corrupt",
    "alpha plane without its flag.webp": "unsupported variant",
    "still with the flag of animation.webp": "corrupt",
    "cut.webp": "corrupt",
    "large numbers.tif": "unsupported variant",
    "32-bit integers.tif": "unsupported variant",
    "cut.tif": "corrupt",
    "cut.ppm": "truncated",
    "cut.avif": "truncated",
    "jpeg 2000.jp2": "unsupported variant",
    "text.jpg": "not an image",
    "nothing.png": "empty file",
}
# Pillow refuses this file because of the checksum of a chunk that does not change the pixels.
SHOWN_ALTHOUGH_PILLOW_REFUSES = {"exif of wrong checksum.png"}


def decode_in_training(data: bytes) -> np.ndarray | str:
    """The pixels of the whole image as training sees them, or the fault of the file."""
    try:
        decodable, header = to_decodable(data, read_header(data))
        return decode_image(tf.constant(decodable), tf.constant(header)).numpy()
    except RefusedError as error:
        assert error.detail
        assert "\n" not in str(error)
        return error.fault
    except tf.errors.OpError:
        return "corrupt"


def decode_with_pillow(data: bytes) -> np.ndarray:
    """The first frame as Pillow decodes it, upright and on a white background: uint8 ``[H, W, 3]``.

    Samples of 16 bits keep their high byte, and samples that are fractions are multiplied by 255.
    """
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        image = Image.fromarray(np.round(np.asarray(image) * 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def shown() -> dict[str, np.ndarray | str]:
    """What training sees of each file in ``CASES``: the pixels or the fault."""
    return {name: decode_in_training(data) for name, data in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_shown_as_pillow_shows_it_or_refused(
    name: str, shown: dict[str, np.ndarray | str]
) -> None:
    image = shown[name]
    if name in REFUSED or isinstance(image, str):
        assert image == REFUSED.get(name)
        return
    if name in SHOWN_ALTHOUGH_PILLOW_REFUSES:
        assert image.shape == (24, 16, 3)
        return
    expected = decode_with_pillow(CASES[name])
    assert image.shape == expected.shape
    difference = np.abs(image.astype(int) - expected)
    if name in NOT_AS_PILLOW:
        assert difference.max() > 100
    else:
        # Lossy decoders, CMYK and the blend over white may round differently.
        assert difference.max() <= 2


def test_orientation_and_transparency_change_the_pixels(shown: dict[str, np.ndarray | str]) -> None:
    """Otherwise seedtf and Pillow might agree because they ignore orientation and transparency."""
    turned = [name for name, image in shown.items() if np.shape(image) == (24, 16, 3)]
    assert len(turned) >= 15
    for name in ("rgba.png", "alpha.webp", "transparent.gif", "rgba.tif", "rgba.avif"):
        image = shown[name]
        assert isinstance(image, np.ndarray)
        assert (image == 255).all(-1).any(), name


def test_an_exported_graph_gives_the_pixels_and_statuses_of_training() -> None:
    """The graph gets each file twice: as it is, and as ``seedtf predict EXPORT`` sends the file."""
    decode = make_decoder(SIZE)
    graph = tf.function(
        lambda files: decode_batch(files, SIZE),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    images, statuses = (value.numpy() for value in graph(list(CASES.values())))
    sent, needs_pillow = dict(CASES), set()
    for name, data in CASES.items():
        try:
            header = read_header(data)
            if header.needs_pillow:
                needs_pillow.add(name)
                sent[name] = to_decodable(data, header)[0]
        except RefusedError:
            continue
    transcoded, transcoded_statuses = (value.numpy() for value in graph(list(sent.values())))
    for row, (name, data) in enumerate(CASES.items()):
        try:
            expected, fault = decode(data).numpy(), "ok"
        except RefusedError as error:
            expected, fault = np.zeros((SIZE, SIZE, 3), np.uint8), error.fault
        status = STATUSES[statuses[row]]
        if name in needs_pillow:
            assert status == "unsupported variant", name
            assert not images[row].any()
        elif name.endswith((".tif", ".avif", ".ppm")):
            assert status == "unsupported variant", name
        else:
            assert status == fault, name
            assert np.array_equal(images[row], expected), name
        if name in needs_pillow and fault == "ok":
            assert STATUSES[transcoded_statuses[row]] == "ok", name
            assert np.array_equal(transcoded[row], expected), name
    assert len(needs_pillow) >= 20


def heic(image: Image.Image, **options: object) -> bytes:
    """``image`` as a HEIC file; skips the test if pillow-heif is not installed."""
    plugin = pytest.importorskip("pillow_heif", reason="needs pip install 'seedtf[heic]'")
    buffer = io.BytesIO()
    plugin.from_pillow(image).save(buffer, quality=95, **options)
    return buffer.getvalue()


def test_a_heic_photograph_decodes_to_nearly_the_encoded_pixels() -> None:
    y, x = np.mgrid[:96, :130]
    pixels = np.stack([30 + x, 220 - 2 * y, 60 + (x + y) // 2], -1).astype(np.uint8)
    data = heic(Image.fromarray(pixels))
    header = read_header(data)
    assert (header.format, header.needs_pillow) == ("heic", True)
    image = decode_in_training(data)
    assert isinstance(image, np.ndarray)
    assert image.shape == pixels.shape
    assert np.abs(image.astype(int) - pixels).mean() < 2
    assert STATUSES[int(parse_header_graph(tf.constant(data)).status)] == "unsupported variant"
    assert decode_in_training(data[:200]) == "truncated"
    assert decode_in_training(data[: len(data) // 2]) == "corrupt"


def test_without_its_extra_a_heic_file_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = heic(IMAGE)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(RefusedError, match=r"HEIC: pip install 'seedtf\[heic\]', or save") as error:
        to_decodable(data, read_header(data))
    assert error.value.fault == "unsupported variant"


def grey_tiff_of_12_bits(pixels: bytes, width: int) -> bytes:
    """An uncompressed TIFF of one row; two pixels of 12 bits fill three bytes."""
    # Pairs of a tag and its value: width, height, bits of a sample, compression (none), colours (0 is
    # black), offset of the pixels, samples of a pixel, rows. The list below adds the number of bytes.
    values = (256, width), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)
    fields = [
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*values, (279, len(pixels)))
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(grey_tiff_of_12_bits(bytes.fromhex("00001080 0FFF"), 4), id="TIFF of 12 bits"),
        pytest.param(b"P5 4 1 65535\n" + bytes.fromhex("0000 01FF 8000 FFFF"), id="PGM of 16 bits"),
    ],
)
def test_samples_of_more_than_8_bits_keep_their_highest_8(data: bytes) -> None:
    image = decode_in_training(data)
    assert isinstance(image, np.ndarray)
    assert image[0].tolist() == [[value] * 3 for value in (0, 1, 128, 255)]
