"""Splits a catalog into training, validation and test images, stratified and with undivided groups."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, to_nfc
from seedtf.data.paths import common_folder, file_statuses, open_file
from seedtf.data.stratify import assign_groups, classes_in_one_group
from seedtf.data.string_array import NameFinder, StringArray
from seedtf.data.table_text import read_csv
from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines
from seedtf.report import format_count

__all__ = [
    "Split",
    "check_groups",
    "check_split",
    "check_trainable",
    "classes_without_validation",
    "find_duplicates",
    "groups_with_two_labels",
    "join_catalogs",
    "read_split_csv",
    "split_catalog",
    "split_groups",
    "write_split_csv",
    "write_split_summary",
]

_HASH_CHUNK_BYTES = 1 << 20
_SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The images for training, validation and test: sorted int64 indices into a catalog.

    Attributes:
        train: the images for training.
        val: the images for validation; empty if they have not been drawn yet.
        test: the images for a last evaluation, which influence neither training nor the best epoch.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def sides(self) -> dict[str, np.ndarray]:
        """The indices of each side, by its name in ``split.csv``."""
        return {"train": self.train, "val": self.val, "test": self.test}


def join_catalogs(
    train: Catalog, val: Catalog | None, test: Catalog | None = None
) -> tuple[Catalog, Split]:
    """One catalog of all files, relative to the common parent of the folders; and its split.

    Raises:
        UserError: the folders have no common parent.
    """
    others = [catalog for catalog in (val, test) if catalog is not None]
    try:
        root, prefixes = common_folder(train.root, *(other.root for other in others))
    except ValueError as error:
        raise UserError(
            f"--val_dir={others[0].root}: no common parent with --data_dir={train.root} ({error}); "
            "put both on the same disk or in the same bucket"
        ) from None
    parts = list(zip((train, *others), prefixes, strict=True))
    paths = itertools.chain(*(part.path_array.with_prefix(prefix) for part, prefix in parts))
    faults = [Fault(p + f.path, f.fault, f.detail) for part, p in parts for f in part.faults]
    labels = np.concatenate([part.labels for part, _ in parts])
    not_images = sum((Counter(part.others) for part, _ in parts), Counter())
    joined = Catalog(root, StringArray(paths), labels, train.class_names, tuple(faults), not_images)
    order = np.arange(len(joined), dtype=np.int64)
    test_start = len(joined) - (len(test) if test is not None else 0)
    return joined, Split(order[: len(train)], order[len(train) : test_start], order[test_start:])


def find_duplicates(catalog: Catalog) -> np.ndarray:
    """For each file, the index of the first file with the same bytes: int64 ``[N]``.

    Only files of equal size are read. A file that cannot be read is equal to no other file.
    """
    statuses = file_statuses(catalog.absolute_paths())
    sizes = np.fromiter((status[0] if status else -1 for status in statuses), np.int64)
    groups = np.arange(len(catalog), dtype=np.int64)
    for same_size in _equal_values(sizes):
        first: dict[bytes, int] = {}
        for index in same_size.tolist():
            digest = _digest(catalog, index)
            if digest is not None:
                groups[index] = first.setdefault(digest, index)
    return groups


def _equal_values(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields, for each value that occurs more than once, its indices in ascending order."""
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))
    ends = np.append(starts[1:], len(values))
    for number in np.flatnonzero(ends - starts > 1):
        yield order[starts[number] : ends[number]]


def split_catalog(catalog: Catalog, val_fraction: float, seed: int, groups: np.ndarray) -> Split:
    """Draws a stratified split into training and validation, from ``default_rng([seed, 0])``.

    Of the n images of a class, ``round(val_fraction · n)`` are used for validation, at least one and at
    most ``n − 1``, or fewer where a group would be divided. Groups whose images have different labels
    are used for training, so that the validation images have no conflicting labels.

    Args:
        catalog: N labelled files, at least two of each class.
        val_fraction: the fraction of each class for validation, in (0, 1).
        seed: root seed of the run.
        groups: int64 ``[N]``, the number of the group of each image; no group is divided.

    Raises:
        UserError: there is only one class, or a class has fewer than two images.

    Example:
        >>> labels = np.repeat(np.array([0, 1], np.int32), [10, 4])
        >>> paths = [f"{label}/{number:02d}.png" for number, label in enumerate(labels)]
        >>> catalog = Catalog(Path("field"), paths, labels, ("maize", "wheat"))
        >>> split = split_catalog(catalog, 0.25, seed=7, groups=np.arange(14))
        >>> split.val, len(split.train)
        (array([ 0,  8, 11]), 11)
    """
    check_trainable(catalog)
    rng = np.random.default_rng([seed, 0])
    conflicting = groups_with_two_labels(catalog.labels, groups)
    is_val = np.zeros(len(catalog), bool)
    for label in range(len(catalog.class_names)):
        members = np.flatnonzero(catalog.labels == label)
        num_val = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        is_val[members] = _draw_groups(groups[members], conflicting, num_val, rng)
    return Split(np.flatnonzero(~is_val), np.flatnonzero(is_val))


