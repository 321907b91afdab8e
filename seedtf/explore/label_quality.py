"""How much the given label of each image can be trusted, by predictions of models that did not see it.

C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021.
The formulas are those of cleanlab, which the tests compare; the package itself is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["OutOfFold", "likely_wrong", "predict_out_of_fold", "self_confidence"]

_FOLDS = 5
# The share of the scaled identity in the covariance. Measured on the seedlings with 5 % wrong labels:
# 0.1 and 0.3 find the most of them, 0.03 two points and 0.01 eight points less.
_SHRINKAGE = 0.1


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The probability of the given label of each image, float ``[N]``: low where it may be wrong.

    Args:
        labels: int ``[N]``.
        probabilities: float ``[N, K]``, of models that did not train on the image.
    """
    return np.take_along_axis(probabilities, labels[:, None].astype(np.int64), axis=1)[:, 0]


def likely_wrong(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Which labels confident learning holds for wrong: bool ``[N]``.

    A class is confident for an image if its probability is at least the mean of that probability over
    the images with that label. A label is likely wrong if another class is confident, and the most
    probable class is another one, too.

    Args:
        labels: int ``[N]``.
        probabilities: float ``[N, K]``, of models that did not train on the image.

    Example:
        >>> rows = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9]]
        >>> likely_wrong(np.array([0, 0, 1, 1]), np.array(rows)).tolist()
        [False, True, False, False]
    """
    num_classes = probabilities.shape[1]
    own = self_confidence(labels, probabilities)
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    means = np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)
    confident = probabilities >= means - 1e-6
    most_probable = probabilities.argmax(axis=1)
    guess = np.where(confident.sum(axis=1) > 1, most_probable, confident.argmax(axis=1))
    return confident.any(axis=1) & (guess != labels) & (most_probable != labels)


@dataclass(frozen=True)
class OutOfFold:
    """Answers of linear classifiers on features, each of which did not train on the image.

    Attributes:
        probabilities: float64 ``[N, K]``.
        folds: int64 ``[N]``, the classifier of each image.
        kernels: float64 ``[F, D, K]``; the logits are ``features · kernel`` plus a bias.
    """

    probabilities: np.ndarray
    folds: np.ndarray
    kernels: np.ndarray


def predict_out_of_fold(
    features: np.ndarray, labels: np.ndarray, num_classes: int, groups: np.ndarray, seed: int = 0
) -> OutOfFold:
    """Predicts every image by a linear discriminant analysis of four fifths of the others.

    It is fitted in one step, and with a shrunken covariance (as ``LinearDiscriminantAnalysis`` of
    scikit-learn with ``solver="lsqr", shrinkage=0.1``) it needs no setting.

    Args:
        features: float ``[N, D]``.
        labels: int ``[N]``.
        num_classes: K.
        groups: int64 ``[N]``, images that must be in one fold, such as near duplicates.
        seed: of the division into folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(100) % 2
        >>> features = rng.normal(labels, 0.2, (3, 100)).T
        >>> answers = predict_out_of_fold(features, labels, 2, np.arange(100))
        >>> bool((answers.probabilities.argmax(1) == labels).all())
        True
    """
    folds = _divide(labels, groups, seed)
    values = features.astype(np.float64)
    probabilities = np.zeros((len(labels), num_classes))
    kernels = np.zeros((_FOLDS, values.shape[1], num_classes))
    for fold in range(_FOLDS):
        train, rest = folds != fold, folds == fold
        kernels[fold], bias = _discriminant(values[train], labels[train], num_classes)
        logits = values[rest] @ kernels[fold] + bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        probabilities[rest] = powers / powers.sum(axis=1, keepdims=True)
    return OutOfFold(probabilities, folds, kernels)


def _divide(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each image, int64 ``[N]``: the groups of each class are dealt out in random order."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(first)), labels[first]))
    dealt = np.empty(len(first), np.int64)
    dealt[order] = np.arange(len(first)) % _FOLDS
    return dealt[inverse]


def _discriminant(
    values: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``[D, K]`` and bias ``[K]``; a class without images has a bias of minus infinity."""
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.zeros((num_classes, values.shape[1]))
    np.add.at(sums, labels, values)
    means = sums / np.maximum(counts, 1)[:, None]
    centered = values - means[labels]
    covariance = centered.T @ centered / len(values)
    covariance *= 1 - _SHRINKAGE
    mean_variance = np.trace(covariance) / (1 - _SHRINKAGE) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += _SHRINKAGE * mean_variance + 1e-12
    kernel = np.linalg.solve(covariance, means.T)
    with np.errstate(divide="ignore"):
        prior = np.log(counts / len(values))
    return kernel, prior - 0.5 * (means.T * kernel).sum(axis=0)
