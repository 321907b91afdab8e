"""Finds nearest neighbours and outliers among features, and projects the features to two dimensions."""

from __future__ import annotations

import importlib.util

import numpy as np

from seedtf.errors import UserError

__all__ = ["MAPS", "find_nearest", "find_outliers", "project_to_2d"]

MAPS = ("auto", "umap", "pca")
"""The values of ``--map``; ``auto`` means UMAP if umap-learn is installed, otherwise PCA."""

_ROWS_AT_ONCE = 1024
_UMAP_DIMENSIONS = 50  # UMAP gets this number of principal components instead of all features.
_MIN_UMAP_IMAGES = 50
_MIN_OUTLIERS, _MAX_OUTLIERS = 12, 60


def find_nearest(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest neighbours of each image by cosine distance.

    Each feature is first shifted to mean 0 and scaled to variance 1.

    Args:
        features: float ``[N, D]``.
        count: number k of neighbours; at most N − 1 are returned.

    Returns:
        The indices of the neighbours, int64 ``[N, k]``, the nearest first, and their distances,
        float32 ``[N, k]``, 0 to 2.

    Example:
        >>> find_nearest(np.array([[0.0, 1], [0, 2], [5, 1], [6, 1]]), 1)[0][:, 0].tolist()
        [1, 0, 3, 2]
    """
    scaled = (features - features.mean(axis=0)).astype(np.float32)
    scaled /= np.maximum(scaled.std(axis=0), 1e-6)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-6)
    count = min(count, len(scaled) - 1)
    indices = np.empty((len(scaled), count), np.int64)
    distances = np.empty((len(scaled), count), np.float32)
    for start in range(0, len(scaled), _ROWS_AT_ONCE):
        block = slice(start, min(start + _ROWS_AT_ONCE, len(scaled)))
        rows = np.arange(block.stop - block.start)
        similarity = scaled[block] @ scaled.T
        similarity[rows, start + rows] = -np.inf
        # Rounding errors differ between machines, so the images are sorted by a rounded similarity.
        found = np.argsort(-similarity.round(5), axis=1, kind="stable")[:, :count]
        indices[block] = found
        distances[block] = np.clip(1 - np.take_along_axis(similarity, found, axis=1), 0, 2)
    return indices, distances


def find_outliers(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the images that are farthest from their nearest neighbours.

    The number of outliers is a hundredth of the images, but at least 12 and at most 60. In any case, it
    is at most a quarter of the images.

    Args:
        distances: float ``[N, k]``, from ``find_nearest``.

    Returns:
        The mean distance of each image to its neighbours, float ``[N]``, and the indices of the
        outliers, the farthest first.
    """
    mean = distances.mean(axis=1)
    count = min(max(len(mean) // 100, _MIN_OUTLIERS), _MAX_OUTLIERS, len(mean) // 4)
    return mean, np.argsort(-mean, kind="stable")[:count]


def project_to_2d(features: np.ndarray, method: str, seed: int = 0) -> tuple[np.ndarray, str]:
    """Projects features to two dimensions, for a map.

    Args:
        features: float ``[N, D]``.
        method: one of ``MAPS``. For fewer than 50 images, PCA is always used.
        seed: the seed of the random numbers that both methods start from.

    Returns:
        The points, float ``[N, 2]`` in [0, 1], and the name of the method that was used.

    Raises:
        UserError: ``method`` is ``umap``, and umap-learn is not installed.

    Example:
        >>> points, name = project_to_2d(np.array([[0.0, 0, 1], [10, 1, 0], [20, 0, 1]]), "pca")
        >>> sorted(points[:, 0].round(2).tolist()), name
        ([0.0, 0.5, 1.0], 'PCA')
    """
    is_installed = importlib.util.find_spec("umap") is not None
    if method == "umap" and not is_installed:
        raise UserError(
            "--map=umap: umap-learn is not installed; run: pip install 'seedtf[explore]', or pass pca"
        )
    if method == "pca" or not is_installed or len(features) < _MIN_UMAP_IMAGES:
        return _to_unit_square(_principal_components(features, 2, seed)), "PCA"
    import umap

    reducer = umap.UMAP(n_components=2, metric="cosine", random_state=seed, n_jobs=1)
    components = _principal_components(features, _UMAP_DIMENSIONS, seed)
    return _to_unit_square(reducer.fit_transform(components)), "UMAP"


def _principal_components(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The first principal components, float64 ``[N, k]``, by randomized subspace iteration.

    k is the smallest of ``count``, N and D, but at least 2; missing components are 0. The sign of a
    component is arbitrary, so it is chosen such that the value with the largest magnitude is positive.

    N. Halko, P.-G. Martinsson, J. Tropp, "Finding structure with randomness", 2011.
    """
    centered = (features - features.mean(axis=0)).astype(np.float64)
    count = min(count, *centered.shape)
    # Ten more components than needed make the needed ones more accurate.
    width = min(count + 10, *centered.shape)
    basis = np.random.default_rng(seed).normal(size=(centered.shape[1], width))
    for _ in range(6):
        basis = np.linalg.qr(centered.T @ np.linalg.qr(centered @ basis)[0])[0]
    left, values, _ = np.linalg.svd(centered @ basis, full_matrices=False)
    points = left[:, :count] * values[:count]
    signs = np.sign(points[np.abs(points).argmax(axis=0), np.arange(count)])
    points = points * np.where(signs == 0, 1, signs)
    return np.pad(points, ((0, 0), (0, max(2 - count, 0))))


def _to_unit_square(points: np.ndarray) -> np.ndarray:
    """Scales both axes by the same factor to fit into [0, 1], and centres the points in the square."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()), 1e-12)
    return (points - (low + high) / 2) / side + 0.5
