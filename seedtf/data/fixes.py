"""Reads ``fixes.csv``, a table that corrects labels of images and drops images.

``seedtf explore`` writes such a table. The image files are neither opened nor changed. This module does
not import TensorFlow.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, to_nfc
from seedtf.data.paths import RemotePath
from seedtf.data.string_array import NameFinder
from seedtf.data.table_text import read_csv_rows
from seedtf.errors import UserError
from seedtf.report import format_count

__all__ = ["DROP", "DROPPED", "FIX_COLUMNS", "KEEP", "RELABEL", "RELABELLED", "FixTable", "Fixes"]

RELABEL, KEEP, DROP = "relabel", "keep", "drop"

FIX_COLUMNS = ("path", "action", "label")
"""The header of ``fixes.csv``."""

RELABELLED, DROPPED = "relabelled", "left out by --fixes"
"""The cells of the column fault of ``data_report.csv`` for relabelled and for dropped images."""

_FLAG = "--fixes"


@dataclass(frozen=True)
class _Row:
    """A row of the table: its line number, and its cells without surrounding spaces."""

    line: int
    path: str
    action: str
    label: str


@dataclass(frozen=True)
class Fixes:
    """The rows of a table, applied to a catalog of N images.

    Attributes:
        labels: int32 ``[N]``, the labels after the changes.
        dropped: bool ``[N]``, whether each image is to be left out.
        reviewed: bool ``[N]``, whether each image has a row.
        num_kept: number of images whose row changes nothing.
        num_others: number of rows about images that are not in the catalog.
        changes: one row of ``data_report.csv`` for each image that was changed or left out.
    """

    labels: np.ndarray
    dropped: np.ndarray
    reviewed: np.ndarray
    num_kept: int
    num_others: int
    changes: tuple[Fault, ...]

    def relabel(self, catalog: Catalog) -> Catalog:
        """``catalog`` with the labels after the changes."""
        return replace(catalog, labels=self.labels)

    def describe(self) -> str:
        """How many images were relabelled, left out and kept, for the console."""
        counts = Counter(change.fault for change in self.changes)
        parts = [
            f"{counts[RELABELLED]:,} relabelled",
            f"{counts[DROPPED]:,} left out",
            f"{self.num_kept:,} kept",
        ]
        text = ", ".join(parts)
        if self.num_others:
            text += f"; {format_count(self.num_others, 'row')} about other images"
        return text


class FixTable:
    """A table with the columns path, action (relabel, keep or drop) and label.

    Args:
        path: the table, a CSV file in UTF-8.

    Raises:
        UserError: the table cannot be read, or a row is wrong; the message has its line number.

    Example:
        >>> _ = Path("fixes.csv").write_text("path,action,label\\noak/2.jpg,relabel,elm\\n")
        >>> labels = np.array([0, 1, 1], np.int32)
        >>> paths = ["elm/1.jpg", "oak/2.jpg", "oak/3.jpg"]
        >>> fixes = FixTable("fixes.csv").find(Catalog(Path("d"), paths, labels, ("elm", "oak")))
        >>> fixes.labels.tolist(), fixes.describe()
        ([0, 0, 1], '1 relabelled, 0 left out, 0 kept')
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the rows and checks what can be checked without a catalog."""
        self.source = f"{_FLAG}={os.fspath(path)}"
        rows: dict[str, _Row] = {}
        for row in self._read(Path(path)):
            earlier = rows.setdefault(row.path, row)
            self._check_agree(earlier, row)
        self._rows = tuple(rows.values())

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Path, action and label of each row; the label is empty unless the action is ``relabel``."""
        return [(row.path, row.action, row.label) for row in self._rows]

    def find(self, catalog: Catalog, data_dir: str = "", *, others_allowed: bool = False) -> Fixes:
        """Applies the rows to the images of a catalog, which itself does not change.

        Args:
            catalog: N images; rows about files in its ``faults`` count in ``num_others``.
            data_dir: another folder that paths may be relative to, besides the root of the catalog.
            others_allowed: whether a row about an image that is not in the catalog is counted in
                ``num_others`` and not refused; for a catalog that has only some of the images.

        Raises:
            UserError: an image or a class does not exist, or two rows about one image, whose paths are
                spelled differently, contradict each other; the message has the line number.
        """
        finder = NameFinder(catalog.paths)
        unusable = {fault.path for fault in catalog.faults}
        index_of = {to_nfc(name): index for index, name in enumerate(catalog.class_names)}
        index_of |= {name: index for index, name in enumerate(catalog.class_names)}
        labels = catalog.labels.copy()
        dropped, reviewed = np.zeros(len(catalog), bool), np.zeros(len(catalog), bool)
        num_kept, num_others, changes = 0, 0, []
        row_of: dict[int, _Row] = {}
        for row in self._rows:
            label = index_of.get(row.label, index_of.get(to_nfc(row.label), -1))
            if row.action == RELABEL and label < 0:
                raise self._error(row, f"no class {row.label!r} in the data; correct it")
            index = _find(finder, catalog, data_dir, row.path)
            if index < 0:
                if not others_allowed and row.path not in unusable:
                    raise self._error(row, f"is not in {catalog.root}; correct or remove the row")
                num_others += 1
                continue
            if (earlier := row_of.setdefault(index, row)) is not row:
                self._check_agree(earlier, row)
                continue
            reviewed[index] = True
            path, before = catalog.paths[index], catalog.class_names[labels[index]]
            if row.action == DROP:
                dropped[index] = True
                changes.append(Fault(path, DROPPED, f"label {before}"))
            elif row.action == RELABEL and label != labels[index]:
                labels[index] = label
                after = catalog.class_names[label]
                changes.append(Fault(path, RELABELLED, f"from {before} to {after}"))
            else:
                num_kept += 1
        return Fixes(labels, dropped, reviewed, num_kept, num_others, tuple(changes))

    def _check_agree(self, earlier: _Row, row: _Row) -> None:
        """Raises UserError if two rows about the same image differ in action or label."""
        if (earlier.action, earlier.label) != (row.action, row.label):
            raise self._error(row, f"contradicts line {earlier.line}; keep one of them")

    def _read(self, path: Path) -> Iterator[_Row]:
        for line, cells in read_csv_rows(path, FIX_COLUMNS, _FLAG):
            values = [(cells[name] or "").strip() for name in FIX_COLUMNS]
            row = _Row(line, values[0], values[1].lower(), values[2])
            if not row.path:
                raise self._error(row, "has no path; give one, or remove the row")
            if row.action not in (RELABEL, KEEP, DROP):
                raise self._error(row, f"action {row.action!r}; use relabel, keep or drop")
            if row.action == RELABEL and not row.label:
                raise self._error(row, "relabel without a label; give the right class")
            yield row if row.action == RELABEL else replace(row, label="")

    def _error(self, row: _Row, reason: str) -> UserError:
        image = f"{row.path!r} " if row.path else ""
        return UserError(f"{self.source}: line {row.line}: {image}{reason}")


def _find(finder: NameFinder, catalog: Catalog, data_dir: str, path: str) -> int:
    """The index of an image; −1 if neither the catalog's root nor ``data_dir`` has ``path``."""
    index = finder.find(path)
    if index >= 0 or isinstance(catalog.root, RemotePath):
        return index
    return finder.find(os.path.relpath(os.path.join(data_dir or catalog.root, path), catalog.root))
