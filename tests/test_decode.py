"""Every image is decoded to the pixels that Pillow gives, or is refused: eagerly and in tf.data."""

from __future__ import annotations

import dataclasses
import io
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from seedtf.compat.tensorflow import DECODES_WEBP
from seedtf.data import decode_files
from seedtf.data.decode_files import make_batch_decoder
from seedtf.export import serving_graph
from seedtf.images import decode as decode_module
from seedtf.images.decode import Decoder, decode_image, make_decoder, resize_image
from seedtf.images.header import Header, RefusedError, read_header
from seedtf.images.header_graph import STATUSES, HeaderStatus, parse_headers_graph
from seedtf.images.transcode import to_decodable

SIZE = 8


def smooth(width: int, height: int) -> np.ndarray:
    """Smooth gradients, uint8 [height, width, 3], which lossy formats hardly change."""
    y, x = np.mgrid[:height, :width]
    planes = (20 + 200 * x / width, 230 - 180 * y / height, 40 + 90 * (x + y) / (width + height))
    return np.stack(planes, -1).astype(np.uint8)


RGB = smooth(23, 17)
NOISE = np.random.default_rng(0).integers(0, 256, (17, 23, 4)).astype(np.uint8)
GREY_16_BIT = np.arange(17 * 23, dtype=np.uint16).reshape(17, 23) * 167
IMAGE, NOISY, RGBA = Image.fromarray(RGB), Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE)
GREY, PALETTE = IMAGE.convert("L"), NOISY.quantize(16)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif_with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


LOSSY = {
    "jpeg": encode(IMAGE, "JPEG", quality=90),
    "grey jpeg": encode(GREY, "JPEG"),
    "progressive jpeg": encode(IMAGE, "JPEG", progressive=True),
    "cmyk jpeg": encode(IMAGE.convert("CMYK"), "JPEG", quality=95),
    "lossy webp": encode(IMAGE, "WEBP", quality=90),
    **{
        f"jpeg with orientation {value}": encode(IMAGE, "JPEG", exif=exif_with_orientation(value))
        for value in range(1, 9)
    },
}
LOSSLESS = {
    "png": encode(NOISY, "PNG"),
    "grey png": encode(GREY, "PNG"),
    "1-bit png": encode(GREY.convert("1"), "PNG"),
    "palette png": encode(PALETTE, "PNG"),
    "rgba png": encode(RGBA, "PNG"),
    "grey alpha png": encode(RGBA.convert("LA"), "PNG"),
    "palette png with tRNS": encode(PALETTE, "PNG", transparency=3),
    "rgb png with tRNS": encode(NOISY, "PNG", transparency=tuple(NOISE[0, 0, :3].tolist())),
    "grey png with tRNS": encode(GREY, "PNG", transparency=GREY.getpixel((0, 0))),
    "24-bit bmp": encode(NOISY, "BMP"),
    "32-bit bmp": encode(RGBA, "BMP"),
    "gif": encode(PALETTE, "GIF"),
    "animated gif": encode(
        PALETTE, "GIF", save_all=True, append_images=[NOISY.rotate(180).quantize(16)]
    ),
    "transparent gif": encode(PALETTE, "GIF", transparency=2),
    "palette bmp": encode(PALETTE, "BMP"),
    "tiff": encode(NOISY, "TIFF", compression="tiff_lzw"),
    "rgba tiff": encode(RGBA, "TIFF"),
    "tiff with orientation 6": encode(NOISY, "TIFF", exif=exif_with_orientation(6)),
    "ppm": encode(NOISY, "PPM"),
    "lossless webp": encode(NOISY, "WEBP", lossless=True),
    "rgba webp": encode(RGBA, "WEBP", lossless=True, exact=True),
    "animated webp": encode(
        NOISY, "WEBP", lossless=True, save_all=True, append_images=[NOISY.rotate(180)]
    ),
    "animated rgba webp": encode(
        RGBA, "WEBP", lossless=True, exact=True, save_all=True, append_images=[NOISY]
    ),
    **{
        f"png with orientation {value}": encode(NOISY, "PNG", exif=exif_with_orientation(value))
        for value in range(1, 9)
    },
    **{
        f"webp with orientation {value}": encode(
            NOISY, "WEBP", lossless=True, exif=exif_with_orientation(value)
        )
        for value in range(1, 9)
    },
}
if not DECODES_WEBP:  # seedtf then decodes WebP with Pillow, which test_compat.py tests
    LOSSY, LOSSLESS = (
        {name: data for name, data in table.items() if "webp" not in name}
        for table in (LOSSY, LOSSLESS)
    )
