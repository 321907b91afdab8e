"""Class activation maps: how much each place of an image adds to the logit of a class.

The head is global average pooling and a dense layer. So the logit of a class is the mean over all
places of ``features · kernel[:, class]``, plus the bias. The map has this product at each place, so no
gradient is needed. B. Zhou et al., "Learning deep features for discriminative localization", 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.model.members import resize_for, weighted_mean
from seedtf.model.network import HEAD

__all__ = [
    "MapFunction",
    "check_has_maps",
    "has_maps",
    "make_map_function",
    "mean_map",
    "split_for_maps",
]

_POOL = "pool"  # the pooling layer in a network of build_network

MapFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Takes images ``[B, S, S, 3]`` in 0–255 and a class for each, int ``[B]``; returns the map of each
image for its class, float32 ``[B, h, w]``."""


def has_maps(model: keras.Model) -> bool:
    """Whether the network ends with global average pooling and a dense head."""
    layers = {layer.name: layer for layer in model.layers}
    is_pooled = isinstance(layers.get(_POOL), keras.layers.GlobalAveragePooling2D)
    return is_pooled and isinstance(layers.get(HEAD), keras.layers.Dense)


def check_has_maps(model: keras.Model, flag: str) -> None:
    """Raises UserError unless ``has_maps(model)``; ``flag`` is the flag that asks for maps."""
    if not has_maps(model):
        raise UserError(
            f"{flag}: {model.name} does not end with global average pooling and a dense layer, so it "
            "has no class activation maps; leave the flag out"
        )


def split_for_maps(
    model: keras.Model,
) -> tuple[keras.Model, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """Returns a model that outputs features and logits, and a function that makes maps of the features.

    The model outputs the last feature map ``[B, h, w, C]`` and the logits ``[B, K]``. The function
    takes the features and a class for each image, int ``[B]``, and returns the map of that class,
    float32 ``[B, h, w]``. The mean of the map plus the bias of the head is the logit.

    Example:
        >>> from seedtf.model.network import build_network
        >>> network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
        >>> feature_model, to_map = split_for_maps(network)
        >>> features, logits = feature_model(tf.zeros([1, 16, 16, 3]))
        >>> to_map(features, tf.constant([2])).shape
        TensorShape([1, 2, 2])
    """
    pool, head = model.get_layer(_POOL), model.get_layer(HEAD)
    feature_model = keras.Model(model.input, [pool.input, head.output])
    kernel = head.kernel if isinstance(head.kernel, tf.Variable) else head.kernel.value

    def to_map(features: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        class_kernels = tf.gather(tf.cast(kernel, tf.float32), classes, axis=1)
        return tf.einsum("bhwc,cb->bhw", tf.cast(features, tf.float32), class_kernels)

    return feature_model, to_map


def make_map_function(models: Sequence[keras.Model], weights: Sequence[float] = ()) -> MapFunction:
    """Returns a function that computes the mean of the maps of several networks.

    The mean has the size of the largest map.

    Args:
        models: networks of ``build_network`` with the same classes; the function resizes the images to
            the size that each network takes.
        weights: the weight of each network; they add up to 1. Empty for equal weights.

    Example:
        >>> from seedtf.model.network import build_network
        >>> network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
        >>> make_map_function([network])(tf.zeros([4, 16, 16, 3]), tf.zeros([4], tf.int64)).shape
        TensorShape([4, 2, 2])
    """
    members = [split_for_maps(model) for model in models]

    def compute_mean_map(images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(images, tf.float32)
        member_maps = [
            to_map(feature_model(resize_for(model, pixels), training=False)[0], classes)
            for model, (feature_model, to_map) in zip(models, members, strict=True)
        ]
        return mean_map(member_maps, weights)

    return compute_mean_map


def mean_map(maps: Sequence[tf.Tensor], weights: Sequence[float] = ()) -> tf.Tensor:
    """The mean of maps, float32 ``[B, h, w]``, weighted by ``weights`` or equally.

    Smaller maps are first resized to the size of the largest.
    """
    largest = max(tuple(values.shape[1:]) for values in maps)
    resized = [
        values
        if tuple(values.shape[1:]) == largest
        else tf.image.resize(values[..., tf.newaxis], largest)[..., 0]
        for values in maps
    ]
    return weighted_mean(resized, weights)
