"""Reads tables of labels: the class of each file and, if the table has a split, its side of the split.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, make_catalog
from seedtf.data.columns import ANY_COLUMNS, NO_SPLIT, SPLIT_WORDS, Columns
from seedtf.data.paths import Folder, RemotePath, folder_at, is_file
from seedtf.data.table_files import FileFinder
from seedtf.data.table_text import UTF8, name_table, table_errors
from seedtf.data.tables import TableFormat, detect_format, read_rows
from seedtf.errors import DataConflictError, UserError

__all__ = ["LabelTable", "read_label_table", "read_split_tables", "sort_class_names"]

_NAME_FILES = ("names.txt", "class_names.txt")


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table of labels.

    Attributes:
        catalog: the labelled files, sorted by path.
        sides: ``train``, ``val`` or ``test`` for each file; None if no split in the table is used.
        description: the detected format of the table; empty for the default format.
        source: how messages name the table, for example ``--labels_csv=labels.csv``.
    """

    catalog: Catalog
    sides: np.ndarray | None
    description: str
    source: str


def read_label_table(
    csv_path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    flag: str = "--labels_csv",
    columns: Columns = ANY_COLUMNS,
) -> LabelTable:
    """Reads a table of files, relative to ``root``, and labels.

    The table has one column of labels, or one column for each class. Its separator, encoding and header
    are detected, and so is the way in which paths are written. A column of the split is read as well;
    all other columns are ignored. If all labels are integers, the classes are sorted as numbers.

    Args:
        csv_path: the table.
        root: the folder of the images.
        flag: the flag that the table was passed with, for error messages; empty for a table that was
            found beside the images.
        columns: the columns that the user named.

    Raises:
        UserError: the table, a column or a listed file is missing or ambiguous; there are no rows; a
            row is incomplete or has several labels; a row has no valid side although the split is used;
            two rows give one file different labels; or a file of class names does not fit the labels.
    """
    rows = _Rows(csv_path, folder_at(root), flag=flag, columns=columns)
    return _join_tables(folder_at(root), [rows])


def read_split_tables(
    root: Folder, tables: Sequence[tuple[str, str, str]], columns: Columns = ANY_COLUMNS
) -> LabelTable:
    """Reads the tables in the folders of a split. Their paths are relative to the table's own folder.

    Args:
        root: the folder that contains the folders of the split.
        tables: for each folder, its side (``train``, ``val`` or ``test``), its name, and the name of
            the table in it.
        columns: the columns that the user named.

    Raises:
        UserError: for the reasons of ``read_label_table``.
    """
    parts = [
        _Rows(root / folder / name, root / folder, f"{folder}/", columns=columns, side=side)
        for side, folder, name in tables
    ]
    return _join_tables(root, parts)


