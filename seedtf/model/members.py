"""Averages the predictions of an ensemble's members: networks that may take different image sizes.

All members must have the classes in the same order; ``reorder_classes`` brings the classes of one
member into that order.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from seedtf.model.network import HEAD

__all__ = ["input_size", "reorder_classes", "resize_for", "weighted_mean"]


def input_size(model: keras.Model) -> int:
    """The image size of a network: the side in pixels of its square input."""
    return int(model.input_shape[1])


def reorder_classes(model: keras.Model, order: Sequence[int]) -> None:
    """Changes the order of a network's classes: output k becomes what output ``order[k]`` was before.

    The columns of the dense head are reordered, so logits, probabilities and class activation maps have
    the new order too. Probabilities may differ by rounding, because softmax adds the exponentials in
    another order.

    Example:
        >>> from seedtf.model.network import build_network
        >>> network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
        >>> before = network(tf.ones([1, 16, 16, 3])).numpy()[0]
        >>> reorder_classes(network, [2, 0, 1])
        >>> after = network(tf.ones([1, 16, 16, 3])).numpy()[0]
        >>> bool(abs(after - before[[2, 0, 1]]).max() < 1e-6)
        True
    """
    head = model.get_layer(HEAD)
    # The last axis of the kernel [C, K] and of the bias [K] is that of the classes.
    head.set_weights([values[..., list(order)] for values in head.get_weights()])


def resize_for(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Resizes images to the image size of a network; images of this size are returned unchanged.

    An ensemble decodes an image once, at the largest image size of its members, and resizes it for the
    other members. Images are resized here in the same way as files are when they are decoded: bilinear,
    antialiased, rounded.

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
        values: one tensor from each member.
        weights: the weight of each member; they add up to 1. Empty for equal weights.
    """
    factors = weights or [1 / len(values)] * len(values)
    return tf.add_n([value * float(w) for value, w in zip(values, factors, strict=True)])
