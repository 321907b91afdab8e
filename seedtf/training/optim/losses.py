"""The loss and the metric of every run, and the conversion of training labels to targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

__all__ = ["CrossEntropy", "accuracy_metric", "make_targets", "sample_weights", "smooth_labels"]

ToTargets = Callable[[tf.Tensor, tf.Tensor], tuple]
"""A function from images and labels to a batch for ``fit``; see ``make_targets``."""


class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of the predicted probabilities of a batch of B images and K classes, ``[B, K]``.

    The targets are labels, int ``[B]``, or distributions over the classes, float32 ``[B, K]`` with rows
    that sum to 1. Validation always has labels. Training has distributions if its labels are smoothed,
    mixed, weighted or soft.
    """

    def __init__(self, name: str = "cross_entropy") -> None:
        super().__init__(name=name)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, float32 ``[B]``."""
        y_pred = tf.cast(y_pred, tf.float32)
        if _are_distributions(y_true, y_pred):
            return keras.losses.categorical_crossentropy(y_true, y_pred)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def accuracy_metric() -> keras.metrics.Metric:
    """Returns the metric ``accuracy``: the fraction of images whose most probable class is the label.

    If the label is a distribution, its class with the highest probability counts as the label.
    """
    return keras.metrics.MeanMetricWrapper(_matches, name="accuracy")


def smooth_labels(labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Returns ``(1 − smoothing) · labels + smoothing / K`` (Szegedy et al. 2016, arXiv 1512.00567).

    Args:
        labels: float32 ``[B, K]``, rows that sum to 1.
        smoothing: the fraction of each label that is spread over all classes, in [0, 1).
    """
    return labels * (1.0 - smoothing) + smoothing / labels.shape[-1]


def make_targets(
    num_classes: int,
    *,
    smoothing: float,
    weights: npt.ArrayLike | None = None,
    weighted_labels: bool = False,
) -> ToTargets | None:
    """Returns a function that makes the targets of a training batch; None if labels stay as they are.

    Args:
        num_classes: the number of classes, K.
        smoothing: the fraction of each label that is spread over all classes.
        weights: float32 ``[K]``, the weight of each class in the loss. A mixed image gets the average
            weight of its classes, computed before smoothing.
        weighted_labels: whether the labels are float32 ``[B, K]``, each row multiplied by the weight of
            its image, as with pseudo-labels. So the sum of a row is the weight of the image. For a
            mixed image, the sum is the mean of the weights of its parts.

    Returns:
        A function from images and labels (int32 ``[B]`` or float32 ``[B, K]``) to images and targets
        (float32 ``[B, K]``). With ``weights`` or ``weighted_labels``, a third result is the weight of
        each image in the loss, float32 ``[B]``.
    """
    if not smoothing and weights is None and not weighted_labels:
        return None

    def to_targets(images: tf.Tensor, labels: tf.Tensor) -> tuple:
        soft = labels if labels.shape.rank == 2 else tf.one_hot(labels, num_classes)
        label_weights = tf.reduce_sum(soft, axis=-1) if weighted_labels else None
        if label_weights is not None:
            soft /= label_weights[:, tf.newaxis]
        batch = (images, smooth_labels(soft, smoothing) if smoothing else soft)
        if weights is None:
            return batch if label_weights is None else (*batch, label_weights)
        image_weights = sample_weights(soft, weights)
        return (*batch, image_weights if label_weights is None else image_weights * label_weights)

    return to_targets


def _matches(y_true: Any, y_pred: Any) -> Any:
    """1.0 for each image whose most probable class is its label, otherwise 0.0; float32 ``[B]``."""
    if _are_distributions(y_true, y_pred):
        y_true = tf.argmax(y_true, axis=-1)
    y_true = tf.reshape(y_true, [-1])
    return tf.cast(tf.equal(tf.cast(y_true, tf.int64), tf.argmax(y_pred, axis=-1)), tf.float32)


def _are_distributions(y_true: Any, y_pred: Any) -> bool:
    # Keras may add a second axis of length 1 to labels, so two axes alone do not prove a distribution.
    return len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]


def sample_weights(soft_labels: tf.Tensor, weights: npt.ArrayLike) -> tf.Tensor:
    """The weight of each image in the loss, float32 ``[B]``: Σ label · weight over the classes.

    Args:
        soft_labels: float32 ``[B, K]``, rows that sum to 1.
        weights: the weight of each class, float32 ``[K]``, from ``parse_class_weights``.
    """
    # This is not a matrix product, because GPUs may round the factors of a matrix product (TF32).
    return tf.reduce_sum(soft_labels * tf.constant(weights, tf.float32), axis=-1)