class _Rows:
    """The rows of one table, which can be iterated over once.

    Attributes:
        source: how error messages name the table.
        format: the format of the table.
        finder: finds the files that the cells name.
        sides: the side of each row that was read; an empty string for a row without a valid side.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        folder: Folder,
        prefix: str = "",
        *,
        flag: str = "",
        columns: Columns = ANY_COLUMNS,
        side: str = "",
    ) -> None:
        """Detects the format.

        Args:
            path: the table.
            folder: the folder that the paths in the table are relative to.
            prefix: the text to put before these paths to make them relative to the root of the catalog;
                empty, or the name of ``folder`` and a slash.
            flag: the flag that the table was passed with, for error messages; empty for a table that
                was found beside the images.
            columns: the columns that the user named.
            side: the side of all rows; empty if a column of the table may give the sides.
        """
        self.source = name_table(flag, path)
        self.finder = FileFinder(folder)
        self.format = detect_format(path, flag, columns, self.finder.is_file)
        self.sides: list[str] = []
        self._path, self._prefix, self._flag, self._side = path, prefix, flag, side
        self._split_is_named = bool(columns.named_split)
        self._wrong_side = ""  # The number and the cell of the first row without a valid side.

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for row, cell, label, side in read_rows(self._path, self.format, self._flag):
            if not cell or not label:
                raise UserError(f"{self.source}: row {row} is incomplete; give a file and a label")
            self.sides.append(self._side or SPLIT_WORDS.get(side.lower(), ""))
            if not self.sides[-1] and not self._wrong_side:
                self._wrong_side = f"row {row}: split {side!r}"
                if self._split_is_named:
                    raise UserError(f"{self.source}: {self._wrong_side}; use train, val or test")
            yield self._prefix + self.finder.find(cell), label

    @property
    def uses_split(self) -> bool:
        """Whether the sides of the rows are used as the split.

        If the table is in the default format, such as the split.csv of a run, a detected column of the
        split is used only if it has test rows, which must not become training images. Otherwise a new
        split is drawn, as in earlier versions.
        """
        if self._side or self._split_is_named:
            return True
        is_detected = self.format.columns.split is not None
        return is_detected and (not self.format.is_default or "test" in self.sides)

    def check_split(self) -> None:
        """Raises DataConflictError if the split is used and a row that was read has no valid side.

        A column is taken for a split by the first lines of the table, so a later cell may be invalid.
        """
        column = self.format.columns.split
        if self._wrong_side and column is not None and self.uses_split:
            raise DataConflictError(
                f"{self.source}: {self._wrong_side}; use train, val or test, or pass "
                f"--split_column={NO_SPLIT} if {self.format.column_name(column)} is no split"
            )

    @property
    def folder(self) -> Folder:
        """The folder of the table itself."""
        return folder_at(self._path).parent

    def describe(self, names_detail: str) -> str:
        """The format in one line, which ends with ``names_detail``, the source of the class names.

        The line is empty for the default format without any details.
        """
        table_format, detail = self.format, self.finder.describe()
        if not self.uses_split or self._side:
            columns = replace(table_format.columns, split=None)
            table_format = replace(table_format, columns=columns)
        is_default = table_format.is_default and table_format.columns.split is None
        if is_default and not detail + names_detail:
            return ""
        return table_format.describe(detail) + names_detail


def _join_tables(root: Folder, tables: Sequence[_Rows]) -> LabelTable:
    """Joins the rows of all tables into one catalog, sorted by path, that lists each file once."""
    in_table_order = make_catalog(root, itertools.chain.from_iterable(tables), [], sort_class_names)
    if not len(in_table_order):
        raise UserError(f"{tables[0].source}: no rows; give one line per image")
    for table in tables:
        table.check_split()
    _check_single_label(in_table_order.class_names, tables[0].source)
    paths = in_table_order.paths
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)
    catalog = in_table_order.take(order)
    repeated = _find_repeated(catalog)
    for index in repeated.tolist():
        if catalog.labels[index] != catalog.labels[index - 1]:
            earlier, later = (catalog.class_names[catalog.labels[i]] for i in (index - 1, index))
            raise UserError(
                f"{_row_name(tables, order[index])} labels {catalog.paths[index]!r} as "
                f"{later!r}, an earlier row as {earlier!r}; keep one"
            )
    kept = np.delete(np.arange(len(catalog)), repeated)
    catalog = catalog.take(kept)
    _check_present(catalog, tables[0].format, tables[0].source)
    catalog, names_detail = _read_class_names(catalog, tables[0])
    sides = None
    if all(table.uses_split for table in tables):
        sides = np.array([side for table in tables for side in table.sides])[order][kept]
    others = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
    description = tables[0].describe(names_detail)
    return LabelTable(catalog, sides, description, tables[0].source + others)


def _row_name(tables: Sequence[_Rows], index: int) -> str:
    """How an error message names a row: ``index`` counts the rows of all tables from 0."""
    for table in tables:
        if index < len(table.sides):
            return f"{table.source}: row {index + 1 + table.format.has_header_line}"
        index -= len(table.sides)
    raise AssertionError("unreachable")


def sort_class_names(names: Iterable[str]) -> list[str]:
    """The sorted names: as numbers if all names are integers, otherwise as text."""
    names = sorted(names)
    if all(re.fullmatch(r"-?\d{1,18}", name, re.ASCII) for name in names):
        names.sort(key=int)
    return names


def _check_single_label(class_names: Sequence[str], source: str) -> None:
    """Raises UserError if a class name is a list of labels, as in multi-label tables.

    A name is taken for a list if it is divided by ``,``, ``;`` or ``|``, and all its parts are class
    names or the whole name is in brackets.
    """
    known = set(class_names)
    for name in class_names:
        parts = [part.strip() for part in re.split("[,;|]", name)]
        if len(parts) > 1 and (known.issuperset(parts) or re.fullmatch(r"[\[{].*[\]}]", name)):
            raise UserError(
                f"{source}: a row has several labels ({name!r}), and seedtf trains on one label per "
                "image; keep one label in each row"
            )


def _read_class_names(catalog: Catalog, table: _Rows) -> tuple[Catalog, str]:
    """Replaces classes that are all numbers by the names in a file beside the table, if it exists.

    The file is ``names.txt`` or ``class_names.txt``, with one name in each line. Its first line is the
    name of class 0; or of class 1, if the largest label equals the number of names and no label is 0.

    Returns:
        The catalog, and a description of the file, which is empty if there is no such file.
    """
    if not isinstance(table.folder, Path) or not all(map(str.isdecimal, catalog.class_names)):
        return catalog, ""
    files = [table.folder / name for name in _NAME_FILES if (table.folder / name).is_file()]
    if not files:
        return catalog, ""
    with table_errors(files[0], ""):
        lines = files[0].read_text(encoding=UTF8).split("\n")
    names = [line.strip() for line in lines if line.strip()]
    numbers = [int(name) for name in catalog.class_names]
    first = 1 if 0 not in numbers and max(numbers) == len(names) else 0
    if max(numbers) - first >= len(names) or len(set(names)) < len(names):
        raise UserError(
            f"{files[0]}: has {len(names)} lines with {len(set(names))} different names, and "
            f"{table.source} has labels up to {max(numbers)}; give each class one line, or rename the "
            "file"
        )
    class_names = tuple(names[number - first] for number in numbers)
    return replace(
        catalog, class_names=class_names
    ), f", names from {files[0]} ({first} = {names[0]})"


def _find_repeated(catalog: Catalog) -> np.ndarray:
    """The indices, int64, of paths in a sorted catalog that are equal to the previous path."""
    pairs = enumerate(itertools.pairwise(catalog.paths), start=1)
    return np.array([index for index, (before, path) in pairs if before == path], np.int64)


def _check_present(catalog: Catalog, table_format: TableFormat, source: str) -> None:
    """Raises UserError if a listed file is missing; files at a URL are not checked here."""
    if isinstance(catalog.root, RemotePath):
        return
    num_missing, first_missing = 0, ""
    for path, absolute in zip(catalog.paths, catalog.absolute_paths(), strict=True):
        if not is_file(absolute):
            num_missing, first_missing = num_missing + 1, first_missing or path
    encoding = table_format.text_format.encoding
    if num_missing == len(catalog) and encoding not in (UTF8, "utf-16"):
        raise UserError(
            f"{source}: is not a UTF-8 CSV file, and read as {encoding} it names no file that is "
            f"in {catalog.root}, first {first_missing!r}; save it as UTF-8"
        )
    if num_missing:
        raise UserError(
            f"{source}: {num_missing} of {len(catalog)} files are not in {catalog.root}, "
            f"first {first_missing!r}; check --data_dir or the table"
        )
