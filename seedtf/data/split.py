"""Splits a catalog into training and validation: stratified, never across identical files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, read_csv
from seedtf.errors import UserError
from seedtf.files import csv_line, write_text

__all__ = [
    "Split",
    "check_split",
    "check_trainable",
    "find_duplicates",
    "join_catalogs",
    "read_split_csv",
    "split_catalog",
    "write_split_csv",
]

_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Split:
    """Indices into a catalog: ``train`` and ``val``, int64, each sorted, disjoint."""

    train: np.ndarray
    val: np.ndarray


def join_catalogs(train: Catalog, val: Catalog) -> tuple[Catalog, Split]:
    """One catalog of both folders, paths relative to their common parent, and the split it implies."""
    root = Path(os.path.commonpath([train.root.resolve(), val.root.resolve()]))
    paths = []
    faults = []
    for part in (train, val):
        prefix = part.root.resolve().relative_to(root).as_posix()
        prefix = "" if prefix == "." else f"{prefix}/"
        paths += [prefix + path for path in part.paths]
        faults += [Fault(prefix + f.path, f.fault, f.detail) for f in part.faults]
    labels = np.concatenate([train.labels, val.labels])
    joined = Catalog(root, tuple(paths), labels, train.class_names, tuple(faults))
    order = np.arange(len(joined), dtype=np.int64)
    return joined, Split(order[: len(train)], order[len(train) :])


def find_duplicates(catalog: Catalog) -> np.ndarray:
    """Group numbers, int64 ``[N]``: files with identical bytes share one, all others have their own.

    Only files of equal size are read. A file that cannot be read has a group of its own.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(catalog.absolute_paths()):
        by_size[_size(path)].append(index)
    groups = np.arange(len(catalog), dtype=np.int64)
    for same_size in by_size.values():
        if len(same_size) == 1:
            continue
        first: dict[bytes, int] = {}
        for index in same_size:
            digest = _digest(catalog.root / catalog.paths[index])
            if digest is not None:
                groups[index] = first.setdefault(digest, index)
    return groups


def split_catalog(catalog: Catalog, val_fraction: float, seed: int, groups: np.ndarray) -> Split:
    """A stratified split drawn from ``default_rng([seed, 0])``.

    Each class gives ``round(val_fraction · n)`` images to validation, at least one and at most
    ``n − 1``; fewer only where a group of identical files would cross the split. Identical files that
    carry two labels always train, so no class is judged on a contradiction.

    Args:
        catalog: N labelled files, at least two of each class.
        val_fraction: in (0, 1).
        seed: the run's root seed.
        groups: int64 ``[N]`` from ``find_duplicates``.

    Raises:
        UserError: one class only, or a class with fewer than two images.
    """
    check_trainable(catalog)
    rng = np.random.default_rng([seed, 0])
    contradictory = _groups_with_two_labels(catalog.labels, groups)
    val: list[int] = []
    for label in range(len(catalog.class_names)):
        members = np.flatnonzero(catalog.labels == label)
        wanted = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        val += _draw_groups(members, groups, contradictory, wanted, rng)
    chosen = np.sort(np.array(val, np.int64))
    train = np.setdiff1d(np.arange(len(catalog), dtype=np.int64), chosen)
    return Split(train, chosen)


def check_trainable(catalog: Catalog) -> None:
    """Raises UserError unless there are two classes or more, each with two images or more."""
    names = catalog.class_names
    if len(names) < 2:
        raise UserError(
            f"--data_dir={catalog.root}: one class only ({names[0]!r}); "
            "a classifier needs two class folders or more"
        )
    for name, count in catalog.class_counts().items():
        if count < 2:
            raise UserError(
                f"--data_dir={catalog.root}: class {name!r} has {count} usable image"
                f"{'s' if count != 1 else ''}; add images (two at least) or remove the class"
            )


def write_split_csv(path: Path, catalog: Catalog, split: Split) -> None:
    """Writes ``split.csv``: file, label, split (``train`` or ``val``), in the catalog's order."""
    side = np.full(len(catalog), "", dtype=object)
    side[split.train], side[split.val] = "train", "val"
    rows = zip(catalog.paths, catalog.labels.tolist(), side.tolist(), strict=True)
    lines = (csv_line(p, catalog.class_names[label], s) for p, label, s in rows if s)
    write_text(path, csv_line("file", "label", "split") + "".join(lines))


def read_split_csv(csv_path: str | os.PathLike[str], catalog: Catalog) -> Split:
    """Reads back what ``write_split_csv`` wrote; files of the catalog it does not name stay unused.

    Raises:
        UserError: column missing, a file that is not in the catalog, another label than the
            catalog's, a side that is neither ``train`` nor ``val``, or a class without training images.
    """
    flag = "--split_csv"
    position = {path: index for index, path in enumerate(catalog.paths)}
    sides: dict[str, list[int]] = {"train": [], "val": []}
    for path, label, side in read_csv(csv_path, ("file", "label", "split"), flag):
        index = position.get(path)
        if index is None:
            if any(fault.path == path for fault in catalog.faults):
                continue
            raise UserError(
                f"{flag}={csv_path}: {path!r} is not in {catalog.root}; pass the folder that it is "
                f"relative to as --data_dir, with --labels_csv={csv_path} where its classes are not "
                "the first sub-folders"
            )
        found = catalog.class_names[catalog.labels[index]]
        if found != label:
            raise UserError(f"{flag}={csv_path}: {path!r} is {label!r} here but {found!r} on disk")
        if side not in sides:
            raise UserError(f"{flag}={csv_path}: split {side!r} of {path!r}; use train or val")
        sides[side].append(index)
    split = Split(*(np.unique(np.array(sides[side], np.int64)) for side in ("train", "val")))
    check_split(catalog, split, f"{flag}={csv_path}")
    return split


def check_split(catalog: Catalog, split: Split, source: str) -> None:
    """Raises UserError when a side is empty, the sides overlap, or a class has no training image."""
    for side, indices in (("train", split.train), ("val", split.val)):
        if not len(indices):
            raise UserError(f"{source}: no {side} images; both sides need some")
    overlap = np.intersect1d(split.train, split.val)
    if len(overlap):
        raise UserError(f"{source}: {catalog.paths[overlap[0]]!r} is on both sides; keep one")
    missing = np.setdiff1d(np.arange(len(catalog.class_names)), catalog.labels[split.train])
    if len(missing):
        name = catalog.class_names[missing[0]]
        raise UserError(f"{source}: class {name!r} has no training images; add some or remove it")


def _groups_with_two_labels(labels: np.ndarray, groups: np.ndarray) -> set[int]:
    pairs = {(int(g), int(label)) for g, label in zip(groups, labels, strict=True)}
    return {group for group, count in Counter(g for g, _ in pairs).items() if count > 1}


def _draw_groups(
    members: np.ndarray,
    groups: np.ndarray,
    contradictory: set[int],
    wanted: int,
    rng: np.random.Generator,
) -> list[int]:
    """Whole groups of ``members`` in random order until ``wanted`` images are drawn, never more."""
    by_group: dict[int, list[int]] = defaultdict(list)
    for index in members.tolist():
        by_group[int(groups[index])].append(index)
    candidates = list(by_group)
    drawn: list[int] = []
    for position in rng.permutation(len(candidates)):
        group = candidates[position]
        if group not in contradictory and len(drawn) + len(by_group[group]) <= wanted:
            drawn += by_group[group]
    return drawn


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(path: Path) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return None
    return digest.digest()
