"""Metrics of a classifier: confusion matrix, scores, calibration and comparison; NumPy only.

These arguments have the same meaning in all functions, for N images and K classes:

* ``labels`` and ``predictions``: class indices, int ``[N]``
* ``probabilities``: float ``[N, K]`` with rows that sum to 1
* ``confidence``: the highest probability of each image, float ``[N]``
* ``correct``: whether each prediction is correct, bool ``[N]``
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "CALIBRATION_BINS",
    "ClassScores",
    "ConfusedPair",
    "RejectionThreshold",
    "Reliability",
    "class_scores",
    "confusion_matrix",
    "fit_temperature",
    "fit_weights",
    "macro_f1",
    "margins",
    "mcnemar_p",
    "most_confused",
    "nonzero_cells",
    "per_image_loss",
    "rejection_threshold",
    "reliability",
    "scale_probabilities",
]

CALIBRATION_BINS = 15
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0
# The smallest normal float32: a probability that underflowed to 0 still has a finite logarithm.
_MIN_PROBABILITY = float(np.finfo(np.float32).tiny)
_EXACT_MCNEMAR_BELOW = 25
_NEWTON_STEPS = 60
_WEIGHT_STEPS, _WEIGHT_TOLERANCE = 500, 1e-9

Array = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassScores:
    """Scores per class.

    Attributes:
        precision, recall, f1: float64 ``[K]`` in [0, 1], NaN where the ratio is 0/0.
        support: number of images of each class, int64 ``[K]``.
    """

    precision: Array
    recall: Array
    f1: Array
    support: Integers


@dataclass(frozen=True)
class ConfusedPair:
    """``count`` images of the class ``true`` were predicted as the class ``predicted``; int indices."""

    true: int
    predicted: int
    count: int


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: mean confidence and accuracy in equal-width bins of confidence.

    Attributes:
        counts: number of images per bin, int64 ``[bins]``.
        confidence, accuracy: means per bin, float64 ``[bins]`` in [0, 1], NaN in an empty bin.
        ece: expected calibration error in [0, 1]: the mean of ``|confidence - accuracy|`` over the
            bins, weighted by ``counts``.
    """

    counts: Integers
    confidence: Array
    accuracy: Array
    ece: float


@dataclass(frozen=True)
class RejectionThreshold:
    """A rule: predictions with a confidence of at least ``threshold`` are accepted, others rejected.

    Attributes:
        threshold: confidence in [0, 1].
        kept: number of accepted predictions.
        kept_correct: number of accepted predictions that are correct.
    """

    threshold: float
    kept: int
    kept_correct: int


