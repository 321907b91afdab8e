"""Reads predictions of unlabelled images, of which the confident ones join the training.

D.-H. Lee, "Pseudo-label: the simple and efficient semi-supervised learning method", 2013.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, composed
from seedtf.data.paths import RemotePath
from seedtf.data.split import find_duplicates
from seedtf.data.store import Store
from seedtf.data.string_array import StringArray
from seedtf.data.table_text import read_csv_rows
from seedtf.errors import UserError
from seedtf.report import report

__all__ = ["Joined", "PseudoLabels", "join_stores", "labelled_part", "read_pseudo_labels"]

_FLAG = "--pseudo_labels"
_COLUMNS = ("file", "top1", "p1")


@dataclass(frozen=True)
class PseudoLabels:
    """M images with predicted labels.

    Attributes:
        paths: relative to the folder of the labelled images; many begin with ``..``.
        labels: int32 ``[M]``.
        confidences: float64 ``[M]``, the probability of the label.
        unsure: number of images below the smallest confidence.
        labelled: number of images that are in the labelled data.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    confidences: np.ndarray
    unsure: int
    labelled: int

    def join(self, catalog: Catalog) -> Catalog:
        """The labelled images of ``catalog``, and these after them."""
        return replace(
            catalog,
            paths=StringArray([*catalog.paths, *self.paths]),
            labels=np.concatenate([catalog.labels, self.labels]),
        )


def read_pseudo_labels(
    table: str | os.PathLike[str], catalog: Catalog, min_confidence: float
) -> PseudoLabels:
    """Reads a table that ``seedtf predict`` wrote.

    Files are relative to the working directory, as ``predict`` was given them, or else to the folder
    of the table. Rows without a prediction are left out.

    Args:
        table: CSV with the columns file, top1 and p1.
        catalog: the labelled images.
        min_confidence: smallest p1 of an image that joins.

    Raises:
        UserError: the table cannot be read, or a row is wrong; the message has its line number.
    """
    if isinstance(catalog.root, RemotePath):
        raise UserError(
            f"{_FLAG}={table}: needs labelled images on a disk, not at {catalog.root}; copy them"
        )
    source, root = f"{_FLAG}={table}", os.path.realpath(catalog.root)
    known = {os.path.realpath(path) for path in catalog.absolute_paths()}
    label_of = {composed(name): number for number, name in enumerate(catalog.class_names)}
    paths: list[str] = []
    found: list[tuple[int, float]] = []
    unsure = labelled = 0
    for line, file, name, confidence in _rows(Path(table), source):
        label = label_of.get(composed(name), -1)
        if label < 0:
            raise UserError(f"{source}: line {line}: no class {name!r} in the data; correct it")
        if confidence < min_confidence:
            unsure += 1
            continue
        path = _absolute(file, Path(table))
        if path is None:
            raise UserError(f"{source}: line {line}: no file {file!r}; run it in the same folder")
        if path in known:
            labelled += 1
            continue
        known.add(path)  # A file that is listed again is labelled by then.
        paths.append(os.path.relpath(path, root))
        found.append((label, confidence))
    if not paths:
        raise UserError(
            f"{source}: no image joins the training ({unsure} below --min_confidence="
            f"{min_confidence:g}, {labelled} already labelled); lower it, or leave the flag out"
        )
    labels, confidences = zip(*found, strict=True)
    return PseudoLabels(
        tuple(paths), np.array(labels, np.int32), np.array(confidences), unsure, labelled
    )


def labelled_part(store: Store, pseudo: PseudoLabels) -> Store:
    """A store of joined images with a catalog of the labelled ones only, which are its first ones."""
    predicted = set(pseudo.paths)
    count = sum(path not in predicted for path in store.catalog.paths)
    return replace(store, catalog=store.catalog.take(np.arange(count)))


@dataclass(frozen=True)
class Joined:
    """Labelled images, followed by those with a pseudo-label.

    Attributes:
        store: all of them, with soft labels.
        records: int64, those with a pseudo-label that are to train.
        changes: one row of ``data_report.csv`` for each of these.
    """

    store: Store
    records: np.ndarray
    changes: tuple[Fault, ...]


def join_stores(
    labelled: Store,
    opened: Store,
    pseudo: PseudoLabels,
    weight: float,
    *,
    leave_out_copies: bool,
) -> Joined:
    """Joins labelled images and images with a pseudo-label, and reports their numbers.

    Args:
        labelled: from ``labelled_part``; its labels may have changed since.
        opened: the images of ``pseudo.join``, without those that cannot be used.
        pseudo: the predictions.
        weight: sum of the soft labels of an image with a pseudo-label; that of the others is 1.
        leave_out_copies: whether to leave out images with the bytes of a labelled one, which may be a
            validation image. All files must have been opened.
    """
    count, everything = len(labelled.catalog), opened.catalog
    records = np.arange(count, len(everything), dtype=np.int64)
    if leave_out_copies:
        records = records[find_duplicates(everything)[records] >= count]
    labels = everything.labels.copy()
    labels[:count] = labelled.catalog.labels
    names = everything.class_names
    soft_labels = np.eye(len(names), dtype=np.float32)[labels]
    soft_labels[count:] *= weight
    confidence_of = dict(zip(pseudo.paths, pseudo.confidences, strict=True))
    changes = []
    for record in records.tolist():
        path = everything.paths[record]
        detail = f"{names[labels[record]]}, confidence {confidence_of[path]:.4g}"
        changes.append(Fault(path, "pseudo-label", detail))
    unreadable = len(pseudo.paths) - (len(everything) - count)
    known = pseudo.labelled + len(everything) - count - len(records)
    report(
        "pseudo",
        f"{len(records):,} unlabelled images train with their predicted label and weight {weight:g}; "
        f"{pseudo.unsure:,} are less confident, {known:,} labelled, {unreadable:,} unreadable",
    )
    catalog = replace(everything, labels=labels)
    store = replace(opened, catalog=catalog, soft_labels=soft_labels)
    return Joined(store, records, tuple(changes))


def _rows(table: Path, source: str) -> Iterator[tuple[int, str, str, float]]:
    """The line, file, class and probability of each row with a prediction."""
    remedy = "pass a table of seedtf predict"
    for line, row in read_csv_rows(table, _COLUMNS, _FLAG, remedy):
        if (row.get("status") or "ok") != "ok":
            continue
        try:
            confidence = float(row["p1"] or "")
        except ValueError:
            confidence = float("nan")
        file = row["file"]
        if not 0 <= confidence <= 1 or not file:
            raise UserError(f"{source}: line {line}: p1 {row['p1']!r} of {file!r}; {remedy}")
        yield line, file, row["top1"] or "", confidence


def _absolute(file: str, table: Path) -> str | None:
    for folder in (Path(), table.parent):
        if (folder / file).is_file():
            return os.path.realpath(folder / file)
    return None
