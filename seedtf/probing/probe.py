"""Compares pretrained networks by the accuracy of cross-validated classifiers on their features."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seedtf.config.network_flags import FITTED_HEAD
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
from seedtf.report import format_count, format_duration, report
from seedtf.training.fitted_head import LinearHead, check_sklearn
from seedtf.training.setup import data_folder

__all__ = ["KNN", "LOGISTIC", "Probe", "ProbeRow", "probe"]

LOGISTIC, KNN = "logistic", "kNN"
"""The classifiers: logistic regression, like the head of a network, and k nearest neighbours."""


@dataclass(frozen=True)
class ProbeRow:
    """The result of one classifier on the features of one network.

    Attributes:
        embedder: the network.
        classifier: ``logistic`` or ``kNN``.
        dimensions: the number of features that the network computes for an image.
        predicted: int64 ``[n]``, the class of each image, predicted by a classifier that was fitted
            without the image's fold.
        accuracy: the fraction of the n images that were predicted correctly, in [0, 1].
        interval: the 95 % Wilson interval of ``accuracy``.
        mcnemar_p: the p-value of McNemar's test against the best row; 1 for the best row.
        seconds: the time for computing or reading the features and for both classifiers.
        from_cache: whether the features came from the cache.
        heads: for each fold, the head that was fitted on the other folds; empty for ``kNN``.
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
        rows: one for each network and classifier, from the highest accuracy to the lowest.
        dataset: the images, without pixels. Its validation images are those of the first fold.
        records: int64 ``[n]``, the indices in ``dataset`` of all images except test images.
        folds: int64 ``[n]``, the fold of each image of ``records``, from 0.
        config: the flags of a training on this data with ``--head=fitted``, whose head is fitted in the
            same way as the logistic regression.
    """

    rows: tuple[ProbeRow, ...]
    dataset: Dataset
    records: np.ndarray
    folds: np.ndarray
    config: TrainConfig

    @property
    def labels(self) -> np.ndarray:
        """The label of each image of ``records``, int32 ``[n]``."""
        return self.dataset.store.catalog.labels[self.records]

    @property
    def best_logistic_row(self) -> ProbeRow:
        """The best row with logistic regression, which unlike kNN can become the head of a network."""
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
    """Compares networks by the cross-validated accuracy of classifiers on their frozen features.

    Identical files and the images of a group are in the same fold, and near duplicates too, unless
    ``twins`` is ``ignore``. Features that were computed before are read from the cache.

    Args:
        data_dir: labelled images, as for training.
        models: values of ``--model``, or run folders.
        image_size: side of the images in pixels. For a run, 0 means the image size of the run. For a
            network, 0 means the only size that it accepts, or 224 if it accepts several.
        folds: the number of folds, or ``groups`` for one fold for each group.
        embed_batch: images per batch while features are computed.
        flags: fields of ``TrainConfig`` that say how the data is read and grouped, and ``weights``,
            ``seed`` and ``cache_dir``.

    Raises:
        UserError: scikit-learn is not installed, or the data, a network or the folds cannot be used.

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
    # `save_best_head` writes these flags to the run, as if it had been trained for one epoch.
    config = TrainConfig(data_dir=os.fspath(data_dir), head=FITTED_HEAD, epochs=1, **flags)
    config = config.with_absolute_paths()
    embedders = [open_embedder(model, image_size, config.weights) for model in models]
    columns = Columns(config.file_column, config.label_column, config.split_column)
    listed, split = list_files(data_folder(config), config.labels_csv, columns, config.layout)
    all_embeddings: list[Embeddings] = []
    for embedder in embedders:
        embeddings = embed_catalog(listed, embedder, config.cache_folder, embed_batch)
        if all_embeddings and len(embeddings.features) != len(all_embeddings[0].features):
            raise UserError(f"{listed.root}: its files changed meanwhile; run the command again")
        all_embeddings.append(embeddings)
    dataset = _make_dataset(all_embeddings[0].catalog, split, listed, config)
    fold_of = assign_folds(dataset, folds, config.seed)  # below 0 for test images
    records = np.flatnonzero(fold_of >= 0)
    dataset = replace(
        dataset,
        split=Split(np.flatnonzero(fold_of > 0), np.flatnonzero(fold_of == 0), dataset.split.test),
    )
    fold_sizes = np.bincount(fold_of[records])
    report(
        "folds",
        f"{len(fold_sizes)} of {fold_sizes.min():,} to {fold_sizes.max():,} images; "
        f"{format_count(dataset.near_duplicates, 'near duplicate')} and "
        f"{format_count(dataset.duplicates, 'identical file')}, each in the fold of its original",
    )
    labels, groups = dataset.store.catalog.labels[records], dataset.together[records]
    rows: list[ProbeRow] = []
    for embedder, embeddings in zip(embedders, all_embeddings, strict=True):
        start = time.perf_counter()
        features = np.asarray(embeddings.features[records], np.float32)
        names = dataset.store.catalog.class_names
        out_of_fold = predict_out_of_fold(
            features,
            labels,
            fold_of[records],
            groups,
            num_classes=len(names),
            seed=config.seed,
        )
        seconds = embeddings.seconds + time.perf_counter() - start
        new_rows = _make_rows(embedder, out_of_fold, labels, features.shape[1], seconds)
        rows += [replace(row, from_cache=embeddings.from_cache) for row in new_rows]
        accuracies = ", ".join(f"{row.classifier} {row.accuracy:.4f}" for row in new_rows)
        cached = " with cached features" if embeddings.from_cache else ""
        report(
            "probed",
            f"{embedder.name} at {embedder.image_size} px: {accuracies}, "
            f"{format_duration(seconds)}{cached}",
        )
    return Probe(_compare_with_best(rows, labels), dataset, records, fold_of[records], config)


