"""Cross-validates two classifiers on the features of a frozen network.

The classifiers are the head that ``training.fitted_head`` fits and k nearest neighbours. Each image is
predicted by classifiers that were fitted on the folds without this image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from seedtf.report import is_silent
from seedtf.training.fitted_head import FeatureScaling, LinearHead, fit_head, one_blas_thread

__all__ = ["NEIGHBOURS", "OutOfFold", "predict_out_of_fold"]

NEIGHBOURS = 5
"""The number of neighbours that vote, each weighted by the inverse of its cosine distance."""


@dataclass(frozen=True)
class OutOfFold:
    """The predictions for n images, each by classifiers that were fitted without the image's fold.

    Attributes:
        linear: int64 ``[n]``, the class that the fitted head predicts for each image.
        neighbours: int64 ``[n]``, the class that the nearest neighbours predict.
        losses: float64 ``[n]``, the cross-entropy of the fitted head in nats.
        heads: for each fold, the head that was fitted on the other folds.
    """

    linear: np.ndarray
    neighbours: np.ndarray
    losses: np.ndarray
    heads: Sequence[LinearHead]


def predict_out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    groups: np.ndarray,
    *,
    num_classes: int,
    seed: int,
) -> OutOfFold:
    """For each fold, fits both classifiers on the other folds and predicts the images of the fold.

    The scaling of the features (``FeatureScaling``) and the strength of the penalty are determined on
    the other folds, too, without the images to predict.

    Args:
        features: float32 ``[n, D]``.
        labels: int ``[n]``.
        folds: int64 ``[n]``, the fold of each image, from 0.
        groups: int64 ``[n]``, the group of each image; all images of a group are in one fold.
        num_classes: K.
        seed: decides which images are held out to choose the strength of the penalty.
    """
    num_folds = int(folds.max()) + 1
    linear, neighbours = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)
    losses = np.empty(len(labels))

    def fit_and_predict(fold: int) -> LinearHead:
        is_test, is_train = folds == fold, folds != fold
        train_features, train_labels = features[is_train], labels[is_train]
        head = fit_head(train_features, train_labels, groups[is_train], num_classes, seed)
        logits = head.logits(features[is_test]).astype(np.float64)
        linear[is_test] = logits.argmax(axis=1)
        losses[is_test] = _cross_entropy(logits, labels[is_test])
        neighbours[is_test] = _predict_by_neighbours(
            train_features, train_labels, features[is_test]
        )
        return head

    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        heads = list(
            tqdm(
                pool.map(fit_and_predict, range(num_folds)),
                "fitting",
                num_folds,
                unit="fold",
                disable=is_silent() or None,  # None hides the bar unless stderr is a terminal.
                leave=False,
            )
        )
    return OutOfFold(linear, neighbours, losses, heads)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each row of ``logits`` in nats, float64 ``[n]``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def _predict_by_neighbours(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class of each row of ``test``, int64 ``[n]``, by a vote of its neighbours in ``train``."""
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415  an optional package

    scale = FeatureScaling.of(train)
    k = min(NEIGHBOURS, len(train))
    model = KNeighborsClassifier(k, metric="cosine", weights="distance")
    return np.asarray(model.fit(scale(train), labels).predict(scale(test)))