WEBP = ["lossy webp"] if DECODES_WEBP else []


def as_pillow_shows(data: bytes) -> np.ndarray:
    """The first frame as Pillow decodes it, turned upright and blended over white: uint8 [H, W, 3]."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if transparent and image.format != "BMP":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def decode_whole(data: bytes) -> np.ndarray:
    """Decodes without resizing: uint8 [H, W, 3]."""
    decodable, header = to_decodable(data, read_header(data))
    return decode_image(tf.constant(decodable), tf.constant(header)).numpy()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_decoder(SIZE)


@pytest.fixture(scope="module")
def limited_decoder() -> Decoder:
    """A decoder with a small limit of pixels, so that a damaged size field costs little memory."""
    return make_decoder(SIZE, max_pixels=1_000_000)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_are_equal_to_pillow(name: str) -> None:
    image, expected = decode_whole(LOSSLESS[name]), as_pillow_shows(LOSSLESS[name])
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    # Blending over white may give a value that ends with .5, which may be rounded up or down.
    is_blended = "tRNS" in name or "rgba" in name or "alpha" in name
    assert np.abs(image.astype(int) - expected).max() <= (1 if is_blended else 0)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_files_are_close_to_pillow(name: str) -> None:
    image, expected = decode_whole(LOSSY[name]), as_pillow_shows(LOSSY[name])
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() <= 2.0


def test_each_orientation_gives_different_pixels() -> None:
    """With equal pixels, the comparisons with Pillow could not show that an orientation is applied."""
    pixels = {
        decode_whole(LOSSLESS[f"png with orientation {value}"]).tobytes() for value in range(1, 9)
    }
    assert len(pixels) == 8
    assert np.array_equal(
        decode_whole(LOSSLESS["png with orientation 6"]), np.rot90(NOISE[..., :3], -1)
    )


def test_transparent_pixels_become_white_whatever_their_hidden_colour() -> None:
    hidden = np.zeros((3, 2, 4), np.uint8)
    hidden[0, 0] = (10, 20, 30, 255)
    image = decode_whole(encode(Image.fromarray(hidden), "PNG"))
    assert image[0, 0].tolist() == [10, 20, 30]
    assert np.all(np.delete(image.reshape(-1, 3), 0, 0) == 255)


def test_every_colour_is_blended_over_white_with_every_alpha() -> None:
    alpha, colour = np.mgrid[:256, :256]
    rgba = np.stack([colour, colour, colour, alpha], -1).astype(np.uint8)
    expected = np.rint((colour * alpha + 255.0 * (255 - alpha)) / 255)
    image = decode_whole(encode(Image.fromarray(rgba), "PNG"))
    assert np.array_equal(image, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize("rows", [1, 4, 5, 17])
def test_blending_in_strips_gives_the_same_pixels(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decode_whole(LOSSLESS["rgba png"])
    monkeypatch.setattr(decode_module, "_STRIP_PIXELS", rows * RGBA.width)
    assert np.array_equal(decode_whole(LOSSLESS["rgba png"]), whole)
    assert np.array_equal(tf.function(decode_rgba_png, autograph=False)(), whole)


def decode_rgba_png() -> tf.Tensor:
    data = LOSSLESS["rgba png"]
    return decode_image(tf.constant(data), tf.constant(read_header(data).for_decoder))


WIDE = smooth(80, 40)


@pytest.mark.parametrize("image", [WIDE, WIDE.transpose(1, 0, 2)], ids=["wide", "tall"])
def test_every_value_of_fit_resizes_as_tensorflow_does(image: np.ndarray) -> None:
    whole = tf.constant(image)
    height, width = image.shape[:2]
    square = image[(height - 40) // 2 :, (width - 40) // 2 :][:40, :40]
    padded = tf.image.resize_with_pad(whole, 20, 20, antialias=True)
    stretched, cropped = (tf.image.resize(x, [20, 20], antialias=True) for x in (whole, square))
    for fit, expected in (("stretch", stretched), ("pad", padded), ("crop", cropped)):
        assert np.array_equal(resize_image(whole, 20, fit), np.rint(expected)), fit


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.sampled_from(["pad", "crop"]))
def test_pad_and_crop_keep_the_aspect_ratio(height: int, width: int, size: int, fit: str) -> None:
    """With ``crop``, a white image fills the whole square.

    With ``pad``, the white part of the square has the aspect ratio of the image.
    """
    white = tf.fill([height, width, 3], tf.constant(255, tf.uint8))
    result = resize_image(white, size, fit).numpy()
    assert result.shape == (size, size, 3)
    covered = (result == 255).all(-1)
    if (height, width) == (size, size) or fit == "crop":
        assert covered.all()
        return
    rows, columns = covered.any(1).sum(), covered.any(0).sum()
    assert covered.sum() == rows * columns
    assert max(rows, columns) == size
    shorter_side = max(size * min(height, width) / max(height, width), 1)
    assert abs(min(rows, columns) - shorter_side) <= 0.5
    # The heights of the black borders above and below the image differ by at most one pixel.
    assert abs(int(covered.argmax(0).max()) - int(covered[::-1].argmax(0).max())) <= 1


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_every_value_of_fit_gives_the_same_pixels_alone_and_in_a_batch(
    fit: str, tmp_path: Path
) -> None:
    files = [LOSSLESS["png"], LOSSLESS["png with orientation 6"], LOSSY["jpeg"]]
    decode, paths = make_decoder(SIZE, fit=fit), []
    for number, data in enumerate(files):
        paths.append(str(tmp_path / str(number)))
        Path(paths[-1]).write_bytes(data)
    single = np.stack([decode(data).numpy() for data in files])
    batched = np.stack(list(make_batch_decoder(SIZE, fit=fit)(paths)))
    assert np.array_equal(batched, single)
    # The first image is wider than it is high, so that ``pad`` adds black rows above it.
    assert (single[0, 0] == 0).all() == (fit == "pad")


def test_threads_share_one_budget_of_pixels() -> None:
    budget = decode_module._PixelBudget(100)
    current, peak, lock = 0, 0, threading.Lock()

    def decode(pixels: int) -> None:
        nonlocal current, peak
        with budget.reserve(pixels):
            with lock:
                current += pixels
                peak = max(peak, current)
            time.sleep(0.002)
            with lock:
                current -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [60, 40, 30, 100, 10, 20, 50, 70] * 5))
        assert peak <= 100
        # An image above the budget is decoded alone and must not wait forever.
        pool.submit(decode, 1000).result(timeout=10)
    assert current == 0


def test_16_bit_png_keeps_the_high_byte() -> None:
    image = decode_whole(encode(Image.fromarray(GREY_16_BIT), "PNG"))
    assert np.array_equal(image, np.repeat((GREY_16_BIT >> 8).astype(np.uint8)[..., None], 3, -1))


@pytest.mark.skipif(not DECODES_WEBP, reason="TensorFlow 2.15 does not decode WebP")
def test_webp_is_recognised_by_its_bytes() -> None:
    assert np.array_equal(decode_whole(LOSSLESS["lossless webp"]), NOISE[..., :3])


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_a_tf_data_pipeline_decodes_the_same_pixels(
    name: str, pipeline_images: dict[str, np.ndarray]
) -> None:
    assert np.array_equal(pipeline_images[name], decode_whole({**LOSSLESS, **LOSSY}[name]))


@pytest.fixture(scope="module")
def pipeline_images() -> dict[str, np.ndarray]:
    """Each image of LOSSLESS and LOSSY by name, decoded by one graph inside tf.data."""
    files = {**LOSSLESS, **LOSSY}
    contents, headers = zip(
        *(to_decodable(data, read_header(data)) for data in files.values()), strict=True
    )
    dataset = tf.data.Dataset.from_tensor_slices((list(contents), list(headers))).map(decode_image)
    assert dataset.element_spec.shape.as_list() == [None, None, 3]
    return dict(zip(files, dataset.as_numpy_iterator(), strict=True))


@pytest.mark.parametrize("name", ["png", "jpeg", "gif", "24-bit bmp", *WEBP])
def test_the_decoder_returns_squares_of_its_size(name: str, decoder: Decoder) -> None:
    image = decoder({**LOSSLESS, **LOSSY}[name])
    assert (image.shape, image.dtype) == ([SIZE, SIZE, 3], tf.uint8)


def test_an_image_of_the_right_size_is_not_resized() -> None:
    image = tf.constant(NOISE[:16, :16, :3])
    assert np.array_equal(resize_image(image, 16), image)


def test_resizing_keeps_a_plain_colour_and_shrinking_averages_pixels() -> None:
    plain = tf.fill([30, 50, 3], tf.constant(201, tf.uint8))
    assert np.all(resize_image(plain, 7) == 201)
    assert np.all(resize_image(plain, 70) == 201)
    checkerboard = np.indices((64, 64)).sum(0) % 2 * 255
    grey = resize_image(tf.constant(np.repeat(checkerboard[..., None], 3, -1).astype(np.uint8)), 8)
    # Antialiasing averages the squares of the checkerboard to about 128. Without antialiasing, there
    # would be pixels of 0 and of 255.
    assert np.abs(grey.numpy().astype(int)[1:-1, 1:-1] - 128).max() <= 2


def outcome(decoder: Decoder, data: bytes) -> str:
    """Decodes ``data`` and checks the image or the error; returns ``decoded`` or the fault."""
    try:
        image = decoder(data)
    except RefusedError as error:
        assert error.fault
        assert error.detail
        assert "\n" not in str(error)
        return error.fault
    assert (image.shape, image.dtype) == ([SIZE, SIZE, 3], tf.uint8)
    return "decoded"


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "png", "24-bit bmp", *WEBP])
def test_a_truncated_file_is_never_decoded(name: str, decoder: Decoder) -> None:
    data = {**LOSSLESS, **LOSSY}[name]
    ends = {*range(0, len(data), max(len(data) // 40, 1)), len(data) - 2, len(data) - 1}
    faults = {outcome(decoder, data[:end]) for end in ends}
    assert faults <= {"empty file", "not an image", "truncated", "corrupt"}


def test_a_truncated_gif_gives_its_whole_first_frame_or_is_refused(decoder: Decoder) -> None:
    data = LOSSLESS["animated gif"]
    whole = decoder(data).numpy()
    decoded = 0
    for end in range(0, len(data), 5):
        if outcome(decoder, data[:end]) == "decoded":
            assert np.array_equal(decoder(data[:end]), whole)
            decoded += 1
    assert 0 < decoded < len(data) // 5


def test_damaged_pixel_data_is_refused_as_corrupt(decoder: Decoder) -> None:
    data = bytearray(LOSSLESS["png"])
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(RefusedError) as error:
        decoder(bytes(data))
    assert error.value.fault == "corrupt"
    assert "PNG" in error.value.detail
    assert "{{" not in error.value.detail  # without the graph nodes of TensorFlow's message


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "empty file"),
        (b"<!doctype html><html>not found</html>", "not an image"),
        (b"\xffO\xffQ" + bytes(60), "unsupported variant"),
        (
            LOSSLESS["png"][:16] + struct.pack(">II", 10**5, 10**5) + LOSSLESS["png"][24:],
            "too large",
        ),
    ],
)
def test_the_decoder_refuses_what_the_header_parser_refuses(
    data: bytes, fault: str, decoder: Decoder
) -> None:
    assert outcome(decoder, data) == fault


def test_max_pixels_limits_width_times_height() -> None:
    with pytest.raises(RefusedError, match="too large: 23×17 is more than 390 pixels"):
        make_decoder(SIZE, max_pixels=390)(LOSSLESS["png"])
    assert make_decoder(SIZE, max_pixels=391)(LOSSLESS["png"]).shape == [SIZE, SIZE, 3]


def read_header_with_half_the_width(data: bytes, *_: int) -> Header:
    header = read_header(data)
    return dataclasses.replace(header, width=header.width // 2)


def test_an_image_whose_header_states_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "read_header", read_header_with_half_the_width)
    monkeypatch.setattr(decode_files, "read_header", read_header_with_half_the_width)
    (tmp_path / "1.png").write_bytes(LOSSLESS["png"])
    (refusal,) = make_batch_decoder(SIZE)([str(tmp_path / "1.png")])
    with pytest.raises(RefusedError, match=r"^corrupt: .*the size in the header differs"):
        raise refusal
    with pytest.raises(RefusedError, match=r"^corrupt: .*the size in the header differs"):
        make_decoder(SIZE)(LOSSLESS["png"])


def test_a_graph_refuses_an_image_whose_header_states_another_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parse_half_the_width(contents: tf.Tensor, max_pixels: int) -> HeaderStatus:
        headers = parse_headers_graph(contents, max_pixels)
        return headers._replace(width=headers.width // 2)

    monkeypatch.setattr(serving_graph, "parse_headers_graph", parse_half_the_width)
    files = tf.constant([LOSSLESS["png"], LOSSY["jpeg"]])
    assert [STATUSES[i] for i in serving_graph.decode_batch(files, SIZE)[1]] == ["corrupt"] * 2


def test_a_graph_decodes_large_images_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, peak, lock = 0, 0, threading.Lock()

    def count_running(header: np.ndarray) -> np.ndarray:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return header

    def count_and_decode(contents: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
        header = tf.numpy_function(count_running, [header], tf.int32)
        return decode_image(contents, tf.ensure_shape(header, [4]))

    files = tf.constant([LOSSLESS["png"]] * 12 + [b"", LOSSLESS["png"][:-20]])
    expected = serving_graph.decode_batch(files, SIZE)
    monkeypatch.setattr(serving_graph, "decode_image", count_and_decode)
    monkeypatch.setattr(serving_graph, "_LARGE_PIXELS", 1)  # every image counts as large
    images, faults = tf.function(serving_graph.decode_batch, autograph=False)(files, SIZE)
    assert peak == 1
    assert np.array_equal(images, expected[0])
    assert np.array_equal(faults, expected[1])


@pytest.mark.parametrize(
    ("error", "fault"),
    [(MemoryError, "too large"), (NotImplementedError, "corrupt"), (RuntimeError, "corrupt")],
)
def test_every_error_of_tensorflow_is_a_refusal(
    error: type[Exception], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> np.ndarray:
        raise error("on purpose")

    def failing(*_: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(fail, [], tf.uint8), [None, None, 3])

    monkeypatch.setattr(decode_module, "decode_image", failing)
    # Trace new graphs, because the graphs that other tests have cached call the real decode_image.
    for module in (decode_module, decode_files):
        monkeypatch.setattr(module, "_decode_graph", module._decode_graph.__wrapped__)
    with pytest.raises(RefusedError) as refused:
        make_decoder(SIZE)(LOSSLESS["png"])
    assert refused.value.fault == fault
    (tmp_path / "1.png").write_bytes(LOSSLESS["png"])
    (refusal,) = make_batch_decoder(SIZE)([str(tmp_path / "1.png")])
    assert refusal.fault == fault


@settings(max_examples=300)
@given(st.sampled_from([*LOSSLESS.values(), *LOSSY.values()]), st.data())
def test_a_damaged_file_gives_an_image_or_a_refusal(
    limited_decoder: Decoder, file: bytes, data: st.DataObject
) -> None:
    end = data.draw(st.one_of(st.just(len(file)), st.integers(1, len(file))))
    damaged = bytearray(file[:end])
    changes = st.tuples(st.integers(0, end - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, max_size=5)):
        damaged[position] = value
    outcome(limited_decoder, bytes(damaged))