def _make_dataset(
    usable: Catalog, split: Split | None, listed: Catalog, config: TrainConfig
) -> Dataset:
    """Makes a dataset without pixels, in which all images but the user's test images are for training.

    Args:
        usable: the images of ``listed`` that could be decoded.
        split: the user's own split of ``listed``; None if the data has none.
        listed: all images that were found.
        config: the flags that say which images must be in the same fold.
    """
    related = find_related(
        usable,
        all_opened=True,
        twins=config.twins,
        user_groups=read_groups(usable, GroupFlags.of(config)),
        cache_dir=config.cache_folder,
        max_pixels=config.max_pixels,
    )
    is_test = np.zeros(len(usable), bool)
    if split is not None:
        find = NameFinder(usable.paths).find
        test_indices = [find(listed.paths[index]) for index in split.test]  # -1: not usable
        is_test[[index for index in test_indices if index >= 0]] = True
    return Dataset(
        Store(usable, 0, "off", True, len(listed)),
        Split(np.flatnonzero(~is_test), np.empty(0, np.int64), np.flatnonzero(is_test)),
        CachePlan("off", 0, ""),
        num_listed=len(listed),
        duplicates=related.num_duplicates,
        duplicates_across_split=0,
        near_duplicates=related.num_near_duplicates,
        grouping=related.user_groups,
        together=related.together,
    )


def _make_rows(
    embedder: Embedder, out_of_fold: OutOfFold, labels: np.ndarray, dimensions: int, seconds: float
) -> list[ProbeRow]:
    """The rows of both classifiers; ``from_cache`` and ``mcnemar_p`` are placeholders."""
    rows = []
    for classifier, predicted in ((LOGISTIC, out_of_fold.linear), (KNN, out_of_fold.neighbours)):
        num_correct, num_images = int((predicted == labels).sum()), len(labels)
        rows.append(
            ProbeRow(
                embedder,
                classifier,
                dimensions,
                predicted,
                accuracy=num_correct / num_images,
                interval=wilson_interval(num_correct, num_images),
                mcnemar_p=1.0,
                seconds=seconds,
                from_cache=False,
                heads=tuple(out_of_fold.heads) if classifier == LOGISTIC else (),
                losses=out_of_fold.losses if classifier == LOGISTIC else np.empty(0),
            )
        )
    return rows


def _compare_with_best(rows: Sequence[ProbeRow], labels: np.ndarray) -> tuple[ProbeRow, ...]:
    """Sorts the rows by descending accuracy, and sets ``mcnemar_p`` of every row except the first."""
    ordered = sorted(rows, key=lambda row: -row.accuracy)
    best_is_correct = ordered[0].predicted == labels
    compared = [ordered[0]]
    for row in ordered[1:]:
        is_correct = row.predicted == labels
        p = mcnemar_p(
            int((best_is_correct & ~is_correct).sum()), int((is_correct & ~best_is_correct).sum())
        )
        compared.append(replace(row, mcnemar_p=p))
    return tuple(compared)
