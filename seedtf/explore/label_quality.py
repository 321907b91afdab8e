"""Finds labels that are probably wrong, from predictions by models that did not train on the images.

C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021.
The formulas are those of the package cleanlab. seedtf does not need cleanlab, except that the tests
compare the results.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seedtf.data.stratify import assign_equal_folds

__all__ = ["OutOfFold", "cross_val_predict", "find_wrong_labels", "self_confidence"]

_NUM_FOLDS = 5
# The weight of the scaled identity matrix in the shrunken covariance. On the seedlings, 5 % of whose
# labels were made wrong, 0.1 and 0.3 found the most wrong labels. 0.03 found 2 percentage points fewer,
# and 0.01 found 8 percentage points fewer.
_SHRINKAGE = 0.1


def self_confidence(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The predicted probability of each image's label, float ``[N]``; low if the label may be wrong.

    Args:
        labels: int ``[N]``.
        probabilities: float ``[N, K]``, of models that did not train on the image.
    """
    return np.take_along_axis(probabilities, labels[:, None].astype(np.int64), axis=1)[:, 0]


def find_wrong_labels(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether each label is wrong according to confident learning, bool ``[N]``.

    A class is confident for an image if its probability is at least its mean probability over the
    images that have this class as label. A label is wrong if a class other than the label is confident,
    and the most probable class is not the label either.

    Args:
        labels: int ``[N]``.
        probabilities: float ``[N, K]``, of models that did not train on the image.

    Example:
        >>> rows = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9]]
        >>> find_wrong_labels(np.array([0, 0, 1, 1]), np.array(rows)).tolist()
        [False, True, False, False]
    """
    num_classes = probabilities.shape[1]
    label_probabilities = self_confidence(labels, probabilities)
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=label_probabilities, minlength=num_classes)
    means = np.divide(sums, counts, out=np.full(num_classes, np.inf), where=counts > 0)
    is_confident = probabilities >= means - 1e-6  # a tolerance for rounding errors
    most_probable = probabilities.argmax(axis=1)
    guess = np.where(is_confident.sum(axis=1) > 1, most_probable, is_confident.argmax(axis=1))
    return is_confident.any(axis=1) & (guess != labels) & (most_probable != labels)


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of N images, each by a linear classifier that was fitted without the image.

    Attributes:
        probabilities: float64 ``[N, K]``.
        folds: int64 ``[N]``, the index of the classifier that predicted the image.
        kernels: float64 ``[F, D, K]``, the kernel of each of the F classifiers, whose logits are
            ``features @ kernel + bias``.
    """

    probabilities: np.ndarray
    folds: np.ndarray
    kernels: np.ndarray


def cross_val_predict(
    features: np.ndarray, labels: np.ndarray, num_classes: int, groups: np.ndarray, seed: int = 0
) -> OutOfFold:
    """Predicts each fifth of the images by a linear discriminant analysis of the other four fifths.

    The results equal those of scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr",
    shrinkage=0.1)``. The analysis has a closed form and no parameters except the shrinkage.

    Args:
        features: float ``[N, D]``.
        labels: int ``[N]``.
        num_classes: K.
        groups: int64 ``[N]``; images of the same group, such as near duplicates, are in one fold.
        seed: the seed of the division into folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(100) % 2
        >>> features = rng.normal(labels, 0.2, (3, 100)).T
        >>> predictions = cross_val_predict(features, labels, 2, np.arange(100))
        >>> bool((predictions.probabilities.argmax(1) == labels).all())
        True
    """
    folds = assign_equal_folds(labels, groups, _NUM_FOLDS, np.random.default_rng(seed))
    values = features.astype(np.float64)
    probabilities = np.zeros((len(labels), num_classes))
    kernels = np.zeros((_NUM_FOLDS, values.shape[1], num_classes))
    for fold in range(_NUM_FOLDS):
        is_train, is_test = folds != fold, folds == fold
        kernels[fold], bias = _fit_discriminant(values[is_train], labels[is_train], num_classes)
        logits = values[is_test] @ kernels[fold] + bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        probabilities[is_test] = powers / powers.sum(axis=1, keepdims=True)
    return OutOfFold(probabilities, folds, kernels)


def _fit_discriminant(
    values: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel ``[D, K]`` and bias ``[K]``; the bias of a class without images is -infinity."""
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.zeros((num_classes, values.shape[1]))
    np.add.at(sums, labels, values)
    means = sums / np.maximum(counts, 1)[:, None]
    centered = values - means[labels]
    covariance = centered.T @ centered / len(values)
    covariance *= 1 - _SHRINKAGE
    # The mean variance of the features before the shrinkage, which has scaled the covariance above.
    mean_variance = np.trace(covariance) / (1 - _SHRINKAGE) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += _SHRINKAGE * mean_variance + 1e-12
    kernel = np.linalg.solve(covariance, means.T)
    with np.errstate(divide="ignore"):
        prior = np.log(counts / len(values))
    return kernel, prior - 0.5 * (means.T * kernel).sum(axis=0)
