"""From a folder to images that can train: scan, decode, split, report what was left out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, align_labels, read_labels_csv, scan_folder
from seedtf.data.split import (
    Split,
    check_split,
    check_trainable,
    find_duplicates,
    join_catalogs,
    read_split_csv,
    split_catalog,
)
from seedtf.data.store import CachePlan, Store, build_store, plan_cache
from seedtf.data.string_array import NameFinder
from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines
from seedtf.images.header import MAX_PIXELS

__all__ = ["Dataset", "list_files", "load_dataset", "write_data_report"]

# to open this many takes about a minute on two cores
_MOST_OPENED = 20_000
_SAMPLE = 1_000


@dataclass(frozen=True)
class Dataset:
    """Decoded images and who trains and who judges.

    Attributes:
        store: the images; ``store.catalog`` lists them and, in ``faults``, what was left out.
        split: records of the store.
        plan: where the images are kept, and why.
        listed: how many images there were before any was left out.
        duplicates: images that have an identical twin before them in the list.
        across_split: of these, twins that the user's own split put on both sides.
        contradictions: pairs of identical files that carry two labels.

    Identical files are looked for only where every file was opened.
    """

    store: Store
    split: Split
    plan: CachePlan
    listed: int
    duplicates: int
    across_split: int
    contradictions: tuple[tuple[str, str], ...] = ()

    @property
    def unopened(self) -> int:
        """Images that nobody has opened before training."""
        return self.listed - self.store.opened


def list_files(data_dir: str, labels_csv: str = "") -> Catalog:
    """The labelled files of a class folder, or of a table and the folder it is relative to.

    Raises:
        UserError: folder or table missing or unusable, one class only, a class with one image.
    """
    catalog = read_labels_csv(labels_csv, data_dir) if labels_csv else scan_folder(data_dir)
    check_trainable(catalog)
    return catalog


def load_dataset(
    data_dir: str,
    *,
    image_size: int,
    labels_csv: str = "",
    val_dir: str = "",
    split_csv: str = "",
    val_fraction: float = 0.15,
    seed: int = 0,
    cache: str = "auto",
    cache_dir: Path,
    max_pixels: int = MAX_PIXELS,
    check: str = "all",
    shared: bool = False,
    strict: bool = False,
) -> Dataset:
    """Lists, decodes and splits; every file is opened once, before anything trains.

    With ``cache="off"`` and ``check="sample"`` 1,000 files are, spread over the list; ``auto`` opens
    all of up to 20,000, and all of more than that where one of the 1,000 cannot be used.

    Args are those of ``TrainConfig``; ``shared`` images are read by other processes too. The class
    list is fixed from the training folder's listing, before bad files are known, so a damaged file
    never shifts a label.

    Raises:
        UserError: whatever the user can mend, naming the flag.
    """
    catalog, split = list_files(data_dir, labels_csv), None
    if val_dir:
        val = align_labels(scan_folder(val_dir, "--val_dir"), catalog.class_names, "--val_dir")
        catalog, split = join_catalogs(catalog, val)
    plan = plan_cache(cache, len(catalog), image_size, cache_dir, shared=shared)
    store = _store(catalog, image_size, plan, cache_dir, max_pixels=max_pixels, check=check)
    if strict and store.catalog.faults:
        raise UserError(_strict_text(store.catalog))
    check_trainable(store.catalog)
    whole = store.opened == len(catalog)
    groups = find_duplicates(store.catalog) if whole else np.arange(len(store.catalog))
    if split is not None:
        split = _without_refused(split, catalog, store.catalog)
        check_split(store.catalog, split, f"--val_dir={val_dir}")
    elif split_csv:
        split = read_split_csv(split_csv, store.catalog)
    else:
        split = split_catalog(store.catalog, val_fraction, seed, groups)
        _check_has_val(split, val_fraction)
    twins = len(groups) - len(np.unique(groups))
    across = int(np.isin(groups[split.val], groups[split.train]).sum())
    contradictions = _contradictions(store.catalog, groups)
    return Dataset(store, split, plan, len(catalog), twins, across, contradictions)


def _store(
    catalog: Catalog, size: int, plan: CachePlan, cache_dir: Path, *, max_pixels: int, check: str
) -> Store:
    everything = check == "all" or (check == "auto" and len(catalog) <= _MOST_OPENED)
    sample = 0 if everything or plan.mode != "off" else _SAMPLE
    store = build_store(catalog, size, plan, cache_dir, max_pixels, sample=sample)
    bad = store.catalog.faults[len(catalog.faults) :]
    if not sample or not bad or check == "sample":
        return store
    print(
        f"check     {len(bad)} of {sample:,} files opened cannot be used, first {bad[0].path} "
        f"({bad[0].fault}); opening all {len(catalog):,} (--check=sample goes on without)",
        flush=True,
    )
    return build_store(catalog, size, plan, cache_dir, max_pixels)


def write_data_report(path: Path, catalog: Catalog, unopened: int = 0) -> None:
    """Writes ``data_report.csv``: path, fault, detail of every file that was left out.

    A last row with the path ``*`` tells how many images, if any, were not opened before training.
    """
    faults = catalog.faults
    if unopened:
        detail = (
            f"{unopened} images; each is judged when it is read, and training stops at a bad one"
        )
        faults = (*faults, Fault("*", "not opened", detail))
    lines = (csv_line(fault.path, fault.fault, fault.detail) for fault in faults)
    write_lines(path, itertools.chain([csv_line("path", "fault", "detail")], lines))


def _without_refused(split: Split, listed: Catalog, kept: Catalog) -> Split:
    """The same split counted in ``kept``, which lacks some files of ``listed``."""
    position = NameFinder(kept.paths)
    moved = np.fromiter(map(position.find, listed.paths), np.int64, len(listed))

    def found(side: np.ndarray) -> np.ndarray:
        return moved[side][moved[side] >= 0]

    return Split(found(split.train), found(split.val))


def _contradictions(catalog: Catalog, groups: np.ndarray) -> tuple[tuple[str, str], ...]:
    """Files whose bytes stand before them in the list under another label, and that other file."""
    later = np.flatnonzero(catalog.labels != catalog.labels[groups])
    pairs = zip(later.tolist(), groups[later].tolist(), strict=True)
    return tuple((catalog.paths[index], catalog.paths[first]) for index, first in pairs)


def _strict_text(catalog: Catalog) -> str:
    first, more = catalog.faults[0], len(catalog.faults) - 1
    others = f" and {more} more files" if more else ""
    return (
        f"--strict: {first.path} ({first.fault}: {first.detail}){others} cannot be used; "
        "seedtf check lists them: repair or remove them"
    )


def _check_has_val(split: Split, val_fraction: float) -> None:
    if not len(split.val):
        raise UserError(
            f"--val_fraction={val_fraction:g}: no validation images, because all images of each "
            "class are identical; add different images or pass --val_dir"
        )
