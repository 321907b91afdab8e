"""Fits the head of a network as a logistic regression on the features of its frozen body.

scikit-learn is imported inside the functions, because the package is optional and its import takes a
second.
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
    "C_VALUES",
    "FeatureScaling",
    "LinearHead",
    "check_sklearn",
    "fit_head",
    "one_blas_thread",
    "start_from_fitted_head",
]

C_VALUES = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
"""The candidates for scikit-learn's C, the inverse of the strength of the penalty."""

_HELD_OUT_FRACTION, _BATCH_SIZE = 0.2, 64
# The arguments tol and max_iter of scikit-learn. On 3,200 images with 1,280 features, a tenth of this
# tolerance took 3 times as many steps and changed the accuracy by less than 0.002.
_TOLERANCE, _MAX_STEPS = 1e-3, 200
# The bias of a class without training images is this much below the lowest bias of the other classes on
# scaled features, so that the class is never predicted.
_UNSEEN_MARGIN = 30.0


@dataclass(frozen=True)
class FeatureScaling:
    """Scales features: subtracts the mean of each and divides all by one number, a typical deviation.

    If each feature were divided by its own standard deviation, features that hardly vary would count as
    much as the others. On photographs of 12 species, logistic regression and nearest neighbours were
    then up to 2 percentage points less accurate (``scripts/measured/recipe.md``).

    Attributes:
        mean: float32 ``[D]``.
        deviation: the median of the standard deviations of the features that are not constant.
    """

    mean: np.ndarray
    deviation: float

    @classmethod
    def of(cls, features: np.ndarray) -> FeatureScaling:
        """Computes mean and deviation of ``features``, float32 ``[n, D]``.

        If all features are constant, the deviation is 1.
        """
        deviations = features.std(axis=0, dtype=np.float64)
        varying = deviations[deviations > 1e-12]
        mean = features.mean(axis=0, dtype=np.float64)
        return cls(mean.astype(np.float32), float(np.median(varying)) if varying.size else 1.0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the scaled ``features``, float32 ``[n, D]``."""
        return (features - self.mean) / np.float32(self.deviation)


@dataclass(frozen=True)
class LinearHead:
    """The weights of a dense layer from D features to the logits of K classes.

    Attributes:
        kernel: float32 ``[D, K]``; it includes the scaling, so it applies to raw features.
        bias: float32 ``[K]``.
        inverse_strength: the value of ``C_VALUES`` with which the head was fitted.
    """

    kernel: np.ndarray
    bias: np.ndarray
    inverse_strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns the logits, float32 ``[n, K]``, for ``features``, float32 ``[n, D]``."""
        return features @ self.kernel + self.bias


def check_sklearn(needed_by: str) -> None:
    """Raises UserError for the flag or command ``needed_by`` if scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise missing_sklearn(needed_by)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the ``with`` block, NumPy's matrix products use one thread.

    The matrices of a head are small, so several threads mostly wait for each other. On 2 cores that
    other processes used too, 20 steps took 3.6 seconds of CPU time with two threads and 0.24 with one.
    """
    import threadpoolctl  # noqa: PLC0415  a dependency of scikit-learn

    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


def fit_head(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int, seed: int = 0
) -> LinearHead:
    """Fits a multinomial logistic regression with an L2 penalty on features of ``FeatureScaling``.

    To choose the strength of the penalty, about a fifth of the images is held out. For each value of
    ``C_VALUES``, a head is fitted on the other images. The value with the highest accuracy on the
    held-out images is chosen; of equally good values, the one with the strongest penalty. With the
    chosen value, the head is fitted on all images. If there are too few images to hold some out, a
    middle value of ``C_VALUES`` is taken.

    Args:
        features: float32 ``[n, D]``.
        labels: int ``[n]``, with two classes or more.
        groups: int64 ``[n]``, the group of each image; a group is held out as a whole or not at all.
        num_classes: K; a class without images is never predicted.
        seed: decides which images are held out.

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
        raise UserError(
            "--weights: these weights give NaN or infinite features; pass other weights"
        )
    with one_blas_thread():
        inverse_strength = _choose_inverse_strength(features, labels, groups, seed)
        scale = FeatureScaling.of(features)
        model = _Regression()
        model.fit(scale(features), labels, inverse_strength)
    kernel = np.zeros((features.shape[1], num_classes))
    bias = np.full(num_classes, model.bias.min() - _UNSEEN_MARGIN)
    kernel[:, model.classes] = model.kernel / scale.deviation
    bias[model.classes] = model.bias - scale.mean @ kernel[:, model.classes]
    return LinearHead(kernel.astype(np.float32), bias.astype(np.float32), inverse_strength)


def start_from_fitted_head(network: keras.Model, dataset: Dataset, seed: int) -> LinearHead:
    """Fits the head of ``network`` on the training images, without augmentation.

    Args:
        network: from ``build_network``; the weights of its head are replaced.
        dataset: the images; each training image is read once.
        seed: root seed of the run.
    """
    records = dataset.split.train
    labels = dataset.store.catalog.labels[records]
    batches = eval_dataset(dataset.store, records, _BATCH_SIZE)
    body = pooled_body(network)

    @tf.function(autograph=False, reduce_retracing=True)
    def embed(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(body(images, training=False), tf.float32)

    steps = math.ceil(len(records) / _BATCH_SIZE)
    disable = is_silent() or None  # None shows the bar on a terminal only
    bar = tqdm(batches, "fitting the head", steps, unit="batch", disable=disable, leave=False)
    features = np.concatenate([embed(images).numpy() for images, _ in bar])
    head = fit_head(
        features, labels, dataset.together[records], len(dataset.store.catalog.class_names), seed
    )
    network.get_layer(HEAD).set_weights([head.kernel, head.bias])
    is_correct = head.logits(features).argmax(axis=1) == labels
    report(
        "head",
        f"fitted on {len(records):,} images without augmentation (C={head.inverse_strength:g}); it "
        f"predicts {is_correct.mean():.4f} of them correctly",
    )
    return head


def _choose_inverse_strength(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> float:
    """The value of ``C_VALUES`` for these images; see ``fit_head``."""
    # 0 is the purpose of all draws by NumPy (see seeds.py), and 3 stands for the held-out images.
    rng = np.random.default_rng([seed, 0, 3])
    fractions = [1 - _HELD_OUT_FRACTION, _HELD_OUT_FRACTION]
    is_held_out = assign_groups(labels, groups, fractions, rng, needed=(0,)) == 1
    is_train = ~is_held_out
    if not is_held_out.any() or len(np.unique(labels[is_train])) < 2:
        return C_VALUES[len(C_VALUES) // 2]  # too few images for a choice
    scale = FeatureScaling.of(features[is_train])
    train, held_out = scale(features[is_train]), scale(features[is_held_out])
    model, correct_counts = _Regression(), []
    for value in C_VALUES:
        model.fit(train, labels[is_train], value)  # starts from the weights of the previous fit
        correct_counts.append(int((model.predict(held_out) == labels[is_held_out]).sum()))
    return C_VALUES[int(np.argmax(correct_counts))]


class _Regression:
    """scikit-learn's logistic regression, with one logit for each class, even if there are two classes.

    For two classes, scikit-learn itself computes a single logit: the difference of the logits of the
    two classes.
    """

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  an extra

        self._model: Any = LogisticRegression(max_iter=_MAX_STEPS, tol=_TOLERANCE, warm_start=True)

    def fit(self, features: np.ndarray, labels: np.ndarray, inverse_strength: float) -> None:
        self._model.set_params(C=inverse_strength)
        with warnings.catch_warnings():
            # A fit that has not converged after all steps is good enough.
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
