"""Encoded bytes to uint8 RGB: the one decoder of training, evaluation and the exported graph."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from seedtf.images.header import MAX_PIXELS, RefusedError, read_header

__all__ = ["RESIZE_METHOD", "decode_files", "decode_image", "make_decoder", "resize_image"]

RESIZE_METHOD = "bilinear, antialias"

Decoder = Callable[[bytes], tf.Tensor]


def decode_image(contents: tf.Tensor, orientation: tf.Tensor, has_alpha: tf.Tensor) -> tf.Tensor:
    """Decodes one image as an image viewer shows it; plain TensorFlow ops, usable in any graph.

    Args:
        contents: string scalar, a whole file that ``header.read_header`` accepts.
        orientation: int32 scalar, the EXIF orientation, 1 to 8.
        has_alpha: bool scalar; a transparent PNG is laid over white.

    Returns:
        uint8 ``[H, W, 3]``, RGB, upright.

    Raises:
        tf.errors.InvalidArgumentError: the data behind the header is truncated or corrupt.
    """

    def jpeg() -> tf.Tensor:
        # the slow-but-exact inverse transform: equal to what viewers and Pillow compute
        return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")

    def other() -> tf.Tensor:
        return tf.io.decode_image(contents, channels=3, expand_animations=False)

    def transparent() -> tf.Tensor:
        return _over_white(tf.io.decode_png(contents, channels=4))

    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    image = tf.case([(is_jpeg, jpeg), (has_alpha, transparent)], default=other)
    image = tf.ensure_shape(image, [None, None, 3])
    return tf.ensure_shape(_upright(image, orientation), [None, None, 3])


def resize_image(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes uint8 ``[H, W, 3]`` to uint8 ``[size, size, 3]``: bilinear with antialias, rounded.

    The whole image is kept; where it is not square, its aspect changes. An image that has the
    size already comes back unchanged.
    """

    def resized() -> tf.Tensor:
        scaled = tf.image.resize(image, [size, size], method="bilinear", antialias=True)
        return tf.saturate_cast(tf.round(scaled), tf.uint8)

    same = tf.reduce_all(tf.shape(image)[:2] == size)
    return tf.ensure_shape(tf.cond(same, lambda: image, resized), [size, size, 3])


def decode_files(contents: tf.Tensor, facts: tf.Tensor, size: int) -> tf.Tensor:
    """Whole files, string ``[B]``, to uint8 ``[B, size, size, 3]``.

    ``facts`` uint8 ``[B, 2]``: the orientation of each, 1 to 8, and whether it is a PNG with alpha.
    """

    def one(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, fact = pair
        return resize_image(decode_image(data, tf.cast(fact[0], tf.int32), fact[1] > 0), size)

    return tf.map_fn(one, (contents, facts), fn_output_signature=tf.uint8)


def make_decoder(size: int, max_pixels: int = MAX_PIXELS) -> Decoder:
    """A function from a file's bytes to uint8 ``[size, size, 3]``, safe to call from many threads.

    The function raises ``RefusedError`` for a file that is not used, be it the header or the data
    behind it; nothing is allocated by a header that claims more than ``max_pixels``.
    """
    spec = [
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.bool),
    ]

    @tf.function(input_signature=spec, autograph=False)
    def graph(contents: tf.Tensor, orientation: tf.Tensor, has_alpha: tf.Tensor) -> tf.Tensor:
        return resize_image(decode_image(contents, orientation, has_alpha), size)

    compiled = graph.get_concrete_function()

    def decode(data: bytes) -> tf.Tensor:
        header = read_header(data, max_pixels)
        with tf.device("/cpu:0"):
            try:
                return compiled(
                    tf.constant(data),
                    tf.constant(header.orientation, tf.int32),
                    tf.constant(header.has_alpha),
                )
            except tf.errors.InvalidArgumentError as error:
                raise RefusedError("corrupt", _cause(error.message)) from None

    return decode


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """uint8 RGBA ``[H, W, 4]`` over white: ``round(rgb·a + 255·(1 − a))``, uint8 ``[H, W, 3]``."""
    pixels = tf.cast(image, tf.float32)
    alpha = pixels[..., 3:] / 255.0
    return tf.cast(tf.round(pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)), tf.uint8)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation (Exif 2.32, tag 274)."""
    turned = [
        lambda: image,
        lambda: image[:, ::-1],
        lambda: image[::-1, ::-1],
        lambda: image[::-1],
        lambda: tf.transpose(image, [1, 0, 2]),
        lambda: tf.transpose(image, [1, 0, 2])[:, ::-1],
        lambda: tf.transpose(image, [1, 0, 2])[::-1, ::-1],
        lambda: tf.transpose(image, [1, 0, 2])[::-1],
    ]
    return tf.switch_case(orientation - 1, turned)


def _cause(message: str) -> str:
    """The one line of a graph's error that says what is wrong: the last before the node's name."""
    lines = [line.strip() for line in message.split("[[", 1)[0].splitlines() if line.strip()]
    return lines[-1][:120] if lines else "cannot be decoded"
