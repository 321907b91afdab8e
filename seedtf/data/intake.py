"""From a folder to images that can train: scan, decode, split, report what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, align_labels, read_labels_csv, scan_folder
from seedtf.data.header import MAX_PIXELS
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
from seedtf.errors import UserError
from seedtf.files import csv_line, write_text

__all__ = ["Intake", "list_files", "open_data", "write_data_report"]


@dataclass(frozen=True)
class Intake:
    """Decoded images and who trains and who judges.

    Attributes:
        store: the images; ``store.catalog`` lists them and, in ``faults``, what was left out.
        split: records of the store.
        plan: where the images are kept, and why.
        duplicates: images that have an identical twin before them in the list.
        across_split: of these, twins that the user's own split put on both sides.
        contradictions: pairs of identical files that carry two labels.
    """

    store: Store
    split: Split
    plan: CachePlan
    duplicates: int
    across_split: int
    contradictions: tuple[tuple[str, str], ...] = ()


def list_files(data_dir: str, labels_csv: str = "") -> Catalog:
    """The labelled files of a class folder, or of a table and the folder it is relative to.

    Raises:
        UserError: folder or table missing or unusable, one class only, a class with one image.
    """
    catalog = read_labels_csv(labels_csv, data_dir) if labels_csv else scan_folder(data_dir)
    check_trainable(catalog)
    return catalog


def open_data(
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
    strict: bool = False,
) -> Intake:
    """Lists, decodes and splits; every file is opened once, before anything trains.

    Args are those of ``TrainConfig``. The class list is fixed from the training folder's listing,
    before bad files are known, so a damaged file never shifts a label.

    Raises:
        UserError: whatever the user can mend, naming the flag.
    """
    catalog, split = list_files(data_dir, labels_csv), None
    if val_dir:
        val = align_labels(scan_folder(val_dir, "--val_dir"), catalog.class_names, "--val_dir")
        catalog, split = join_catalogs(catalog, val)
    plan = plan_cache(cache, len(catalog), image_size, cache_dir)
    store = build_store(catalog, image_size, plan, cache_dir, max_pixels)
    if strict and store.catalog.faults:
        raise UserError(_strict_text(store.catalog))
    check_trainable(store.catalog)
    groups = find_duplicates(store.catalog)
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
    return Intake(store, split, plan, twins, across, _contradictions(store.catalog, groups))


def write_data_report(path: Path, catalog: Catalog) -> None:
    """Writes ``data_report.csv``: path, fault, detail of every file that was left out."""
    lines = (csv_line(fault.path, fault.fault, fault.detail) for fault in catalog.faults)
    write_text(path, csv_line("path", "fault", "detail") + "".join(lines))


def _without_refused(split: Split, listed: Catalog, kept: Catalog) -> Split:
    """The same split counted in ``kept``, which lacks some files of ``listed``."""
    position = {path: index for index, path in enumerate(kept.paths)}

    def moved(side: np.ndarray) -> np.ndarray:
        found = (position.get(listed.paths[index]) for index in side)
        return np.array([index for index in found if index is not None], np.int64)

    return Split(moved(split.train), moved(split.val))


def _contradictions(catalog: Catalog, groups: np.ndarray) -> tuple[tuple[str, str], ...]:
    """Files whose bytes stand before them in the list under another label, and that other file."""
    twins = zip(range(len(groups)), groups.tolist(), strict=True)
    pairs = [
        (later, first) for later, first in twins if catalog.labels[later] != catalog.labels[first]
    ]
    return tuple((catalog.paths[later], catalog.paths[first]) for later, first in pairs)


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
            f"--val_fraction={val_fraction:g}: no validation images, because all pictures of each "
            "class are identical; add different pictures or pass --val_dir"
        )
