"""Divides images into folds, keeping groups together, and writes the split of each run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.data.split import Split, check_groups, write_split_csv
from seedtf.data.stratify import assign_equal_folds
from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.report import report
from seedtf.runs.folder import format_class_names
from seedtf.runs.folds import GROUPS, TABLES, TEST_FOLD, FoldRow, FoldsPaths, table_digest
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
        UserError: as ``load_dataset``, or the images cannot be divided into these folds.
    """
    # Images with pseudo-labels belong to no fold, because every fold trains on them.
    dataset = load_training_data(replace(config, pseudo_labels=""))
    # The division does not depend on --fixes, so that two cross-validations can be compared.
    assigned = assign_folds(dataset.unfixed or dataset, folds, config.seed)
    used = np.concatenate(list(dataset.split.sides.values()))
    assigned[~np.isin(np.arange(len(assigned)), used)] = _UNUSED
    write_division(dataset, assigned, config, paths)


def assign_folds(dataset: Dataset, folds: str, seed: int) -> np.ndarray:
    """The fold of each image, int64 ``[N]``; −1 for a test image, −2 for an image that is not used.

    Args:
        dataset: the images, of which those for training and validation are divided.
        folds: the number of folds, or ``groups`` for one fold per group.
        seed: the root seed of the runs.

    Raises:
        UserError: a class is in one group only, or there are fewer groups than folds.
    """
    split, catalog = dataset.split, dataset.store.catalog
    records = np.sort(np.concatenate([split.train, split.val]))
    together = dataset.together[records]
    check_groups(catalog.take(records), together)
    assigned = np.full(len(catalog), _UNUSED, np.int64)
    assigned[split.test] = _TEST
    if folds == GROUPS:
        assigned[records] = _assign_one_fold_per_group(dataset, records, together)
        return assigned
    count = int(folds)
    if len(np.unique(together)) < count:
        raise UserError(
            f"--folds={folds}: there are only {len(np.unique(together))} groups of images; pass fewer "
            "folds"
        )
    rng = np.random.default_rng([seed, 0, 2])
    assigned[records] = assign_equal_folds(catalog.labels[records], together, count, rng)
    return assigned


def _assign_one_fold_per_group(
    dataset: Dataset, records: np.ndarray, together: np.ndarray
) -> np.ndarray:
    if dataset.grouping is None:
        raise UserError(
            f"--folds={GROUPS}: needs the groups; pass --group_by, --group_regex or --groups_csv"
        )
    ungrouped = [record for record in records if not dataset.grouping.names[record]]
    if ungrouped:
        raise UserError(
            f"--folds={GROUPS}: {len(ungrouped)} images have no group, first "
            f"{dataset.store.catalog.paths[ungrouped[0]]!r}; give each a group, or pass a number of "
            "folds"
        )
    groups, folds = np.unique(together, return_inverse=True)
    if not 2 <= len(groups) <= _MAX_FOLDS:
        raise UserError(
            f"--folds={GROUPS}: {len(groups)} groups, but 2 to {_MAX_FOLDS} folds can be trained; "
            "pass a number of folds"
        )
    return folds


def write_division(
    dataset: Dataset, assigned: np.ndarray, config: TrainConfig, paths: FoldsPaths
) -> None:
    """Writes classes.txt, the split of each fold, folds.json and, last, folds.csv.

    The files depend only on the data and the flags, so processes that write them at once agree.
    """
    catalog, grouping = dataset.store.catalog, dataset.grouping
    count = int(assigned.max()) + 1
    for folder in (paths.claims, paths.split(0).parent, paths.flags(0).parent):
        folder.mkdir(exist_ok=True)
    write_text(paths.classes, format_class_names(catalog.class_names))
    for number in range(count):
        split = Split(
            np.flatnonzero((assigned >= 0) & (assigned != number)),
            np.flatnonzero(assigned == number),
            np.flatnonzero(assigned == _TEST),
        )
        write_split_csv(paths.split(number), catalog, split)
    flags = config.as_dict()
    digests = {f"{name}_digest": table_digest(flags, name) for name in TABLES}
    paths.write_settings(count, flags | digests)
    paths.write_table(
        FoldRow(
            path,
            catalog.class_names[label],
            str(fold) if fold >= 0 else TEST_FOLD,
            grouping.names[index] if grouping else "",
        )
        for index, (path, label, fold) in enumerate(
            zip(catalog.paths, catalog.labels, assigned, strict=True)
        )
        if fold != _UNUSED
    )
    sizes = np.bincount(assigned[assigned >= 0], minlength=count)
    report("folds", f"{count} folds of {sizes.min():,} to {sizes.max():,} images in {paths.root}")
