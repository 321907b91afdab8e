"""What a classifier's answers are worth: counts, rates, calibration, comparison; NumPy only.

Throughout, ``labels`` and ``predictions`` are int ``[N]`` indices of K classes, ``probabilities`` is
float ``[N, K]`` with rows that sum to 1, ``confidence`` is float ``[N]``, the highest of a row, and
``correct`` is bool ``[N]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "CALIBRATION_BINS",
    "ClassScores",
    "Confusion",
    "RejectRule",
    "Reliability",
    "class_scores",
    "confusion_matrix",
    "fit_temperature",
    "macro_f1",
    "margins",
    "mcnemar_p",
    "most_confused",
    "paired_difference_interval",
    "per_image_loss",
    "rejection_threshold",
    "reliability",
    "scale_probabilities",
]

CALIBRATION_BINS = 15
_TEMPERATURES = (0.05, 20.0)
_Z_95 = 1.959963984540054
# the smallest positive float32: the logarithm of a probability that underflowed stays finite
_LEAST = float(np.finfo(np.float32).tiny)

Array = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassScores:
    """Of every class: float64 ``[K]`` in [0, 1], NaN where 0/0; ``support``, its images, int64."""

    precision: Array
    recall: Array
    f1: Array
    support: Integers


@dataclass(frozen=True)
class Confusion:
    """``count`` images of class ``true`` were taken for ``predicted`` (class indices)."""

    true: int
    predicted: int
    count: int


@dataclass(frozen=True)
class Reliability:
    """Stated confidence against the share that was right, in equal-width bins of confidence.

    Attributes:
        counts: int64 ``[bins]``.
        confidence, accuracy: float64 ``[bins]``, means of a bin in [0, 1], NaN where it is empty.
        ece: expected calibration error in [0, 1], 0 where statement and truth agree.
    """

    counts: Integers
    confidence: Array
    accuracy: Array
    ece: float


@dataclass(frozen=True)
class RejectRule:
    """Keep an answer when its confidence is at least ``threshold``.

    Attributes:
        threshold: confidence in [0, 1].
        kept: how many of the N answers that keeps.
        kept_correct: how many of these are right.
    """

    threshold: float
    kept: int
    kept_correct: int


def confusion_matrix(labels: Integers, predictions: Integers, num_classes: int) -> Integers:
    """Counts int64 ``[K, K]``: row the true class, column the predicted one."""
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: Integers) -> ClassScores:
    """Precision, recall, F1 and support of every class of a confusion matrix ``[K, K]``."""
    hits, support, claimed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return ClassScores(
        precision=_ratio(hits, claimed),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + claimed),
        support=support,
    )


def macro_f1(scores: ClassScores) -> float:
    """The mean F1 of the classes that occur, as truth or as answer; NaN when none does."""
    known = scores.f1[~np.isnan(scores.f1)]
    return float(known.mean()) if known.size else math.nan


def most_confused(confusion: Integers, limit: int) -> list[Confusion]:
    """The ``limit`` largest counts off the diagonal, largest first, ties in class order."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, wrong.shape)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [
        Confusion(row, column, int(wrong[row, column]))
        for row, column in pairs
        if wrong[row, column]
    ]


def per_image_loss(probabilities: Array, labels: Integers) -> Array:
    """Cross-entropy of every image in nats, float64 ``[N]``; at most 87.3 (float32's least)."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(own, _LEAST))


def margins(probabilities: Array, labels: Integers) -> Array:
    """The true class's probability less the best other one's, float64 ``[N]``; below 0 is a mistake."""
    rows = np.arange(len(labels))
    others = probabilities.astype(np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return own - others.max(axis=1)


def reliability(confidence: Array, correct: Booleans, bins: int = CALIBRATION_BINS) -> Reliability:
    """Reliability diagram and expected calibration error, in bins (0, 1/bins], … of equal width.

    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", 2017.
    """
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    stated = np.bincount(which, weights=confidence, minlength=bins)
    right = np.bincount(which, weights=correct, minlength=bins)
    ece = float(np.abs(stated - right).sum() / max(1, len(confidence)))
    return Reliability(counts, _ratio(stated, counts), _ratio(right, counts), ece)


def fit_temperature(probabilities: Array, labels: Integers) -> float:
    """The T > 0 for which softmax(log p / T) has the least cross-entropy (Guo et al. 2017).

    The loss is convex in 1/T, so its slope is followed to zero: Newton's steps, halving where one
    would leave the bracket. Where the least lies outside 0.05 to 20, as when every image is right,
    the images say nothing about calibration and 1.0 (no change) is returned.
    """
    logits = _logits(probabilities)
    own = logits[np.arange(len(labels)), labels]
    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    if _slope(logits, own, low)[0] >= 0 or _slope(logits, own, high)[0] <= 0:
        return 1.0
    sharpness = 1.0
    for _ in range(60):
        slope, curvature = _slope(logits, own, sharpness)
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = sharpness - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - sharpness) <= 1e-9 * sharpness:
            break
        sharpness = following
    return 1.0 / sharpness


def scale_probabilities(probabilities: Array, temperature: float) -> Array:
    """softmax(log p / T), float64 ``[N, K]``; the order of a row's classes stays."""
    return _softmax(_logits(probabilities) / temperature)


def rejection_threshold(
    confidence: Array, correct: Booleans, precision: float
) -> RejectRule | None:
    """The lowest threshold that keeps answers of which a share ``precision`` is right.

    None where no threshold does. The same confidence is never kept for one image and refused for
    another.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(correct[order])
    kept = np.arange(1, len(ranked) + 1)
    last_of_its_value = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    good = np.flatnonzero(last_of_its_value & (right >= precision * kept))
    if not good.size:
        return None
    last = int(good[-1])
    return RejectRule(float(ranked[last]), last + 1, int(right[last]))


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Two-sided p of McNemar's test (1947) that two classifiers err equally often.

    Exact binomial below 25 discordant images, else chi-square with Edwards' correction (1948).

    Args:
        only_a, only_b: images that only the one, or only the other, answers rightly.
    """
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    if discordant < 25:
        tail = sum(math.comb(discordant, k) for k in range(fewer + 1)) / 2**discordant
        return min(1.0, 2 * tail)
    chi_square = max(0, abs(only_a - only_b) - 1) ** 2 / discordant
    return math.erfc(math.sqrt(chi_square / 2))


def paired_difference_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """95 % interval of accuracy B less accuracy A on the same ``n`` images, within [-1, 1].

    A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    2005: Wald's interval after half an image is added to each of the four cells.
    """
    a, b, total = only_a + 0.5, only_b + 0.5, n + 2.0
    middle = (b - a) / total
    half = _Z_95 * math.sqrt(a + b - (b - a) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _ratio(part: npt.NDArray, whole: npt.NDArray) -> Array:
    """``part / whole`` in float64, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _logits(probabilities: Array) -> Array:
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _slope(logits: Array, own: Array, sharpness: float) -> tuple[float, float]:
    """First and second derivative of the mean cross-entropy with respect to 1/T."""
    weights = _softmax(logits * sharpness)
    mean = (weights * logits).sum(axis=1)
    spread = (weights * logits**2).sum(axis=1) - mean**2
    return float((mean - own).mean()), float(spread.mean())
