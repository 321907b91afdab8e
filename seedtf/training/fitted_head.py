"""A head that is fitted at once, as a logistic regression on the features of a frozen network.

scikit-learn is imported inside the functions: it is an extra, and takes a second.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seedtf.data.dataset import Dataset
from seedtf.data.pipeline import eval_dataset
from seedtf.data.stratify import assign_groups
from seedtf.errors import UserError, missing_sklearn
from seedtf.model.network import HEAD, pooled_body
from seedtf.report import is_silent, report

__all__ = [
    "STRENGTHS",
    "LinearHead",
    "Standardization",
    "check_sklearn",
    "fit_head",
    "one_blas_thread",
    "start_from_fitted_head",
]

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
"""The values of scikit-learn's C, the inverse strength of the penalty, from which one is chosen."""

_INNER_FRACTION, _BATCH_SIZE = 0.2, 64
# On 3,200 images with 1,280 features, a tenth of this tolerance took 3 times the steps and changed the
# accuracy by less than 0.002.
_TOLERANCE, _MAX_STEPS = 1e-3, 200
# The bias of a class without training images, relative to the lowest other one: it is never predicted.
_UNSEEN = 30.0


@dataclass(frozen=True)
class Standardization:
    """Subtracts the mean of each feature and divides by its standard deviation, float32 ``[D]``."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Standardization:
        """The statistics of ``features``, float32 ``[n, D]``; a constant feature is not divided."""
        deviation = features.std(axis=0, dtype=np.float64)
        deviation = np.where(deviation > 1e-12, deviation, 1.0)
        mean = features.mean(axis=0, dtype=np.float64)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 ``[n, D]``, standardized."""
        return (features - self.mean) / self.deviation


@dataclass(frozen=True)
class LinearHead:
    """The weights of a dense layer from D features to the logits of K classes.

    Attributes:
        kernel: float32 ``[D, K]``, for features that are not standardized.
        bias: float32 ``[K]``.
        strength: scikit-learn's C that was chosen.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 ``[n, D]`` → float32 ``[n, K]``."""
        return features @ self.kernel + self.bias


def check_sklearn(wanted: str) -> None:
    """Raises UserError, which names the flag or command ``wanted``, if scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise missing_sklearn(wanted)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Makes NumPy's matrix products use one thread.

    The products of a head are small: on 2 cores that other processes used too, 20 steps took 3.6
    seconds of CPU time with two threads, which wait for each other, and 0.24 with one.
    """
    import threadpoolctl  # noqa: PLC0415  a dependency of scikit-learn

    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


