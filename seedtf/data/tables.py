"""Detects the format of a table of labels: encoding, separator, header, and the columns to use.

Tables come from Kaggle, Excel, Hugging Face, Label Studio, Roboflow and users' own scripts. If several
columns may be meant, the error names them and the flag to pass. This module does not import TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from seedtf.data.columns import (
    ANY_COLUMNS,
    ColumnIndices,
    Columns,
    cell_at,
    find_columns,
    find_columns_without_header,
    has_header,
    is_marked,
)
from seedtf.data.table_text import (
    COMMA,
    JSON_LINES,
    UTF8,
    TextFormat,
    detect_text_format,
    name_table,
    read_cells,
    read_head,
)
from seedtf.errors import UserError

__all__ = ["TableFormat", "detect_format", "read_rows"]

_SEPARATOR_NAMES = {COMMA: "comma", "\t": "tab", ";": "`;`", "|": "`|`"}


@dataclass(frozen=True)
class TableFormat:
    """The format of a table.

    Attributes:
        text_format: encoding and separator.
        header: the cells of the header line, or the keys of JSON Lines; None if there is no header.
        columns: the columns to use.
    """

    text_format: TextFormat
    header: tuple[str, ...] | None
    columns: ColumnIndices

    @property
    def has_header_line(self) -> bool:
        """Whether the first line is a header, which JSON Lines do not have."""
        return self.header is not None and self.text_format.separator != JSON_LINES

    @property
    def is_default(self) -> bool:
        """Whether this is the default format: UTF-8, commas, and the columns file and label."""
        columns = self.columns
        return (
            self.header is not None
            and columns.label is not None
            and (self.text_format.encoding, self.text_format.separator) == (UTF8, COMMA)
            and (self.header[columns.file], self.header[columns.label]) == ("file", "label")
        )

    def column_name(self, index: int) -> str:
        """The header of a column, or its number from 1 in a table without header."""
        return f"`{self.header[index]}`" if self.header else f"column {index + 1}"

    def describe(self, file_detail: str = "") -> str:
        """A line about the detected format, for the console.

        Args:
            file_detail: how cells become file names, such as `` + `.jpg` ``. It is appended to the name
                of the column of files.
        """
        columns = self.columns
        parts = [f"file = {self.column_name(columns.file)}{file_detail}"]
        if columns.label is not None:
            parts.append(f"label = {self.column_name(columns.label)}")
        else:
            first, *_, last = map(self.column_name, columns.classes)
            parts.append(
                f"one column for each of {len(columns.classes)} classes, {first} to {last}"
            )
        if columns.split is not None:
            parts.append(f"split = {self.column_name(columns.split)}")
        if self.header is None:
            parts.append("no header")
        separator = self.text_format.separator
        name = _SEPARATOR_NAMES.get(separator)
        parts.append(f"separator {name}" if name else separator)
        if self.text_format.encoding != UTF8:
            parts.append(f"encoding {self.text_format.encoding}")
        return ", ".join(parts)


def detect_format(
    path: str | os.PathLike[str],
    flag: str,
    columns: Columns = ANY_COLUMNS,
    is_file: Callable[[str], bool] = lambda cell: False,
) -> TableFormat:
    """Detects the format of a table from its first lines.

    Args:
        path: the table, local or at a URL.
        flag: the flag that the table was passed with, for error messages; empty for a table that was
            found beside the images.
        columns: the columns that the user named.
        is_file: whether a cell names an image that exists. It is used to choose between two possible
            columns of files, and to detect a header.

    Raises:
        UserError: the table is missing, is not text, or its columns are missing or ambiguous.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("labels.csv").write_text("id;breed\\n000bec;boston_bull\\n")
        >>> detect_format("labels.csv", "--labels_csv").describe()
        'file = `id`, label = `breed`, separator `;`'
    """
    text_format = detect_text_format(path, flag)
    rows, source = read_head(path, text_format, flag), name_table(flag, path)
    if text_format.separator == JSON_LINES:
        header = tuple(key.strip() for key in text_format.keys)
        indices = find_columns(source, header, rows, columns, is_file)
        return TableFormat(text_format, header, indices)
    first = tuple(cell.strip() for cell in rows[0]) if rows else ()
    if not rows or has_header(first, columns, is_file):
        indices = find_columns(source, first, rows[1:], columns, is_file)
        return TableFormat(text_format, first, indices)
    indices = find_columns_without_header(source, rows, columns, is_file)
    return TableFormat(text_format, None, indices)


def read_rows(
    path: str | os.PathLike[str], table_format: TableFormat, flag: str
) -> Iterator[tuple[int, str, str, str]]:
    """Yields the number of each row, and its cells of the file, the label and the side of the split.

    Rows are counted from 1, including the header line but not empty lines. Spaces around a cell are
    removed. A missing cell is an empty string, and so is the side if no column is a split.

    Raises:
        UserError: the table cannot be read; or it has one column for each class, and a row marks no
            class, marks several, or has a cell that is no mark.
    """
    rows = read_cells(path, table_format.text_format, flag)
    if table_format.has_header_line:
        next(rows, None)
    source, columns = name_table(flag, path), table_format.columns
    for number, row in enumerate(rows, start=1 + table_format.has_header_line):
        label = (
            _marked_class(table_format, row, f"{source}: row {number}")
            if columns.label is None
            else cell_at(row, columns.label)
        )
        side = "" if columns.split is None else cell_at(row, columns.split)
        yield number, cell_at(row, columns.file), label, side


def _marked_class(table_format: TableFormat, row: list[str], source: str) -> str:
    """The class that a row marks, in a table with one column for each class. Raises UserError."""
    header, classes = table_format.header, table_format.columns.classes
    assert header is not None
    marked = [index for index in classes if is_marked(cell_at(row, index))]
    wrong = [index for index in classes if is_marked(cell_at(row, index)) is None]
    if wrong:
        cell, name = cell_at(row, wrong[0]), header[wrong[0]]
        raise UserError(
            f"{source}: {cell!r} in the column {name}; use 0 or 1, or pass --label_column"
        )
    if len(marked) != 1:
        names = ", ".join(header[index] for index in marked)
        found = f"{len(marked)} labels ({names})" if marked else "no label"
        raise UserError(
            f"{source} has {found}, and seedtf trains on one label per image; mark one column in each "
            "row, or pass --label_column"
        )
    return header[marked[0]]
