"""Compares pretrained networks on one data set by classifiers on their frozen features."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seedtf.config.network_flags import FITTED
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog
from seedtf.data.columns import Columns
from seedtf.data.dataset import Dataset
from seedtf.data.groups import GroupFlags, read_groups
from seedtf.data.listing import list_files
from seedtf.data.related import find_related
from seedtf.data.split import Split
from seedtf.data.store import CachePlan, Store
from seedtf.data.string_array import NameFinder
from seedtf.errors import UserError
from seedtf.evaluation.embed import Embeddings, embed_catalog
from seedtf.evaluation.embedder import Embedder, open_embedder
from seedtf.evaluation.metrics import mcnemar_p
from seedtf.folds.divide import assign_folds
from seedtf.intervals import wilson_interval
from seedtf.probing.heads import OutOfFold, predict_out_of_fold
from seedtf.report import format_duration, report
from seedtf.training.fitted_head import LinearHead, check_sklearn
from seedtf.training.setup import data_folder

__all__ = ["KNN", "LOGISTIC", "Probe", "ProbeRow", "probe"]

LOGISTIC, KNN = "logistic", "kNN"
"""The classifiers: logistic regression, which is the head of a network, and nearest neighbours."""


@dataclass(frozen=True)
class ProbeRow:
    """One classifier on the features of one network, compared with the best.

    Attributes:
        embedder: the network.
        classifier: ``logistic`` or ``kNN``.
        dimensions: number of features.
        predicted: int64 ``[n]``, the class of each image by a classifier that was fitted on the other
            folds.
        accuracy: of all folds together, in [0, 1]; ``interval`` is its 95 % Wilson interval.
        mcnemar_p: p-value of the comparison with the best row, image by image; 1 for the best row.
        seconds: for the features and for both classifiers of this network.
        from_cache: whether the features came from the cache.
        heads: the fitted head of each fold; empty for ``kNN``.
        losses: float64 ``[n]``, the cross-entropy of the heads in nats; empty for ``kNN``.
    """

    embedder: Embedder
    classifier: str
    dimensions: int
    predicted: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    mcnemar_p: float
    seconds: float
    from_cache: bool
    heads: tuple[LinearHead, ...] = ()
    losses: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Probe:
    """The result of ``probe``.

    Attributes:
        rows: one for each network and classifier, the best first.
        dataset: the images, without pixels; its validation images are those of the first fold.
        records: int64 ``[n]``, the images that were divided into folds: all but test images.
        folds: int64 ``[n]``, the fold of each of them, from 0.
        config: the flags of a training on this data.
    """

    rows: tuple[ProbeRow, ...]
    dataset: Dataset
    records: np.ndarray
    folds: np.ndarray
    config: TrainConfig

    @property
    def labels(self) -> np.ndarray:
        """int32 ``[n]``, the labels of ``records``."""
        return self.dataset.store.catalog.labels[self.records]

    @property
    def best_head(self) -> ProbeRow:
        """The best row that can become the head of a network."""
        return next(row for row in self.rows if row.classifier == LOGISTIC)


def probe(
    data_dir: str | os.PathLike[str],
    models: Sequence[str],
    *,
    image_size: int = 0,
    folds: str = "5",
    embed_batch: int = 32,
    **flags: Any,
) -> Probe:
    """Compares networks by classifiers on their frozen features, cross-validated.

    Identical files, near duplicates and the images of a group are in the same fold. Features come from
    the cache if they were computed before.

    Args:
        data_dir: labelled images, as for training.
        models: networks as for training, or run folders.
        image_size: side of the images in pixels; 0 for that of each network, else 224.
        folds: the number of folds, or ``groups`` for one fold for each group.
        embed_batch: images in a batch.
        flags: other flags of training that say how the data is read and grouped, the weights, the seed
            and the cache folder, with the names of ``TrainConfig``.

    Raises:
        UserError: scikit-learn is not installed; the data, a network or the folds cannot be used.

    Example:
        >>> from PIL import Image
        >>> for species, red in (("elm", 40), ("oak", 200)):
        ...     os.makedirs(f"trees/{species}")
        ...     for number in range(6):
        ...         pixels = Image.new("RGB", (20, 20), (red, 10 * number, 0))
        ...         pixels.save(f"trees/{species}/{number}.png")
        >>> flags = {"image_size": 16, "weights": "none", "twins": "ignore"}
        >>> result = probe("trees", ["tiny"], folds="2", **flags)
        layout    class folders in ...
        >>> sorted(row.classifier for row in result.rows), len(result.records)
        (['kNN', 'logistic'], 12)
    """
    check_sklearn("seedtf probe")
    if not models:
        raise UserError("--models: is missing; pass networks, separated by commas")
    # A run that is saved has these flags: they repeat it as the training of one epoch.
    config = TrainConfig(data_dir=os.fspath(data_dir), head=FITTED, epochs=1, **flags)
    config = config.with_absolute_paths()
    embedders = [open_embedder(model, image_size, config.weights) for model in models]
    columns = Columns(config.file_column, config.label_column, config.split_column)
    listed, split = list_files(data_folder(config), config.labels_csv, columns, config.layout)
    embedded: list[Embeddings] = []
    for embedder in embedders:
        found = embed_catalog(listed, embedder, config.cache_folder, embed_batch)
        if embedded and len(found.features) != len(embedded[0].features):
            raise UserError(f"{listed.root}: its files changed meanwhile; run the command again")
        embedded.append(found)
    dataset = _dataset(embedded[0].catalog, split, listed, config)
    assigned = assign_folds(dataset, folds, config.seed)
    records = np.flatnonzero(assigned >= 0)
    first = Split(np.flatnonzero(assigned > 0), np.flatnonzero(assigned == 0), dataset.split.test)
    dataset = replace(dataset, split=first)
    sizes = np.bincount(assigned[records])
    report(
        "folds",
        f"{len(sizes)} of {sizes.min():,} to {sizes.max():,} images, {dataset.near_duplicates} near "
        f"duplicates and {dataset.duplicates} identical files beside their originals",
    )
    labels, together = dataset.store.catalog.labels[records], dataset.together[records]
    rows: list[ProbeRow] = []
    for embedder, found in zip(embedders, embedded, strict=True):
        start = time.perf_counter()
        features = np.asarray(found.features[records], np.float32)
        names = dataset.store.catalog.class_names
        fitted = predict_out_of_fold(
            features,
            labels,
            assigned[records],
            together,
            num_classes=len(names),
            seed=config.seed,
        )
        seconds = found.seconds + time.perf_counter() - start
        new = _rows(embedder, fitted, labels, features.shape[1], seconds)
        rows += [replace(row, from_cache=found.from_cache) for row in new]
        texts = ", ".join(f"{row.classifier} {row.accuracy:.4f}" for row in new)
        report(
            "probed",
            f"{embedder.name} at {embedder.image_size} px: {texts}, "
            f"{format_duration(seconds)}{' with cached features' if found.from_cache else ''}",
        )
    return Probe(_compared(rows, labels), dataset, records, assigned[records], config)


def _dataset(usable: Catalog, split: Split | None, listed: Catalog, config: TrainConfig) -> Dataset:
    """The usable images with what belongs together; test images that the user's data has stay apart."""
    related = find_related(
        usable,
        opened=True,
        twins=config.twins,
        user_groups=read_groups(usable, GroupFlags.of(config)),
        cache_dir=config.cache_folder,
        max_pixels=config.max_pixels,
    )
    is_test = np.zeros(len(usable), bool)
    if split is not None:
        find = NameFinder(usable.paths).find
        tests = [find(listed.paths[index]) for index in split.test]
        is_test[[index for index in tests if index >= 0]] = True
    return Dataset(
        Store(usable, 0, "off", True, len(listed)),
        Split(np.flatnonzero(~is_test), np.empty(0, np.int64), np.flatnonzero(is_test)),
        CachePlan("off", 0, ""),
        num_listed=len(listed),
        duplicates=related.duplicates,
        duplicates_across_split=0,
        near_duplicates=related.near_duplicates,
        grouping=related.user_groups,
        together=related.together,
    )


