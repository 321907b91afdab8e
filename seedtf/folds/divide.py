"""Divides images into folds, each group in one fold, and writes the split of each run.

A record is the index of an image in the catalog, which lists all images of the data set.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.data.split import Split, check_groups, write_split_csv
from seedtf.data.stratify import assign_equal_folds
from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.report import format_count, report
from seedtf.runs.folder import format_class_names
from seedtf.runs.folds import GROUPS, TABLE_FLAGS, TEST_FOLD, FoldRow, FoldsPaths, table_digest
from seedtf.training.setup import load_training_data

__all__ = ["assign_folds", "divide", "write_division"]

_MAX_FOLDS = 200
_TEST, _UNUSED = -1, -2


def divide(config: TrainConfig, folds: str, paths: FoldsPaths) -> None:
    """Opens the images, assigns each to a fold, and writes folds.csv and the split of each run.

    Args:
        config: the flags of training.
        folds: the number of folds, or ``groups``.
        paths: the paths of an existing folder.

    Raises:
        UserError: as ``load_training_data`` and ``assign_folds``.
    """
    # Images with pseudo-labels belong to no fold, because every run trains on them.
    dataset = load_training_data(replace(config, pseudo_labels=""))
    # The division uses the labels before --fixes, so that cross-validations with and without --fixes
    # have the same folds.
    fold_of = assign_folds(dataset.unfixed or dataset, folds, config.seed)
    used = np.concatenate(list(dataset.split.sides.values()))
    fold_of[~np.isin(np.arange(len(fold_of)), used)] = _UNUSED
    write_division(dataset, fold_of, config, folds, paths)


def assign_folds(dataset: Dataset, folds: str, seed: int) -> np.ndarray:
    """The fold of each image, int64 ``[N]``; −1 for a test image, −2 for an image that is not used.

    Args:
        dataset: the images. Those for training and validation are divided into folds.
        folds: the number of folds, or ``groups`` for one fold for each group.
        seed: the root seed of the runs.

    Raises:
        UserError: all images of a class are in one group, or there are fewer groups than folds. With
            the value ``groups``: no flag gives the groups, an image has no group, or the number of
            groups is not 2 to 200.
    """
    split, catalog = dataset.split, dataset.store.catalog
    records = np.sort(np.concatenate([split.train, split.val]))
    group_of = dataset.together[records]
    check_groups(catalog.take(records), group_of)
    fold_of = np.full(len(catalog), _UNUSED, np.int64)
    fold_of[split.test] = _TEST
    if folds == GROUPS:
        fold_of[records] = _assign_one_fold_per_group(dataset, records, group_of)
        return fold_of
    count = int(folds)
    num_groups = len(np.unique(group_of))
    if num_groups < count:
        raise UserError(
            f"--folds={folds}: there are only {num_groups} groups of images; pass fewer folds"
        )
    rng = np.random.default_rng([seed, 0, 2])
    fold_of[records] = assign_equal_folds(catalog.labels[records], group_of, count, rng)
    return fold_of


def _assign_one_fold_per_group(
    dataset: Dataset, records: np.ndarray, group_of: np.ndarray
) -> np.ndarray:
    if dataset.grouping is None:
        raise UserError(
            f"--folds={GROUPS}: needs the groups; pass --group_by, --group_regex or --groups_csv"
        )
    ungrouped = [record for record in records if not dataset.grouping.names[record]]
    if ungrouped:
        raise UserError(
            f"--folds={GROUPS}: {format_count(len(ungrouped), 'image')} without a group, first "
            f"{dataset.store.catalog.paths[ungrouped[0]]!r}; give each a group, or pass a number of "
            "folds"
        )
    groups, folds = np.unique(group_of, return_inverse=True)
    if not 2 <= len(groups) <= _MAX_FOLDS:
        raise UserError(
            f"--folds={GROUPS}: {len(groups)} groups, but 2 to {_MAX_FOLDS} folds can be trained; "
            "pass a number of folds"
        )
    return folds


def write_division(
    dataset: Dataset, fold_of: np.ndarray, config: TrainConfig, folds: str, paths: FoldsPaths
) -> None:
    """Writes classes.txt, the split of each fold, folds.json and, last, folds.csv.

    The files depend only on the data and the flags, so two processes that write them at the same time
    write the same bytes.

    Args:
        dataset: the images.
        fold_of: the result of ``assign_folds``.
        config: the flags of training.
        folds: the value of ``--folds``, which is recorded in folds.json.
        paths: the paths of an existing folder.
    """
    catalog, grouping = dataset.store.catalog, dataset.grouping
    count = int(fold_of.max()) + 1
    for folder in (paths.claims, paths.split(0).parent, paths.flags(0).parent):
        folder.mkdir(exist_ok=True)
    write_text(paths.classes, format_class_names(catalog.class_names))
    for number in range(count):
        split = Split(
            np.flatnonzero((fold_of >= 0) & (fold_of != number)),
            np.flatnonzero(fold_of == number),
            np.flatnonzero(fold_of == _TEST),
        )
        write_split_csv(paths.split(number), catalog, split)
    flags = config.as_dict()
    digests = {f"{name}_digest": table_digest(flags, name) for name in TABLE_FLAGS}
    paths.write_settings(count, flags | digests | {"folds": folds})
    paths.write_table(
        FoldRow(
            path,
            catalog.class_names[label],
            str(fold) if fold >= 0 else TEST_FOLD,
            grouping.names[index] if grouping else "",
        )
        for index, (path, label, fold) in enumerate(
            zip(catalog.paths, catalog.labels, fold_of, strict=True)
        )
        if fold != _UNUSED
    )
    sizes = np.bincount(fold_of[fold_of >= 0], minlength=count)
    report("folds", f"{count} folds of {sizes.min():,} to {sizes.max():,} images in {paths.root}")