def split_groups(
    catalog: Catalog,
    fractions: tuple[float, float],
    seed: int,
    *,
    groups: np.ndarray,
    locked: np.ndarray,
) -> Split:
    """Draws a split into training, validation and test, stratified as well as the groups allow.

    Args:
        catalog: N labelled files, at least two of each class.
        fractions: wanted fractions of each class for validation and test; their sum is below 1.
        seed: root seed of the run.
        groups: int64 ``[N]``, the number of the group of each image; no group is divided.
        locked: int64, the groups that must be used for training, because their labels conflict.

    Raises:
        UserError: there is only one class, a class has fewer than two images, or all images of a class
            are in one group.
    """
    check_trainable(catalog)
    check_groups(catalog, groups)
    all_fractions = (1 - sum(fractions), *fractions)
    rng = np.random.default_rng([seed, 0, 1])
    needed = (0, 1, 2) if fractions[1] else (0, 1)  # the sides that should have all classes
    sides = assign_groups(catalog.labels, groups, all_fractions, rng, needed=needed, locked=locked)
    return Split(*(np.flatnonzero(sides == side) for side in range(3)))


def check_groups(catalog: Catalog, groups: np.ndarray) -> None:
    """Raises UserError if all images of a class are in one group, which a split must not divide."""
    classes = classes_in_one_group(catalog.labels, groups)
    if len(classes):
        name = catalog.class_names[classes[0]]
        others = f" ({len(classes)} such classes)" if len(classes) > 1 else ""
        count = int((catalog.labels == classes[0]).sum())
        raise UserError(
            f"--data_dir={catalog.root}: all {count} images of class {name!r} belong together{others}, "
            "because they are in one group or look alike; add other images, or choose other groups"
        )


def check_trainable(catalog: Catalog, min_images: int = 2) -> None:
    """Raises UserError unless there are two or more classes, each with ``min_images`` or more images.

    A class needs two images if the split is drawn, and one if the user gives the split.
    """
    names = catalog.class_names
    if len(names) < 2:
        raise UserError(
            f"--data_dir={catalog.root}: only one class ({names[0]!r}); "
            "a classifier needs at least two classes"
        )
    for name, count in catalog.class_counts().items():
        if count < min_images:
            least = {1: "one", 2: "two"}.get(min_images, str(min_images))
            raise UserError(
                f"--data_dir={catalog.root}: class {name!r} has {format_count(count, 'usable image')}; "
                f"add images (at least {least}) or remove the class"
            )


def classes_without_validation(catalog: Catalog, split: Split) -> list[str]:
    """The names of the classes without a validation image."""
    present = np.isin(np.arange(len(catalog.class_names)), catalog.labels[split.val])
    return [name for name, has in zip(catalog.class_names, present, strict=True) if not has]


def write_split_csv(path: Path, catalog: Catalog, split: Split) -> None:
    """Writes ``split.csv`` with the columns file, label and split, in the catalog's order."""
    side_names = ("", *_SIDES)  # Files on no side have the number 0 and are not written.
    sides = np.zeros(len(catalog), np.uint8)
    for number, name in enumerate(_SIDES, 1):
        sides[split.sides[name]] = number
    rows = zip(catalog.paths, catalog.labels, sides, strict=True)
    lines = (
        csv_line(path, catalog.class_names[label], side_names[side])
        for path, label, side in rows
        if side
    )
    write_lines(path, itertools.chain([csv_line("file", "label", "split")], lines))


def write_split_summary(path: Path, catalog: Catalog, split: Split) -> None:
    """Writes how many images are on each side of a split: a row for each class, then one for all.

    The columns are class, images, train, val, test, val_share and test_share; shares are in [0, 1].
    """
    names, sides = catalog.class_names, split.sides.values()
    counts = [np.bincount(catalog.labels[side], minlength=len(names)) for side in sides]
    table = np.stack(counts, axis=1)
    rows = [*zip(names, table.tolist(), strict=True), ("", table.sum(axis=0).tolist())]
    lines = [csv_line("class", "images", *_SIDES, "val_share", "test_share")]
    for name, (train, val, test) in rows:
        images = train + val + test
        shares = (f"{part / max(images, 1):.4f}" for part in (val, test))
        lines.append(csv_line(name, *map(str, (images, train, val, test)), *shares))
    write_lines(path, lines)


