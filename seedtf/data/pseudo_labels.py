"""Adds unlabelled images to the training, with labels that an earlier model predicted (pseudo-labels).

D.-H. Lee, "Pseudo-label: the simple and efficient semi-supervised learning method", 2013.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, to_nfc
from seedtf.data.paths import RemotePath
from seedtf.data.split import find_duplicates
from seedtf.data.store import Store
from seedtf.data.string_array import StringArray
from seedtf.data.table_text import read_csv_rows
from seedtf.errors import UserError
from seedtf.report import report

__all__ = ["JoinedImages", "PseudoLabels", "join_stores", "labelled_part", "read_pseudo_labels"]

_FLAG = "--pseudo_labels"
_COLUMNS = ("file", "top1", "p1")


@dataclass(frozen=True)
class PseudoLabels:
    """M images with predicted labels.

    Attributes:
        paths: relative to the folder of the labelled images; many begin with ``..``.
        labels: int32 ``[M]``, indices of the classes.
        confidences: float64 ``[M]``, the predicted probability of the label.
        num_unsure: number of rows that were left out because their probability is too low.
        num_known: number of rows that were left out because their file is in the labelled data or in
            an earlier row.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    confidences: np.ndarray
    num_unsure: int
    num_known: int

    def join(self, catalog: Catalog) -> Catalog:
        """A catalog of the labelled images of ``catalog``, then the images with pseudo-labels."""
        return replace(
            catalog,
            paths=StringArray([*catalog.paths, *self.paths]),
            labels=np.concatenate([catalog.labels, self.labels]),
        )


def read_pseudo_labels(
    table: str | os.PathLike[str], catalog: Catalog, min_confidence: float
) -> PseudoLabels:
    """Reads a table that ``seedtf predict`` wrote.

    A file is looked for in the working directory, and then in the folder of the table. Rows without a
    prediction are left out.

    Args:
        table: CSV with the columns file, top1 (the predicted class) and p1 (its probability).
        catalog: the labelled images.
        min_confidence: rows with a smaller p1 are left out; in [0, 1].

    Raises:
        UserError: the table cannot be read; a row is wrong (the message has its line number); no image
            is left; or the labelled images are at a URL.
    """
    if isinstance(catalog.root, RemotePath):
        raise UserError(
            f"{_FLAG}={table}: needs labelled images on a disk, not at {catalog.root}; copy them"
        )
    source, root = f"{_FLAG}={table}", os.path.realpath(catalog.root)
    known = {os.path.realpath(path) for path in catalog.absolute_paths()}
    label_of = {to_nfc(name): number for number, name in enumerate(catalog.class_names)}
    paths: list[str] = []
    predicted: list[tuple[int, float]] = []
    num_unsure = num_known = 0
    for line, file, name, confidence in _rows(Path(table), source):
        label = label_of.get(to_nfc(name), -1)
        if label < 0:
            raise UserError(f"{source}: line {line}: no class {name!r} in the data; correct it")
        if confidence < min_confidence:
            num_unsure += 1
            continue
        path = _absolute(file, Path(table))
        if path is None:
            raise UserError(
                f"{source}: line {line}: no file {file!r}; start in the folder in which seedtf predict "
                "was started"
            )
        if path in known:
            num_known += 1
            continue
        known.add(path)  # Further rows about this file are counted in num_known.
        paths.append(os.path.relpath(path, root))
        predicted.append((label, confidence))
    if not paths:
        raise UserError(
            f"{source}: no image joins the training ({num_unsure} below --min_confidence="
            f"{min_confidence:g}, {num_known} already labelled); lower --min_confidence, or leave "
            f"{_FLAG} out"
        )
    labels, confidences = zip(*predicted, strict=True)
    return PseudoLabels(
        tuple(paths), np.array(labels, np.int32), np.array(confidences), num_unsure, num_known
    )


def labelled_part(store: Store, pseudo: PseudoLabels) -> Store:
    """``store`` without the images that have pseudo-labels, which are last in its catalog."""
    predicted = set(pseudo.paths)
    num_labelled = sum(path not in predicted for path in store.catalog.paths)
    return replace(store, catalog=store.catalog.take(np.arange(num_labelled)))


@dataclass(frozen=True)
class JoinedImages:
    """Labelled images, followed by images with a pseudo-label.

    Attributes:
        store: all images, with soft labels.
        indices: int64, the indices of the images whose pseudo-label is used for training.
        changes: one row of ``data_report.csv`` for each image of ``indices``.
    """

    store: Store
    indices: np.ndarray
    changes: tuple[Fault, ...]


def join_stores(
    labelled: Store,
    all_images: Store,
    pseudo: PseudoLabels,
    weight: float,
    *,
    leave_out_copies: bool,
) -> JoinedImages:
    """Joins labelled images and images with a pseudo-label, and prints how many are used.

    Args:
        labelled: from ``labelled_part``; ``--fixes`` may have changed its labels.
        all_images: a store of the catalog from ``pseudo.join``, without the images that cannot be read.
        pseudo: the predictions.
        weight: the weight in the loss of an image with a pseudo-label. Its soft labels sum to this
            weight; those of a labelled image sum to 1.
        leave_out_copies: whether to leave out images with the same bytes as a labelled image, which may
            be a validation image. To find them, all files of equal size are read.
    """
    num_labelled_images, catalog = len(labelled.catalog), all_images.catalog
    # Labelled images come first.
    indices = np.arange(num_labelled_images, len(catalog), dtype=np.int64)
    if leave_out_copies:
        # Leaves out an image whose first copy is a labelled image.
        first_copy = find_duplicates(catalog)
        indices = indices[first_copy[indices] >= num_labelled_images]
    labels = catalog.labels.copy()
    labels[:num_labelled_images] = labelled.catalog.labels
    names = catalog.class_names
    soft_labels = np.eye(len(names), dtype=np.float32)[labels]
    soft_labels[num_labelled_images:] *= weight
    confidence_of = dict(zip(pseudo.paths, pseudo.confidences, strict=True))
    changes = []
    for index in indices.tolist():
        path = catalog.paths[index]
        detail = f"{names[labels[index]]}, confidence {confidence_of[path]:.4g}"
        changes.append(Fault(path, "pseudo-label", detail))
    num_readable = len(catalog) - num_labelled_images
    num_unreadable = len(pseudo.paths) - num_readable
    num_left_out = pseudo.num_known + num_readable - len(indices)
    report(
        "pseudo",
        f"{len(indices):,} unlabelled images train with their predicted label and weight {weight:g}; "
        f"{pseudo.num_unsure:,} are less confident, {num_left_out:,} labelled or repeated, "
        f"{num_unreadable:,} unreadable",
    )
    fixed = replace(catalog, labels=labels)
    store = replace(all_images, catalog=fixed, soft_labels=soft_labels)
    return JoinedImages(store, indices, tuple(changes))


def _rows(table: Path, source: str) -> Iterator[tuple[int, str, str, float]]:
    """Yields line number, file, predicted class and probability of each row with a prediction."""
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
    """The absolute path of a file of the table; None if it does not exist."""
    for folder in (Path(), table.parent):
        if (folder / file).is_file():
            return os.path.realpath(folder / file)
    return None
