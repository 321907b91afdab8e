"""Decodes encoded images to uint8 RGB, the same way in training, evaluation and exported graphs."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from seedtf.images.header import CROP, MAX_PIXELS, STRETCH, RefusedError, read_header
from seedtf.images.transcode import to_decodable

__all__ = [
    "RESIZE_METHOD",
    "decode_image",
    "decode_images",
    "decode_upright_jpeg",
    "is_jpeg",
    "make_decoder",
    "pixel_budget",
    "resize_image",
]

RESIZE_METHOD = "bilinear, antialias"

Decoder = Callable[[bytes], tf.Tensor]

_STRIP_PIXELS = 1 << 20


class _PixelBudget:
    """Limits the pixels that all threads of the process decode at the same time."""

    def __init__(self, pixels: int) -> None:
        self._total = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Waits until ``pixels`` are free; a request above the whole budget reserves all of it."""
        pixels = min(pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


pixel_budget = _PixelBudget(2 * MAX_PIXELS)
"""The threads that fill a cache or predict files together decode at most this many pixels at a time,
such as two images of ``MAX_PIXELS`` or many small images. An image with more is decoded alone."""


def decode_image(contents: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Decodes one image to the pixels that image viewers show, with TensorFlow ops only.

    Args:
        contents: string scalar, the bytes of a whole file, from ``transcode.to_decodable``.
        header: int32 ``[4]``, ``Header.for_decoder`` of the file: the width and height that the decoded
            image must have, its orientation, and whether to blend alpha over white (1 or 0).

    Returns:
        uint8 ``[H, W, 3]``, RGB, upright.

    Raises:
        tf.errors.InvalidArgumentError: the data after the header is truncated or corrupt, or the size
            of the image differs from that in ``header``, because the header was parsed incorrectly.
    """
    orientation, has_alpha = header[2], header[3]

    def decode_opaque() -> tf.Tensor:
        return tf.io.decode_image(contents, channels=3, expand_animations=False)

    def decode_transparent() -> tf.Tensor:
        image = tf.io.decode_image(contents, channels=4, expand_animations=False)
        return _over_white(tf.ensure_shape(image, [None, None, 4]))

    cases = [
        (is_jpeg(contents), lambda: _decode_jpeg(contents)),
        (has_alpha > 0, decode_transparent),
    ]
    image = _check_size(tf.case(cases, default=decode_opaque), header)
    return tf.ensure_shape(_upright(image, orientation), [None, None, 3])


def decode_upright_jpeg(contents: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """``decode_image`` for a JPEG with the orientation 1, in fewer operations."""
    return _check_size(_decode_jpeg(contents), header)


def is_jpeg(contents: tf.Tensor) -> tf.Tensor:
    """Whether each file, string of any shape, starts as a JPEG: bool of the same shape."""
    zeros = tf.zeros(tf.shape(contents), tf.int32)
    return tf.strings.substr(contents, pos=zeros, len=zeros + 3) == b"\xff\xd8\xff"


def _decode_jpeg(contents: tf.Tensor) -> tf.Tensor:
    # The default inverse DCT is faster, but its pixels differ from those of viewers and Pillow.
    return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


def _check_size(image: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Returns ``image``, uint8 ``[H, W, 3]``; raises an error if its size is not that of ``header``."""
    image = tf.ensure_shape(image, [None, None, 3])
    size = tf.shape(image)
    is_as_in_header = tf.reduce_all(size[:2] == header[1::-1])
    message = ["the size in the header differs from the image:", size]
    with tf.control_dependencies([tf.Assert(is_as_in_header, message)]):
        return tf.identity(image)


def resize_image(image: tf.Tensor, size: int | tf.Tensor, fit: str = STRETCH) -> tf.Tensor:
    """Resizes uint8 ``[H, W, 3]`` to uint8 ``[size, size, 3]``: bilinear, antialiased, rounded.

    An image that already has this size is returned unchanged.

    Args:
        image: the image.
        size: side of the result in pixels; an int, or an int32 scalar tensor. With a tensor, height and
            width are None in the static shape of the result.
        fit: ``stretch`` keeps the whole image and changes its aspect ratio. ``pad`` keeps the whole
            image and its aspect ratio, and adds black at two sides, as Keras does with
            ``pad_to_aspect_ratio``. ``crop`` keeps the square in the middle of the image, as Keras does
            with ``crop_to_aspect_ratio``.

    Example:
        >>> image = tf.fill([30, 40, 3], tf.constant(200, tf.uint8))
        >>> resize_image(image, 2)[..., 0].numpy().tolist()
        [[200, 200], [200, 200]]
    """
    height, width = tf.unstack(tf.shape(image)[:2])

    def resize_to_square() -> tf.Tensor:
        if fit == CROP:
            side = tf.minimum(height, width)
            return _resize(_center_crop(image, side), [size, size])
        if fit == STRETCH:
            return _resize(image, [size, size])
        longer = tf.maximum(height, width)
        # side · size / longer, rounded to the nearest integer; the shorter side keeps at least a pixel.
        inner = [
            tf.maximum((2 * side * size + longer) // (2 * longer), 1) for side in (height, width)
        ]
        top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
        return tf.image.pad_to_bounding_box(_resize(image, inner), top, left, size, size)

    has_size = tf.reduce_all(tf.shape(image)[:2] == size)
    square = tf.cond(has_size, lambda: image, resize_to_square)
    side = None if tf.is_tensor(size) else size
    return tf.ensure_shape(square, [side, side, 3])


def _resize(image: tf.Tensor, size: list[tf.Tensor | int]) -> tf.Tensor:
    scaled = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.saturate_cast(tf.round(scaled), tf.uint8)


def _center_crop(image: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    top, left = tf.unstack((tf.shape(image)[:2] - side) // 2)
    return image[top : top + side, left : left + side]


def decode_images(
    contents: tf.Tensor, headers: tf.Tensor, size: int | tf.Tensor, fit: str = STRETCH
) -> tf.Tensor:
    """Decodes and resizes whole files, string ``[B]``, to uint8 ``[B, size, size, 3]``.

    ``headers`` is int32 ``[B, 4]``: ``Header.for_decoder`` of each file. ``size`` and ``fit`` are as in
    ``resize_image``.
    """

    def decode(element: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return resize_image(decode_image(*element), size, fit)

    return tf.map_fn(decode, (contents, headers), fn_output_signature=tf.uint8)


def make_decoder(size: int, max_pixels: int = MAX_PIXELS, fit: str = STRETCH) -> Decoder:
    """Returns a thread-safe function that decodes a file's bytes to uint8 ``[size, size, 3]``.

    The function raises ``RefusedError`` if the header of the file or the data after it cannot be used.
    It allocates no image for a header that claims more than ``max_pixels``.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> Image.new("RGB", (640, 480), "green").save("leaf.png")
        >>> decode = make_decoder(224)
        >>> decode(Path("leaf.png").read_bytes()).shape
        TensorShape([224, 224, 3])
    """
    decode_graph, side = _decode_graph(fit), tf.constant(size)

    def decode(data: bytes) -> tf.Tensor:
        header = read_header(data, max_pixels)
        with pixel_budget.reserve(header.pixels), tf.device("/cpu:0"):
            data, for_decoder = to_decodable(data, header, max_pixels)
            try:
                return decode_graph(tf.constant(data), tf.constant(for_decoder, tf.int32), side)
            except tf.errors.ResourceExhaustedError as error:
                raise RefusedError("too large", f"out of memory: {_last_line(error)}") from None
            except tf.errors.OpError as error:
                raise RefusedError("corrupt", _last_line(error)) from None

    return decode


@functools.cache
def _decode_graph(fit: str) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """A graph that decodes an image and resizes it to any size; cached, because tracing takes 0.3 s."""
    spec = [
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([4], tf.int32),
        tf.TensorSpec([], tf.int32),
    ]
    return tf.function(
        lambda contents, header, size: resize_image(decode_image(contents, header), size, fit),
        input_signature=spec,
        autograph=False,
    ).get_concrete_function()


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """Blends uint8 RGBA ``[H, W, 4]`` over white: uint8 ``[H, W, 3]``.

    The image is processed in strips of about a million pixels, because the intermediate results of
    100 megapixels would take gigabytes.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    strip_height = tf.maximum(_STRIP_PIXELS // tf.maximum(width, 1), 1)
    num_strips = (height + strip_height - 1) // strip_height
    strips = tf.TensorArray(tf.uint8, num_strips, infer_shape=False, element_shape=[None, None, 3])

    def blend_strip(index: tf.Tensor, strips: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        strip = image[index * strip_height : (index + 1) * strip_height]
        return index + 1, strips.write(index, _blend_over_white(strip))

    _, strips = tf.while_loop(
        lambda index, _: index < num_strips, blend_strip, (0, strips), parallel_iterations=1
    )
    return strips.concat()


def _blend_over_white(image: tf.Tensor) -> tf.Tensor:
    """``round(rgb·a + 255·(1 − a))`` with alpha a from 0 to 1, in integers."""
    pixels = tf.cast(image, tf.uint16)
    white, half, shift = (tf.constant(value, tf.uint16) for value in (255, 128, 8))
    # rgb·a + 255·(1 − a) = 255 − a·(255 − rgb) = white − darkening. As alpha is stored as 255·a, the
    # product below is x = 255·darkening. For x up to 255², round(x / 255) is (y + y // 256) // 256 with
    # y = x + 128.
    darkening = pixels[..., 3:] * (white - pixels[..., :3]) + half
    darkening = tf.bitwise.right_shift(darkening + tf.bitwise.right_shift(darkening, shift), shift)
    return tf.cast(white - darkening, tf.uint8)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates or flips an image upright according to its EXIF orientation (Exif 2.32, tag 274)."""
    branches = [
        lambda: image,
        lambda: image[:, ::-1],
        lambda: image[::-1, ::-1],
        lambda: image[::-1],
        lambda: tf.transpose(image, [1, 0, 2]),
        lambda: tf.transpose(image, [1, 0, 2])[:, ::-1],
        lambda: tf.transpose(image, [1, 0, 2])[::-1, ::-1],
        lambda: tf.transpose(image, [1, 0, 2])[::-1],
    ]
    return tf.switch_case(orientation - 1, branches)


def _last_line(error: tf.errors.OpError) -> str:
    """The decoder's own message in an error of TensorFlow, without the names of functions and nodes.

    A message looks like ``{{function_node f}} Invalid PNG data, size 99 [[{{node DecodeImage}}]]``.
    """
    message = (error.message or "").split("[[", 1)[0]
    message = re.sub(r"\{\{.*?\}\}", "", message)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:120] if lines else "cannot be decoded"