def confusion_matrix(labels: Integers, predictions: Integers, num_classes: int) -> Integers:
    """Numbers of images, int64 ``[K, K]``, with true classes in rows, predicted classes in columns.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: Integers) -> ClassScores:
    """Precision, recall, F1 and support of every class of a confusion matrix ``[K, K]``."""
    num_correct = np.diag(confusion)
    support, num_predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(
        precision=_ratio(num_correct, num_predicted),
        recall=_ratio(num_correct, support),
        f1=_ratio(2 * num_correct, support + num_predicted),
        support=support,
    )


def macro_f1(scores: ClassScores) -> float:
    """The mean F1 of the classes that occur as label or prediction; NaN if there is no such class."""
    defined = scores.f1[~np.isnan(scores.f1)]
    return float(defined.mean()) if defined.size else math.nan


def most_confused(confusion: Integers, limit: int) -> list[ConfusedPair]:
    """The ``limit`` most frequent mistakes, the most frequent first; ties are in class order."""
    cells = nonzero_cells(confusion)
    mistakes = cells[cells[:, 0] != cells[:, 1]]
    order = np.argsort(-mistakes[:, 2], kind="stable")[:limit]
    return [ConfusedPair(*cell) for cell in mistakes[order].tolist()]


def nonzero_cells(confusion: Integers) -> Integers:
    """Row, column and count of every nonzero cell, int64 ``[n, 3]``, in row order.

    n is at most the number of images, even if the matrix has many more cells.

    Example:
        >>> nonzero_cells(np.array([[0, 2], [0, 5]])).tolist()
        [[0, 1, 2], [1, 1, 5]]
    """
    rows, columns = np.nonzero(confusion)
    return np.stack([rows, columns, confusion[rows, columns]], axis=1)


def per_image_loss(probabilities: Array, labels: Integers) -> Array:
    """Cross-entropy of every image in nats, float64 ``[N]``.

    The largest possible value is 87.3, because probabilities are clipped at the smallest normal
    float32, 1.2e-38.

    Example:
        >>> per_image_loss(np.array([[0.5, 0.5]]), np.array([1])).round(3).tolist()
        [0.693]
    """
    true_probability = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(true_probability, _MIN_PROBABILITY))


def margins(probabilities: Array, labels: Integers) -> Array:
    """The probability of the true class minus the highest other probability, float64 ``[N]``.

    The margin of a wrong prediction is negative, or 0 in a tie.
    """
    rows = np.arange(len(labels))
    true_probability = probabilities[rows, labels].astype(np.float64)
    others = probabilities.copy()  # not converted to float64, to save memory
    others[rows, labels] = -np.inf
    return true_probability - others.max(axis=1)


def reliability(confidence: Array, correct: Booleans, bins: int = CALIBRATION_BINS) -> Reliability:
    """Reliability diagram and expected calibration error, in the bins (0, 1/bins], (1/bins, 2/bins], ….

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", 2017.
    """
    bin_of_image = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of_image, minlength=bins)
    confidence_sum = np.bincount(bin_of_image, weights=confidence, minlength=bins)
    correct_sum = np.bincount(bin_of_image, weights=correct, minlength=bins)
    ece = float(np.abs(confidence_sum - correct_sum).sum() / max(1, len(confidence)))
    return Reliability(counts, _ratio(confidence_sum, counts), _ratio(correct_sum, counts), ece)


def fit_temperature(probabilities: Array, labels: Integers) -> float:
    """The T > 0 that minimises the cross-entropy of softmax(log p / T) (Guo et al. 2017).

    The cross-entropy is convex in 1/T. Its minimum is found by Newton's method, with bisection where a
    step would leave the interval that contains the minimum.

    If there is no minimum between T = 0.05 and T = 20, for example because every prediction is correct,
    1.0 is returned, which changes no probability.
    """
    logits = _logits(probabilities)
    true_logit = logits[np.arange(len(labels)), labels]
    low, high = 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE
    if (
        _slope_and_curvature(logits, true_logit, low)[0] >= 0
        or _slope_and_curvature(logits, true_logit, high)[0] <= 0
    ):
        return 1.0
    inverse = 1.0
    for _ in range(_NEWTON_STEPS):
        slope, curvature = _slope_and_curvature(logits, true_logit, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        # Without curvature there is no Newton step. `low` makes the next line choose bisection.
        newton = inverse - slope / curvature if curvature > 0 else low
        next_inverse = newton if low < newton < high else (low + high) / 2
        if abs(next_inverse - inverse) <= 1e-9 * inverse:
            break
        inverse = next_inverse
    return 1.0 / inverse


def fit_weights(label_probabilities: Array) -> Array:
    """The weights, float64 ``[M]``, that give the mean of M models the lowest cross-entropy.

    The weights are at least 0 and add up to 1. They are found by expectation maximization for a mixture
    of fixed distributions. No step raises the cross-entropy, which is convex in the weights.

    Args:
        label_probabilities: float ``[M, N]``, each model's probability for the label of each image.

    Example:
        >>> good, bad = [0.9, 0.8, 0.9], [0.3, 0.2, 0.1]
        >>> fit_weights(np.array([good, bad])).round(2).tolist()
        [1.0, 0.0]
    """
    probabilities = np.maximum(label_probabilities.astype(np.float64), _MIN_PROBABILITY)
    weights = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(_WEIGHT_STEPS):
        joint = weights[:, None] * probabilities
        new = (joint / joint.sum(axis=0)).mean(axis=1)
        if np.abs(new - weights).max() < _WEIGHT_TOLERANCE:
            return new
        weights = new
    return weights


def scale_probabilities(probabilities: Array, temperature: float) -> Array:
    """softmax(log p / T), float64 ``[N, K]``; the order of the classes in each row does not change.

    Example:
        >>> scale_probabilities(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    return _softmax(_logits(probabilities) / temperature)


def rejection_threshold(
    confidence: Array, correct: Booleans, precision: float
) -> RejectionThreshold | None:
    """The lowest threshold at which the accepted predictions have at least this ``precision``.

    Args:
        confidence, correct: as described at the top of this module.
        precision: wanted fraction of correct predictions among the accepted predictions, in [0, 1].

    Returns:
        The threshold, or None if no threshold reaches the precision.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, num_correct = confidence[order], np.cumsum(correct[order])
    num_kept = np.arange(1, len(ranked) + 1)
    # Predictions of equal confidence are accepted or rejected together.
    is_last_of_tie = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    # The comparison ``num_correct >= precision * num_kept`` would be wrong where the product is rounded
    # up: in float64, 0.55 * 100 is above 55.
    reached = np.flatnonzero(is_last_of_tie & (num_correct / num_kept >= precision))
    if not reached.size:
        return None
    last = int(reached[-1])
    return RejectionThreshold(float(ranked[last]), last + 1, int(num_correct[last]))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided p-value of McNemar's test (1947) that two classifiers have the same error rate.

    A discordant image is one that only one of the classifiers predicts correctly. With fewer than 25
    discordant images, the test is the exact binomial test. With 25 or more, it is the chi-square test
    with the continuity correction of Edwards (1948).

    Args:
        only_a: number of images that only classifier A predicts correctly.
        only_b: number of images that only classifier B predicts correctly.

    Example:
        >>> round(mcnemar_p(5, 20), 4)
        0.0051
    """
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    if discordant < _EXACT_MCNEMAR_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(fewer + 1)) / 2**discordant
        return min(1.0, 2 * tail)
    chi_square = max(0, abs(only_a - only_b) - 1) ** 2 / discordant
    return math.erfc(math.sqrt(chi_square / 2))


def _ratio(part: npt.NDArray, whole: npt.NDArray) -> Array:
    """``part / whole`` in float64, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _logits(probabilities: Array) -> Array:
    return np.log(np.maximum(probabilities.astype(np.float64), _MIN_PROBABILITY))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _slope_and_curvature(logits: Array, true_logit: Array, inverse: float) -> tuple[float, float]:
    """First two derivatives of the mean cross-entropy with respect to 1/T, at 1/T = ``inverse``."""
    weights = _softmax(logits * inverse)
    mean = (weights * logits).sum(axis=1)
    variance = (weights * logits**2).sum(axis=1) - mean**2
    return float((mean - true_logit).mean()), float(variance.mean())