def read_split_csv(
    csv_path: str | os.PathLike[str], catalog: Catalog, fixed: np.ndarray | None = None
) -> Split:
    """Reads a table that ``write_split_csv`` wrote, or one like it.

    Files that are not in the table are on no side. Each label may be that of the catalog, or that of
    ``fixed``, int32 ``[N]``, the labels after ``--fixes``.

    Raises:
        UserError: the table cannot be read; a file is neither in the catalog nor in its faults; a label
            is neither of these two; a side is not ``train``, ``val`` or ``test``; or ``check_split``
            refuses the split.
    """
    flag = "--split_csv"
    finder = NameFinder(catalog.paths)
    unusable = {fault.path for fault in catalog.faults}
    sides = {side: np.zeros(len(catalog), bool) for side in _SIDES}
    for path, label, side in read_csv(csv_path, ("file", "label", "split"), flag):
        index = finder.find(path)
        if index < 0:
            if path in unusable:
                continue
            raise UserError(
                f"{flag}={csv_path}: {path!r} is not in {catalog.root}; pass as --data_dir the folder "
                f"that the paths are relative to, and --labels_csv={csv_path} if its sub-folders are "
                "not the classes"
            )
        listed_as = catalog.class_names[catalog.labels[index]]
        fixed_as = listed_as if fixed is None else catalog.class_names[fixed[index]]
        if to_nfc(label) not in (to_nfc(listed_as), to_nfc(fixed_as)):
            raise UserError(
                f"{flag}={csv_path}: {path!r} has the label {label!r}, but {listed_as!r} in the data"
            )
        if side not in sides:
            raise UserError(
                f"{flag}={csv_path}: split {side!r} of {path!r}; use train, val or test"
            )
        sides[side][index] = True
    split = Split(*(np.flatnonzero(sides[side]) for side in _SIDES))
    check_split(catalog, split, f"{flag}={csv_path}")
    return split


def check_split(catalog: Catalog, split: Split, source: str) -> None:
    """Raises UserError if train or val is empty, sides overlap, or a class has no training image."""
    for side in ("train", "val"):
        if not len(split.sides[side]):
            raise UserError(f"{source}: no {side} images; train and val need at least one each")
    used, counts = np.unique(np.concatenate(list(split.sides.values())), return_counts=True)
    if len(overlap := used[counts > 1]):
        raise UserError(f"{source}: {catalog.paths[overlap[0]]!r} is on two sides; keep it on one")
    missing = np.setdiff1d(np.arange(len(catalog.class_names)), catalog.labels[split.train])
    if len(missing):
        name = catalog.class_names[missing[0]]
        raise UserError(f"{source}: class {name!r} has no training images; add some or remove it")


def groups_with_two_labels(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The groups whose files have different labels."""
    order = np.argsort(groups, kind="stable")
    same = groups[order][1:] == groups[order][:-1]
    return np.unique(groups[order][1:][same & (labels[order][1:] != labels[order][:-1])])


def _draw_groups(
    groups: np.ndarray, conflicting: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws whole groups with at most ``wanted`` images; returns whether each image is drawn.

    Args:
        groups: int64 ``[n]``, the group of each image of a class.
        conflicting: groups that are never drawn.
        wanted: the largest number of images to draw; a group that would exceed it is skipped.
        rng: permutes the groups, which are sorted by their first images.
    """
    numbers, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.bincount(inverse, minlength=len(numbers))
    sizes[np.isin(numbers, conflicting)] = len(groups) + 1  # too large to be drawn
    is_drawn, num_drawn = np.zeros(len(numbers), bool), 0
    for group in np.argsort(first)[rng.permutation(len(numbers))]:
        if num_drawn == wanted:
            break
        if num_drawn + sizes[group] <= wanted:
            is_drawn[group], num_drawn = True, num_drawn + sizes[group]
    return is_drawn[inverse]


def _digest(catalog: Catalog, index: int) -> bytes | None:
    """A hash of the file's bytes; None if the file cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_file(os.path.join(catalog.root, catalog.paths[index])) as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return None
    return digest.digest()
