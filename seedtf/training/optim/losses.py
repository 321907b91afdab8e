"""The loss and the metric of every run, and how training labels become the targets of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

__all__ = ["CrossEntropy", "accuracy_metric", "make_targets", "sample_weights", "smooth"]

Targets = Callable[[tf.Tensor, tf.Tensor], tuple]


class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of probabilities ``[B, K]`` with labels or with distributions over the classes.

    Labels are int ``[B]``: validation always uses them. Distributions are float32 ``[B, K]``, rows
    that sum to 1: training uses them when labels are smoothed or mixed.
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
    """Returns the metric ``accuracy``: the fraction of images whose top class is that of the label.

    If the label is a distribution, its class is the one with the highest probability.
    """
    return keras.metrics.MeanMetricWrapper(_matches, name="accuracy")


def smooth(labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Returns ``(1 − smoothing) · labels + smoothing / K`` (Szegedy et al. 2016, arXiv 1512.00567).

    Args:
        labels: float32 ``[B, K]``, rows that sum to 1.
        smoothing: the fraction of each label that is spread over all classes, in [0, 1).
    """
    return labels * (1.0 - smoothing) + smoothing / labels.shape[-1]


def make_targets(
    classes: int,
    *,
    smoothing: float,
    weights: npt.ArrayLike | None = None,
    weighted_labels: bool = False,
) -> Targets | None:
    """Returns a function that makes the targets of a training batch; None if labels stay as they are.

    Args:
        classes: the number of classes, K.
        smoothing: the fraction of each label that is spread over all classes.
        weights: float32 ``[K]``, the weight of each class in the loss. A mixed image gets the average
            weight of its classes, computed before smoothing.
        weighted_labels: whether the labels are float32 ``[B, K]`` whose sums are the weights of the
            images, as with pseudo-labels. A mixed image has the mean of both, since labels are mixed
            linearly.

    Returns:
        ``(images, labels int32 [B] or float32 [B, K]) → (images, float32 [B, K])``; with ``weights`` or
        ``weighted_labels`` the result has a third part, the weight of each image, float32 ``[B]``.
    """
    if not smoothing and weights is None and not weighted_labels:
        return None

    def targets(images: tf.Tensor, labels: tf.Tensor) -> tuple:
        soft = labels if labels.shape.rank == 2 else tf.one_hot(labels, classes)
        of_images = tf.reduce_sum(soft, axis=-1) if weighted_labels else None
        if of_images is not None:
            soft /= of_images[:, tf.newaxis]
        batch = (images, smooth(soft, smoothing) if smoothing else soft)
        if weights is None:
            return batch if of_images is None else (*batch, of_images)
        of_classes = sample_weights(soft, weights)
        return (*batch, of_classes if of_images is None else of_classes * of_images)

    return targets


def _matches(y_true: Any, y_pred: Any) -> Any:
    if _are_distributions(y_true, y_pred):
        y_true = tf.argmax(y_true, axis=-1)
    y_true = tf.reshape(y_true, [-1])
    return tf.cast(tf.equal(tf.cast(y_true, tf.int64), tf.argmax(y_pred, axis=-1)), tf.float32)


def _are_distributions(y_true: Any, y_pred: Any) -> bool:
    # Keras may add a second axis of length 1 to class numbers.
    return len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]


def sample_weights(soft_labels: tf.Tensor, weights: npt.ArrayLike) -> tf.Tensor:
    """The weight of each image, float32 ``[B]``: the mean of the class weights under its label.

    Args:
        soft_labels: float32 ``[B, K]``, rows that sum to 1; a mixed image weighs as its parts do.
        weights: float32 ``[K]`` from ``parse_class_weights``.
    """
    # no matrix product: devices may round the factors of one to fewer bits
    return tf.reduce_sum(soft_labels * tf.constant(weights, tf.float32), axis=-1)
