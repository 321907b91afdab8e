"""Predicts labelled images with one or several models, and computes the metrics of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seedtf.data.pipeline import eval_dataset
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.evaluation import metrics
from seedtf.intervals import wilson_interval
from seedtf.model.members import resize_for
from seedtf.report import is_silent

__all__ = [
    "PredictFn",
    "Predictions",
    "Report",
    "compute_report",
    "make_mean_predict_fn",
    "make_predict_fn",
    "predict_store",
    "top_classes",
    "top_losses",
]

_ROWS_SORTED_AT_ONCE = 1024

PredictFn = Callable[[tf.Tensor], np.ndarray]
"""A function from images ``[B, S, S, 3]`` in 0–255 to probabilities, float32 ``[B, K]``."""


@dataclass(frozen=True)
class Predictions:
    """The probabilities of N labelled images, in the order in which they were predicted.

    Attributes:
        paths: N paths, relative to the data folder.
        labels: int32 ``[N]``, indices into ``class_names``.
        probabilities: float32 ``[N, K]``, rows sum to 1.
        class_names: K names in the order of the model's outputs.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def classes(self) -> np.ndarray:
        """The predicted class of each image, int64 ``[N]``; the first of equal probabilities."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The highest probability of each image, float32 ``[N]``."""
        return self.probabilities.max(axis=1)


@dataclass(frozen=True)
class Report:
    """The metrics of a model, computed from ``predictions``, ``temperature``, ``precision_target``.

    Attributes:
        predictions: the predictions that the metrics describe.
        confusion: int64 ``[K, K]``, true classes in rows, predicted classes in columns.
        accuracy: the trace of ``confusion`` divided by N.
        accuracy_interval: the 95 % Wilson interval of ``accuracy``.
        scores: precision, recall, F1 and support per class.
        macro_f1: the mean F1 of the classes that occur as label or prediction.
        losses: cross-entropy of each image in nats, float64 ``[N]``.
        loss: the mean of ``losses``.
        margins: the probability of the true class minus the highest other probability, float64 ``[N]``.
        temperature: the divisor of the logits, fitted on validation images; None if none was fitted.
        reliability: the calibration of the model's probabilities.
        reliability_scaled: the calibration after temperature scaling; None without a temperature.
        precision_target: wanted fraction of correct predictions among the accepted predictions. A
            prediction is accepted if its confidence is at least a threshold.
        reject: the threshold that reaches ``precision_target`` with the model's probabilities; None if
            no threshold does.
        reject_scaled: as ``reject``, for the probabilities after temperature scaling; also None without
            a temperature.
    """

    predictions: Predictions
    confusion: np.ndarray
    accuracy: float
    accuracy_interval: tuple[float, float]
    scores: metrics.ClassScores
    macro_f1: float
    losses: np.ndarray
    loss: float
    margins: np.ndarray
    temperature: float | None
    reliability: metrics.Reliability
    reliability_scaled: metrics.Reliability | None
    precision_target: float
    reject: metrics.RejectionThreshold | None
    reject_scaled: metrics.RejectionThreshold | None


def make_predict_fn(model: keras.Model, tta: int = 1) -> PredictFn:
    """Compiles a function from images ``[B, S, S, 3]`` in 0–255 to probabilities float32 ``[B, K]``.

    Args:
        model: takes float32 images of side S.
        tta: 1, or 8 for the mean over the eight rotations and reflections of the square.
    """
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def mean_over_views(images: tf.Tensor) -> tf.Tensor:
        views = _eight_views(images) if tta == 8 else [images]
        probabilities = [tf.cast(model(view, training=False), tf.float32) for view in views]
        return tf.add_n(probabilities) / float(len(views))

    return lambda images: mean_over_views(tf.cast(images, tf.float32)).numpy()


def make_mean_predict_fn(
    models: Sequence[keras.Model], tta: int = 1, weights: Sequence[float] = ()
) -> PredictFn:
    """Like ``make_predict_fn``, but returns the mean of the probabilities of several models.

    Huang et al. average snapshots in this way (Snapshot Ensembles, arXiv 1704.00109, section 3).

    Args:
        models: at least one, all with the same classes. Images are resized for each model whose input
            has another size.
        tta: as for ``make_predict_fn``.
        weights: the weight of each model in the mean; they add up to 1. Empty for equal weights.
    """
    members = [make_predict_fn(model, tta) for model in models]
    if len(members) == 1:
        return members[0]

    def predict(images: tf.Tensor) -> np.ndarray:
        pixels = tf.cast(images, tf.float32)
        probabilities = [
            member(resize_for(model, pixels)) for model, member in zip(models, members, strict=True)
        ]
        mean = np.average(np.asarray(probabilities, np.float64), axis=0, weights=weights or None)
        return np.asarray(mean, np.float32)

    return predict


