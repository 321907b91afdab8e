"""Averages the predictions of several networks, each of which may take its own image size."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = ["input_size", "resize_for", "weighted_mean"]


def input_size(model: keras.Model) -> int:
    """The image size of a network: the side in pixels of its square input."""
    return int(model.input_shape[1])


def resize_for(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Resizes images to the image size of a network; returns them unchanged if they have it.

    An ensemble decodes an image once, at the largest image size of its members, and resizes it for the
    other members. The method is that for decoded files: bilinear, antialiased, rounded.

    Args:
        model: the network.
        images: float32 ``[B, S, S, 3]`` in 0–255, of any side S.

    Example:
        >>> image = keras.Input((4, 4, 3))
        >>> network = keras.Model(image, keras.layers.Flatten()(image))
        >>> resize_for(network, tf.zeros([2, 8, 8, 3])).shape
        TensorShape([2, 4, 4, 3])
    """
    size = input_size(model)
    if images.shape[1] == size:
        return images
    return tf.round(tf.image.resize(images, [size, size], method="bilinear", antialias=True))


def weighted_mean(values: Sequence[tf.Tensor], weights: Sequence[float] = ()) -> tf.Tensor:
    """The weighted mean of float32 tensors of one shape.

    Args:
        values: one tensor of each member.
        weights: the weight of each member; they add up to 1. Empty for equal weights.
    """
    factors = weights or [1 / len(values)] * len(values)
    return tf.add_n([value * float(w) for value, w in zip(values, factors, strict=True)])
