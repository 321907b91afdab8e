"""The loss and the metric of every run, and what a training label becomes before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from seedtf.training.optim.class_weights import sample_weights

__all__ = ["CrossEntropy", "accuracy_metric", "make_targets", "smooth"]

Targets = Callable[[tf.Tensor, tf.Tensor], tuple]


class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of probabilities ``[B, K]`` with labels, or with distributions over the classes.

    Labels are int ``[B]``, as validation has them; distributions are float32 ``[B, K]``, rows that sum
    to 1, as training has them where labels are smoothed or mixed.
    """

    def __init__(self, name: str = "cross_entropy") -> None:
        super().__init__(name=name)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Float32 ``[B]``: a loss for each image."""
        y_pred = tf.cast(y_pred, tf.float32)
        if _are_distributions(y_true, y_pred):
            return keras.losses.categorical_crossentropy(y_true, y_pred)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def accuracy_metric() -> keras.metrics.Metric:
    """The share of images whose likeliest class is their label's, or the one with most of it."""
    return keras.metrics.MeanMetricWrapper(_matches, name="accuracy")


def smooth(labels: tf.Tensor, share: float) -> tf.Tensor:
    """Label smoothing: ``(1 − share) · labels + share / K`` (Szegedy et al. 2016, arXiv 1512.00567).

    Args:
        labels: float32 ``[B, K]``, rows that sum to 1.
        share: what each label gives away, in [0, 1).
    """
    return labels * (1.0 - share) + share / labels.shape[-1]


def make_targets(
    classes: int, *, smoothing: float, weights: npt.ArrayLike | None = None
) -> Targets | None:
    """What is done to a training batch's labels, or None where they stay class numbers.

    Args:
        classes: how many there are, K.
        smoothing: the share of each label that is spread over all classes.
        weights: float32 ``[K]``, what an image of each class counts in the loss; a mixed image
            counts as its parts do, before smoothing.

    Returns:
        ``(images, labels int32 [B] or float32 [B, K]) → (images, float32 [B, K])``, and with weights a
        third: float32 ``[B]``.
    """
    if not smoothing and weights is None:
        return None

    def targets(images: tf.Tensor, labels: tf.Tensor) -> tuple:
        soft = labels if labels.shape.rank == 2 else tf.one_hot(labels, classes)
        made = (images, smooth(soft, smoothing) if smoothing else soft)
        return made if weights is None else (*made, sample_weights(soft, weights))

    return targets


def _matches(y_true: Any, y_pred: Any) -> Any:
    if _are_distributions(y_true, y_pred):
        y_true = tf.argmax(y_true, axis=-1)
    y_true = tf.reshape(y_true, [-1])
    return tf.cast(tf.equal(tf.cast(y_true, tf.int64), tf.argmax(y_pred, axis=-1)), tf.float32)


def _are_distributions(y_true: Any, y_pred: Any) -> bool:
    # Keras may give class numbers a second axis of length 1
    return len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]