def predict_store(
    predict: PredictFn, store: Store, records: np.ndarray, batch_size: int
) -> Predictions:
    """Predicts images of a store.

    Args:
        predict: from ``make_predict_fn`` or ``make_mean_predict_fn``.
        store: decoded images.
        records: int64 ``[n]``, the indices of the images in ``store``, in the order of the result.
        batch_size: images per batch.

    Raises:
        UserError: the model returns NaN or infinity.
    """
    batches = eval_dataset(store, records, batch_size)
    num_batches = -(-len(records) // batch_size)
    # disable=None hides the bar unless stderr is a terminal.
    disable = is_silent() or None
    bar = tqdm(batches, "evaluating", num_batches, unit="batch", disable=disable, leave=False)
    probabilities = np.concatenate([predict(images) for images, _ in bar])
    catalog = store.catalog
    paths = tuple(catalog.paths[record] for record in records)
    not_finite = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if not_finite.size:
        raise UserError(
            f"{paths[not_finite[0]]}: the model's output is not a number ({not_finite.size} of "
            f"{len(paths)} images); train again with a lower --lr"
        )
    return Predictions(paths, catalog.labels[records], probabilities, catalog.class_names)


def compute_report(
    predictions: Predictions, *, precision_target: float, temperature: float | None = None
) -> Report:
    """Computes every metric of a report.

    Args:
        predictions: of at least one image.
        precision_target: wanted fraction of correct predictions among the accepted predictions, in
            [0, 1].
        temperature: from ``fit_temperature``; if None, the attributes that end in ``_scaled`` are None.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    confidence, correct = predictions.confidence, predictions.classes == labels
    confusion = metrics.confusion_matrix(labels, predictions.classes, len(predictions.class_names))
    scores = metrics.class_scores(confusion)
    losses = metrics.per_image_loss(probabilities, labels)
    num_correct, num_images = int(confusion.trace()), len(labels)
    reliability_scaled, reject_scaled = None, None
    if temperature is not None:
        scaled = metrics.scale_probabilities(probabilities, temperature).max(axis=1)
        reliability_scaled = metrics.reliability(scaled, correct)
        reject_scaled = metrics.rejection_threshold(scaled, correct, precision_target)
    return Report(
        predictions=predictions,
        confusion=confusion,
        accuracy=num_correct / num_images,
        accuracy_interval=wilson_interval(num_correct, num_images),
        scores=scores,
        macro_f1=metrics.macro_f1(scores),
        losses=losses,
        loss=float(losses.mean()),
        margins=metrics.margins(probabilities, labels),
        temperature=temperature,
        reliability=metrics.reliability(confidence, correct),
        reliability_scaled=reliability_scaled,
        precision_target=precision_target,
        reject=metrics.rejection_threshold(confidence, correct, precision_target),
        reject_scaled=reject_scaled,
    )


def top_classes(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Indices, int64 ``[B, min(k, K)]``, of the most probable classes, best first; ties in class order.

    Example:
        >>> top_classes(np.array([[0.2, 0.5, 0.3]]), 2).tolist()
        [[1, 2]]
    """
    # Sorted in parts, because the int64 indices of all images and classes would take twice the memory
    # of the float32 probabilities.
    starts = range(0, max(len(probabilities), 1), _ROWS_SORTED_AT_ONCE)
    parts = (probabilities[start : start + _ROWS_SORTED_AT_ONCE] for start in starts)
    return np.concatenate([np.argsort(-part, axis=1, kind="stable")[:, :k] for part in parts])


def top_losses(report: Report, limit: int) -> np.ndarray:
    """Indices, int64, of at most ``limit`` wrong predictions, those with the highest losses first."""
    wrong = np.flatnonzero(report.predictions.classes != report.predictions.labels)
    return wrong[np.argsort(-report.losses[wrong], kind="stable")][:limit]


def _eight_views(images: tf.Tensor) -> list[tf.Tensor]:
    """The image and its mirror image, each rotated by 0, 90, 180 and 270 degrees."""
    mirrored = tf.reverse(images, axis=[2])
    return [tf.image.rot90(view, turns) for view in (images, mirrored) for turns in range(4)]