def _rows(
    embedder: Embedder, fitted: OutOfFold, labels: np.ndarray, dimensions: int, seconds: float
) -> list[ProbeRow]:
    rows = []
    for classifier, predicted in ((LOGISTIC, fitted.linear), (KNN, fitted.neighbours)):
        hits, count = int((predicted == labels).sum()), len(labels)
        rows.append(
            ProbeRow(
                embedder,
                classifier,
                dimensions,
                predicted,
                accuracy=hits / count,
                interval=wilson_interval(hits, count),
                mcnemar_p=1.0,
                seconds=seconds,
                from_cache=False,
                heads=tuple(fitted.heads) if classifier == LOGISTIC else (),
                losses=fitted.losses if classifier == LOGISTIC else np.empty(0),
            )
        )
    return rows


def _compared(rows: Sequence[ProbeRow], labels: np.ndarray) -> tuple[ProbeRow, ...]:
    """The rows from high to low accuracy, each compared with the first."""
    ordered = sorted(rows, key=lambda row: -row.accuracy)
    best = ordered[0].predicted == labels
    compared = [ordered[0]]
    for row in ordered[1:]:
        right = row.predicted == labels
        p = mcnemar_p(int((best & ~right).sum()), int((right & ~best).sum()))
        compared.append(replace(row, mcnemar_p=p))
    return tuple(compared)
