"""Reads a table of labels: which file has which class, and on which side of a split it is.

This module opens no image and does not import TensorFlow.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from seedtf.data.catalog import Catalog, make_catalog
from seedtf.data.columns import ANY_COLUMNS, SPLIT_WORDS, Columns
from seedtf.data.paths import RemotePath, folder_at
from seedtf.data.table_files import FileFinder
from seedtf.data.tables import UTF8, TableForm, find_form, read_rows
from seedtf.errors import UserError
from seedtf.report import report

__all__ = ["LabelTable", "read_label_table", "read_labels_csv"]


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table of labels.

    Attributes:
        catalog: the labelled files, sorted by path.
        sides: for each of them ``train``, ``val`` or ``test``; None if the table has no split.
        description: the detected format; empty for the default one.
    """

    catalog: Catalog
    sides: np.ndarray | None
    description: str


def read_labels_csv(
    csv_path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    flag: str = "--labels_csv",
    columns: Columns = ANY_COLUMNS,
) -> Catalog:
    """Reads a table of files and labels, and prints its detected format.

    Returns only the catalog of ``read_label_table``: a split column is ignored, so the images of every
    side are included. The arguments and errors are those of ``read_label_table``.
    """
    table = read_label_table(csv_path, root, flag, columns)
    if table.description:
        report("table", table.description)
    return table.catalog


def read_label_table(
    csv_path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    flag: str = "--labels_csv",
    columns: Columns = ANY_COLUMNS,
) -> LabelTable:
    """Reads a table with a column of files, relative to ``root``, and a column of labels.

    Separator, encoding, header and the form of the paths are detected. Other columns are ignored. If
    all labels are integers, the classes are sorted as numbers.

    Args:
        csv_path: the table.
        root: the folder of the images.
        flag: the flag that the table was passed with, for error messages.
        columns: the columns that the user named.

    Raises:
        UserError: the table, a column or a listed file is missing, a row is incomplete, two rows
            give one file different labels, or a row gives several labels.
    """
    root, source = folder_at(root), f"{flag}={csv_path}"
    finder = FileFinder(root)
    form = find_form(csv_path, flag, columns, finder.is_file)
    sides: list[str] = []

    def records() -> Iterator[tuple[str, str]]:
        for row, cell, label, side in read_rows(csv_path, form, flag):
            if not cell or not label:
                raise UserError(f"{source}: row {row} is incomplete; give a file and a label")
            if form.split is not None:
                sides.append(SPLIT_WORDS.get(side.lower(), ""))
                if columns.split and not sides[-1]:
                    raise UserError(f"{source}: row {row}: split {side!r}; use train, val or test")
            yield finder.find(cell), label

    in_table_order = make_catalog(root, records(), [], _sort_class_names)
    if not len(in_table_order):
        raise UserError(f"{source}: no rows; give one line per image")
    _check_single_label(in_table_order.class_names, source)
    paths = in_table_order.paths
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)
    catalog = in_table_order.take(order)
    repeated = _repeated(catalog)
    for index in repeated.tolist():
        if catalog.labels[index] != catalog.labels[index - 1]:
            earlier, later = (catalog.class_names[catalog.labels[i]] for i in (index - 1, index))
            raise UserError(
                f"{source}: row {order[index] + form.first_row} labels {catalog.paths[index]!r} as "
                f"{later!r}, an earlier row as {earlier!r}; keep one"
            )
    kept = np.delete(np.arange(len(catalog)), repeated)
    catalog = catalog.take(kept)
    _check_present(catalog, form, source)
    if form.split is not None and not columns.split and not _uses_split(sides, form):
        form = replace(form, split=None)
    detail = finder.describe()
    return LabelTable(
        catalog,
        np.array(sides)[order][kept] if form.split is not None else None,
        "" if form.is_plain and form.split is None and not detail else form.describe(detail),
    )


def _uses_split(sides: list[str], form: TableForm) -> bool:
    """Whether a detected split column, which the user did not name, is used.

    A table in the default format, such as the split.csv of a run, is split again, as in earlier
    versions. If it has test rows its split is used, because they must not be used for training.
    """
    return all(sides) and (not form.is_plain or "test" in sides)


def _sort_class_names(names: Iterable[str]) -> list[str]:
    """``names`` sorted, as numbers if all are integers."""
    names = sorted(names)
    if all(re.fullmatch(r"-?\d+", name, re.ASCII) for name in names):
        names.sort(key=int)
    return names


def _check_single_label(class_names: Sequence[str], source: str) -> None:
    """Raises UserError if a class name is a list of other class names, as in multi-label tables."""
    known = set(class_names)
    for name in class_names:
        parts = [part.strip() for part in re.split("[,;|]", name)]
        if len(parts) > 1 and (known.issuperset(parts) or re.fullmatch(r"\[.*\]", name)):
            raise UserError(
                f"{source}: a row has several labels ({name!r}), and seedtf trains on one label per "
                "image; keep one label in each row"
            )


def _repeated(catalog: Catalog) -> np.ndarray:
    """Indices in a sorted catalog whose path equals the previous path, int64."""
    pairs = enumerate(itertools.pairwise(catalog.paths), start=1)
    return np.array([index for index, (before, path) in pairs if before == path], np.int64)


def _check_present(catalog: Catalog, form: TableForm, source: str) -> None:
    """Raises UserError if a listed file is missing; files at a URL are checked when they are read."""
    if isinstance(catalog.root, RemotePath):
        return
    num_missing, first_missing = 0, ""
    for path, absolute in zip(catalog.paths, catalog.absolute_paths(), strict=True):
        if not os.path.isfile(absolute):
            num_missing, first_missing = num_missing + 1, first_missing or path
    if num_missing == len(catalog) and form.encoding not in (UTF8, "utf-16"):
        raise UserError(
            f"{source}: is not a UTF-8 CSV file, and read as {form.encoding} it names no file that is "
            f"in {catalog.root}, first {first_missing!r}; save it as UTF-8"
        )
    if num_missing:
        raise UserError(
            f"{source}: {num_missing} of {len(catalog)} files are not in {catalog.root}, "
            f"first {first_missing!r}; check --data_dir or the table"
        )