def fit_head(
    features: np.ndarray, labels: np.ndarray, together: np.ndarray, num_classes: int, seed: int = 0
) -> LinearHead:
    """Fits a multinomial logistic regression with an L2 penalty on standardized features.

    The strength of the penalty is the one of ``STRENGTHS`` with the highest accuracy on a fifth of the
    images, on which the others were fitted; of equal ones the strongest penalty. The head is then
    fitted on all.

    Args:
        features: float32 ``[n, D]``.
        labels: int ``[n]``, with two classes or more.
        together: int64 ``[n]``, groups that are not divided between the fifth and the rest.
        num_classes: K; a class without images is never predicted.
        seed: decides which images are in the fifth.

    Raises:
        UserError: scikit-learn is not installed, or a feature is NaN or infinite.

    Example:
        >>> features = np.array([[0.0, 5], [1, 5], [2, 5], [7, 5], [8, 5], [9, 5]], np.float32)
        >>> head = fit_head(features, np.array([0, 0, 0, 1, 1, 1]), np.arange(6), 2)
        >>> head.logits(features).argmax(axis=1).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    check_sklearn("a fitted head")
    if not np.isfinite(features).all():
        raise UserError("the features are not all numbers; pass other weights")
    with one_blas_thread():
        strength = _choose_strength(features, labels, together, seed)
        standardize = Standardization.of(features)
        model = _Regression()
        model.fit(standardize(features), labels, strength)
    kernel = np.zeros((features.shape[1], num_classes))
    bias = np.full(num_classes, model.bias.min() - _UNSEEN)
    kernel[:, model.classes] = model.kernel / standardize.deviation[:, None]
    bias[model.classes] = model.bias - standardize.mean @ kernel[:, model.classes]
    return LinearHead(kernel.astype(np.float32), bias.astype(np.float32), strength)


def start_from_fitted_head(network: keras.Model, dataset: Dataset, seed: int) -> LinearHead:
    """Fits the head of ``network`` on its features of the training images, which are not augmented.

    Args:
        network: from ``build_network``; its head is replaced.
        dataset: the images; those of training are read once.
        seed: root seed of the run.
    """
    records = dataset.split.train
    labels = dataset.store.catalog.labels[records]
    batches = eval_dataset(dataset.store, records, _BATCH_SIZE)
    body = pooled_body(network)

    @tf.function(autograph=False, reduce_retracing=True)
    def embed(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(body(images, training=False), tf.float32)

    steps, hidden = math.ceil(len(records) / _BATCH_SIZE), is_silent() or None
    bar = tqdm(batches, "fitting the head", steps, unit="batch", disable=hidden, leave=False)
    features = np.concatenate([embed(images).numpy() for images, _ in bar])
    head = fit_head(
        features, labels, dataset.together[records], len(dataset.store.catalog.class_names), seed
    )
    network.get_layer(HEAD).set_weights([head.kernel, head.bias])
    right = int((head.logits(features).argmax(axis=1) == labels).sum())
    report(
        "head",
        f"fitted on {len(records):,} images without augmentation (C={head.strength:g}); right for "
        f"{right / len(records):.4f} of them",
    )
    return head


def _choose_strength(
    features: np.ndarray, labels: np.ndarray, together: np.ndarray, seed: int
) -> float:
    rng = np.random.default_rng([seed, 0, 3])
    shares = [1 - _INNER_FRACTION, _INNER_FRACTION]
    held_out = assign_groups(labels, together, shares, rng, needed=(0,)) == 1
    fitted = ~held_out
    if not held_out.any() or len(np.unique(labels[fitted])) < 2:
        return STRENGTHS[len(STRENGTHS) // 2]  # too few images for a choice
    standardize = Standardization.of(features[fitted])
    train, test = standardize(features[fitted]), standardize(features[held_out])
    model, right = _Regression(), []
    for strength in STRENGTHS:
        model.fit(train, labels[fitted], strength)  # starts from the fit before
        right.append(int((model.predict(test) == labels[held_out]).sum()))
    return STRENGTHS[int(np.argmax(right))]


class _Regression:
    """scikit-learn's logistic regression; two classes have one logit each, as more classes do."""

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  an extra

        self._model: Any = LogisticRegression(max_iter=_MAX_STEPS, tol=_TOLERANCE, warm_start=True)

    def fit(self, features: np.ndarray, labels: np.ndarray, strength: float) -> None:
        self._model.set_params(C=strength)
        with warnings.catch_warnings():  # a head that has not converged is used as it is
            warnings.filterwarnings("ignore", message=".*failed to converge")
            self._model.fit(features, labels)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict(features))

    @property
    def classes(self) -> np.ndarray:
        return np.asarray(self._model.classes_)

    @property
    def kernel(self) -> np.ndarray:
        """float ``[D, classes]``."""
        weights = np.asarray(self._model.coef_.T, np.float64)
        return np.hstack([-weights / 2, weights / 2]) if weights.shape[1] == 1 else weights

    @property
    def bias(self) -> np.ndarray:
        """float ``[classes]``."""
        bias = np.asarray(self._model.intercept_, np.float64)
        return np.concatenate([-bias / 2, bias / 2]) if len(bias) == 1 else bias
