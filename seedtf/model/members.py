"""The mean of the predictions of several networks, each of which takes images of its own size."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = ["input_size", "resize_for", "weighted_mean"]


def input_size(model: keras.Model) -> int:
    """The side in pixels of the images that a network takes."""
    return int(model.input_shape[1])


def resize_for(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Images of any side S, float32 ``[B, S, S, 3]`` in 0–255, at the side that a network takes.

    They are resized as decoded files are (bilinear, antialiased, rounded); images of the right side are
    returned unchanged. So an ensemble decodes an image once, at the side of its largest member, and
    resizes it for the others.

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
    """The mean of float32 tensors of one shape.

    Args:
        values: one tensor of each member.
        weights: the weight of each member; they add up to 1. Empty for equal weights.
    """
    factors = weights or [1 / len(values)] * len(values)
    return tf.add_n([value * float(w) for value, w in zip(values, factors, strict=True)])
