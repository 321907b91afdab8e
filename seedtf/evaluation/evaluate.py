"""A model's answers over labelled images, and what they say about it."""

from __future__ import annotations

from collections.abc import Callable
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

__all__ = [
    "Predictions",
    "Report",
    "compute_report",
    "make_classifier",
    "predict_store",
    "top_classes",
    "top_losses",
]

Classify = Callable[[tf.Tensor], np.ndarray]


@dataclass(frozen=True)
class Predictions:
    """What a model answered on N labelled images, in the store's order.

    Attributes:
        paths: N paths, relative to the data folder.
        labels: int32 ``[N]``, indices into ``class_names``.
        probabilities: float32 ``[N, K]``, rows sum to 1.
        class_names: K names, the model's own list.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def answers(self) -> np.ndarray:
        """The most probable class of each image, int64 ``[N]``; the first where two are equal."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The highest probability of each image, float32 ``[N]``."""
        return self.probabilities.max(axis=1)


@dataclass(frozen=True)
class Report:
    """What the answers say; every number follows from ``predictions`` and ``temperature``.

    Attributes:
        predictions: the answers.
        confusion: int64 ``[K, K]``, rows the true class, columns the answer.
        accuracy: the trace of ``confusion`` by N; ``accuracy_interval`` is Wilson's, 95 %.
        scores: per class; ``macro_f1`` is their mean.
        losses: cross-entropy of each image in nats, float64 ``[N]``; ``loss`` is the mean.
        margins: the true class's probability less the best other one's, float64 ``[N]``.
        temperature: divides the logits; None where no validation report gave one.
        reliability: of the probabilities as they are; ``reliability_scaled`` with the temperature.
        precision_target: the wanted share of right answers among those kept.
        reject: the rule that reaches it, on the probabilities as they are; ``reject_scaled`` with the
            temperature; None where no threshold does.
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
    reject: metrics.RejectRule | None
    reject_scaled: metrics.RejectRule | None


def make_classifier(model: keras.Model, tta: int = 1) -> Classify:
    """A function from images ``[B, S, S, 3]`` in 0–255 to probabilities float32 ``[B, K]``.

    Args:
        model: takes float32 images of side S.
        tta: 1, or 8 for the mean over the eight turns and mirror images of the square.
    """
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)

    @tf.function(input_signature=[spec], autograph=False)
    def graph(images: tf.Tensor) -> tf.Tensor:
        views = _eight_views(images) if tta == 8 else [images]
        answers = [tf.cast(model(view, training=False), tf.float32) for view in views]
        return tf.add_n(answers) / float(len(views))

    return lambda images: graph(tf.cast(images, tf.float32)).numpy()


def predict_store(
    classify: Classify, store: Store, records: np.ndarray, batch_size: int
) -> Predictions:
    """Answers for the ``records`` (int64 ``[n]``) of a store, each once, in their order.

    Raises:
        UserError: the model answers with something that is not a number.
    """
    batches = eval_dataset(store, records, batch_size)
    steps = -(-len(records) // batch_size)
    answers = [
        classify(images)
        for images, _ in tqdm(batches, "judging", steps, unit="batch", disable=None, leave=False)
    ]
    catalog = store.catalog
    paths = tuple(catalog.paths[record] for record in records)
    found = Predictions(
        paths, catalog.labels[records], np.concatenate(answers), catalog.class_names
    )
    bad = np.flatnonzero(~np.isfinite(found.probabilities).all(axis=1))
    if bad.size:
        raise UserError(
            f"{paths[bad[0]]}: the model's answer is not a number ({bad.size} of {len(paths)} "
            "images); train again with a lower --lr"
        )
    return found


def compute_report(
    predictions: Predictions, *, precision_target: float, temperature: float | None = None
) -> Report:
    """Everything that a report states.

    Args:
        predictions: at least one image.
        precision_target: share of right answers wanted among those kept, in [0, 1].
        temperature: fitted before on other images; None leaves the scaled figures out.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    confusion = metrics.confusion_matrix(labels, predictions.answers, len(predictions.class_names))
    correct, n = predictions.answers == labels, len(labels)
    scores = metrics.class_scores(confusion)
    losses = metrics.per_image_loss(probabilities, labels)
    scaled = None
    if temperature is not None:
        scaled = metrics.scale_probabilities(probabilities, temperature).max(axis=1)
    hits = int(confusion.trace())
    return Report(
        predictions=predictions,
        confusion=confusion,
        accuracy=hits / n,
        accuracy_interval=wilson_interval(hits, n),
        scores=scores,
        macro_f1=metrics.macro_f1(scores),
        losses=losses,
        loss=float(losses.mean()),
        margins=metrics.margins(probabilities, labels),
        temperature=temperature,
        reliability=metrics.reliability(predictions.confidence, correct),
        reliability_scaled=None if scaled is None else metrics.reliability(scaled, correct),
        precision_target=precision_target,
        reject=metrics.rejection_threshold(predictions.confidence, correct, precision_target),
        reject_scaled=(
            None
            if scaled is None
            else metrics.rejection_threshold(scaled, correct, precision_target)
        ),
    )


def top_classes(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Indices int64 ``[B, min(k, K)]`` of the most probable classes, ties in class order."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]


def top_losses(report: Report, limit: int) -> np.ndarray:
    """Positions int64 of at most ``limit`` wrong answers, the highest loss first."""
    wrong = np.flatnonzero(report.predictions.answers != report.predictions.labels)
    return wrong[np.argsort(-report.losses[wrong], kind="stable")][:limit]


def _eight_views(images: tf.Tensor) -> list[tf.Tensor]:
    """The symmetries of the square: four quarter turns, and the same of the mirror image."""
    mirrored = tf.reverse(images, axis=[2])
    return [tf.image.rot90(view, turns) for view in (images, mirrored) for turns in range(4)]
