"""The augmentation as a chain of plain operations, with which tests compare the fused augmentation.

``--augment_impl=tf_image`` trains with TensorFlow's own operations. ``--augment_impl=addons`` uses
functions of TensorFlow Addons for the transform, the hue and the saturation. XLA does not compile these
two chains, so they are slower than ``--augment_impl=fused``.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from seedtf.augment.fused import RGB_TO_YIQ, YIQ_TO_RGB
from seedtf.augment.policy import Parameters
from seedtf.compat.tensorflow import import_addons

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue_saturation",
    "adjust_hue_saturation_with_addons",
    "augment_images",
    "make_chain",
    "transform",
    "transform_with_addons",
]

# (images, parameters, (height, width) of the result) → images
ImageOp = Callable[[tf.Tensor, Parameters, tuple[int, int]], tf.Tensor]
# (images, hue, saturation) → images
ColorOp = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

_MID_GREY = 127.5


def make_chain(impl: str) -> ImageOp:
    """The function that augments a batch with the operations of ``impl``.

    Args:
        impl: one of ``seedtf.augment.AUGMENT_CHAINS``.

    Raises:
        UserError: ``impl`` is ``addons`` and TensorFlow Addons is not installed, or does not support
            this version of Keras.
    """
    if impl == "tf_image":
        return augment_images
    import_addons("--augment_impl=addons")

    def with_addons(
        images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
    ) -> tf.Tensor:
        ops = transform_with_addons, adjust_hue_saturation_with_addons
        return _apply_chain(images, parameters, out_size, *ops)

    return with_addons


def augment_images(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """The result of ``fused.augment_images``, computed with TensorFlow's own operations."""
    return _apply_chain(images, parameters, out_size, transform, adjust_hue_saturation)


def transform(images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]) -> tf.Tensor:
    """Crops, stretches, rotates, shears and flips the images.

    Each image is resampled once, with the product of the 3×3 matrices of these operations.

    Args:
        images: float32 ``[B, h, w, 3]``.
        parameters: float32 ``[B]`` each.
        out_size: (height, width) of the result.

    Returns:
        float32 ``[B, H, W, 3]``. Outside an input image, its mirror image is read.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_output_to_input(parameters, images.shape[1:3], out_size),
        output_shape=tf.constant(out_size, tf.int32),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def transform_with_addons(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """The result of ``transform``, computed with ``tfa.image.transform``."""
    return import_addons("--augment_impl=addons").image.transform(
        images,
        _output_to_input(parameters, images.shape[1:3], out_size),
        interpolation="bilinear",
        fill_mode="reflect",
        output_shape=out_size,
    )


def adjust_hue_saturation(images: tf.Tensor, hue: tf.Tensor, saturation: tf.Tensor) -> tf.Tensor:
    """Rotates the colour of each pixel in YIQ, and changes its saturation.

    YIQ is a colour space with one axis of brightness and two axes of colour, the chroma.

    Args:
        images: float32 ``[B, H, W, 3]``.
        hue: the angle in radians by which the chroma is rotated, float32 ``[B]``.
        saturation: the factor by which the chroma is multiplied, float32 ``[B]``.

    Returns:
        float32 ``[B, H, W, 3]``.
    """
    yiq = tf.tensordot(images, tf.transpose(tf.constant(RGB_TO_YIQ)), 1)
    luma, in_phase, quadrature = tf.unstack(yiq, axis=-1)
    cos, sin = tf.cos(hue)[:, None, None], tf.sin(hue)[:, None, None]
    scale = saturation[:, None, None]
    rotated_i = scale * (cos * in_phase - sin * quadrature)
    rotated_q = scale * (sin * in_phase + cos * quadrature)
    return tf.tensordot(
        tf.stack([luma, rotated_i, rotated_q], axis=-1), tf.transpose(tf.constant(YIQ_TO_RGB)), 1
    )


def adjust_hue_saturation_with_addons(
    images: tf.Tensor, hue: tf.Tensor, saturation: tf.Tensor
) -> tf.Tensor:
    """The result of ``adjust_hue_saturation``, computed with Addons, one image at a time."""
    adjust = import_addons("--augment_impl=addons").image.adjust_hsv_in_yiq
    return tf.map_fn(
        lambda values: adjust(*values),
        (images, hue, saturation),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
    )


def adjust_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the difference of each pixel from mid-grey by ``factor``, float32 ``[B]``.

    ``tf.image.adjust_contrast`` scales the difference from the mean of each image instead. To compute
    the mean takes a second pass over the pixels, and a dark image would stay dark.
    """
    return (images - _MID_GREY) * factor[:, None, None, None] + _MID_GREY


def adjust_brightness(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds ``delta`` grey levels, float32 ``[B]``, to all pixels of each image."""
    return images + delta[:, None, None, None]


def _apply_chain(
    images: tf.Tensor,
    parameters: Parameters,
    out_size: tuple[int, int],
    transform_op: ImageOp,
    hue_saturation_op: ColorOp,
) -> tf.Tensor:
    p = parameters
    pixels = transform_op(tf.cast(images, tf.float32), p, out_size)
    pixels = hue_saturation_op(pixels, p.hue, p.saturation)
    pixels = adjust_contrast(pixels, p.contrast)
    pixels = adjust_brightness(pixels, p.brightness)
    return tf.clip_by_value(pixels, 0.0, 255.0)


def _output_to_input(
    parameters: Parameters, in_size: tuple[int, int], out_size: tuple[int, int]
) -> tf.Tensor:
    """The maps from output to input pixels, float32 ``[B, 8]``.

    A map has the first eight elements of a 3×3 matrix, as ImageProjectiveTransformV3 expects them.
    """
    p = parameters
    (in_h, in_w), (out_h, out_w) = in_size, out_size
    one, zero = tf.ones_like(p.rotate), tf.zeros_like(p.rotate)
    to_unit = _matrix(
        (one * 2 / out_w, zero, one * (1 / out_w - 1)),
        (zero, one * 2 / out_h, one * (1 / out_h - 1)),
    )
    flip = _matrix((p.flip_x, zero, zero), (zero, p.flip_y, zero))
    shear = _matrix((one, tf.tan(p.shear), zero), (zero, one, zero))
    rotate = _matrix(
        (tf.cos(p.rotate), -tf.sin(p.rotate), zero), (tf.sin(p.rotate), tf.cos(p.rotate), zero)
    )
    window = _matrix(
        (p.scale_x * in_w / 2, zero, p.center_x * in_w - 0.5),
        (zero, p.scale_y * in_h / 2, p.center_y * in_h - 0.5),
    )
    full = window @ rotate @ shear @ flip @ to_unit
    return tf.reshape(full, [-1, 9])[:, :8]


def _matrix(first: tuple[tf.Tensor, ...], second: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """The matrices float32 ``[B, 3, 3]`` with the rows ``first``, ``second`` and 0, 0, 1.

    Args:
        first: the elements of the first row, float32 ``[B]`` each.
        second: the elements of the second row, float32 ``[B]`` each.
    """
    zero = tf.zeros_like(first[0] + second[0])
    third = (zero, zero, zero + 1.0)
    return tf.stack([tf.stack(row, -1) for row in (first, second, third)], -2)
