"""The augmentation policy one plain step at a time: the meaning that ``augment`` is tested against.

Each function here is one operation on literal parameters, built on ``tf.image`` and TensorFlow's own
projective transform. ``--augment_impl=tf_image`` trains with them; they are not compiled and slower.
"""

from __future__ import annotations

import tensorflow as tf

from seedtf.data.augment import Parameters

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue_saturation",
    "augment_images",
    "transform",
]

_MID_GREY = 127.5


def augment_images(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """The whole policy; arguments and result as ``augment.augment_images``."""
    p = parameters
    pixels = transform(tf.cast(images, tf.float32), p, out_size)
    pixels = adjust_hue_saturation(pixels, p.hue, p.saturation)
    pixels = adjust_contrast(pixels, p.contrast)
    pixels = adjust_brightness(pixels, p.brightness)
    return tf.clip_by_value(pixels, 0.0, 255.0)


def transform(images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]) -> tf.Tensor:
    """Crop, stretch, rotate, shear and flip as a product of elementary 3×3 matrices, one resample.

    Args:
        images: float32 ``[B, h, w, 3]``.
        parameters: float32 ``[B]`` each.
        out_size: (height, width) of the result.

    Returns:
        float32 ``[B, H, W, 3]``; outside the picture its mirror image.
    """
    p = parameters
    in_h, in_w = images.shape[1], images.shape[2]
    out_h, out_w = out_size
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
    full = window @ rotate @ shear @ flip @ to_unit  # output pixel → input pixel
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.reshape(full, [-1, 9])[:, :8],
        output_shape=tf.constant(out_size, tf.int32),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def adjust_hue_saturation(images: tf.Tensor, hue: tf.Tensor, saturation: tf.Tensor) -> tf.Tensor:
    """Turns the chroma of YIQ by ``hue`` (radians ``[B]``) and scales it by ``saturation`` ``[B]``."""
    luma, in_phase, quadrature = tf.unstack(tf.image.rgb_to_yiq(images), axis=-1)
    cos, sin = tf.cos(hue)[:, None, None], tf.sin(hue)[:, None, None]
    scale = saturation[:, None, None]
    turned = [luma, scale * (cos * in_phase - sin * quadrature)]
    turned.append(scale * (sin * in_phase + cos * quadrature))
    return tf.image.yiq_to_rgb(tf.stack(turned, axis=-1))


def adjust_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales about mid-grey by ``factor`` ``[B]``; unlike ``tf.image``'s, not about the mean.

    The mean would need a second pass over the picture, and a darkened picture would stay dark.
    """
    return (images - _MID_GREY) * factor[:, None, None, None] + _MID_GREY


def adjust_brightness(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds ``delta`` grey levels (``[B]``), each image its own."""
    return images + delta[:, None, None, None]


def _matrix(first: tuple[tf.Tensor, ...], second: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """Stacks two rows of ``[B]`` tensors over ``(0, 0, 1)``: float32 ``[B, 3, 3]``."""
    zero = tf.zeros_like(first[0] + second[0])
    third = (zero, zero, zero + 1.0)
    return tf.stack([tf.stack(row, -1) for row in (first, second, third)], -2)
