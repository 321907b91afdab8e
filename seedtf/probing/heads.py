"""Two classifiers on frozen features, each predicting the images of a fold that it has not seen.

One is the head that ``training.fitted_head`` fits, the other one is k nearest neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from seedtf.report import is_silent
from seedtf.training.fitted_head import LinearHead, Standardization, fit_head, one_blas_thread

__all__ = ["NEIGHBOURS", "OutOfFold", "predict_out_of_fold"]

NEIGHBOURS = 5
"""Number of neighbours that vote, each with the inverse of its cosine distance as weight."""


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of n images, each by a classifier that was fitted on the other folds.

    Attributes:
        linear: int64 ``[n]``, the classes that the fitted heads predict.
        neighbours: int64 ``[n]``, those of the nearest neighbours.
        losses: float64 ``[n]``, the cross-entropy of the fitted heads in nats.
        heads: the fitted head of each fold.
    """

    linear: np.ndarray
    neighbours: np.ndarray
    losses: np.ndarray
    heads: Sequence[LinearHead]


def predict_out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    together: np.ndarray,
    *,
    num_classes: int,
    seed: int,
) -> OutOfFold:
    """Fits both classifiers once for each fold, on the images of the other folds alone.

    Mean, standard deviation and the strength of the penalty come from these images as well.

    Args:
        features: float32 ``[n, D]``.
        labels: int ``[n]``.
        folds: int64 ``[n]``, from 0.
        together: int64 ``[n]``, groups that no fold divides.
        num_classes: K.
        seed: decides on which images the strength of the penalty is chosen.
    """
    count = int(folds.max()) + 1
    linear, neighbours = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)
    losses = np.empty(len(labels))

    def fit(fold: int) -> LinearHead:
        test, train = folds == fold, folds != fold
        head = fit_head(features[train], labels[train], together[train], num_classes, seed)
        logits = head.logits(features[test]).astype(np.float64)
        linear[test], losses[test] = logits.argmax(axis=1), _cross_entropy(logits, labels[test])
        neighbours[test] = _vote(features[train], labels[train], features[test])
        return head

    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        hidden = is_silent() or None
        bar = tqdm(
            pool.map(fit, range(count)), "fitting", count, unit="fold", disable=hidden, leave=False
        )
        heads = list(bar)
    return OutOfFold(linear, neighbours, losses, heads)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def _vote(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class of each row of ``test`` by its neighbours in ``train``: int64 ``[n]``."""
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415  an extra

    standardize = Standardization.of(train)
    count = min(NEIGHBOURS, len(train))
    model = KNeighborsClassifier(count, metric="cosine", weights="distance")
    return np.asarray(model.fit(standardize(train), labels).predict(standardize(test)))
