"""Detects the format of a table of labels: encoding, separator, header, and the columns to use.

Tables come from Kaggle, Excel, Label Studio and users' own scripts. The detected format is described in
one line. If it is ambiguous, the error names the candidates and the flag to pass. This module does not
import TensorFlow.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from seedtf.data.columns import (
    ANY_COLUMNS,
    Columns,
    cell_at,
    has_header,
    named_columns,
    numbered_columns,
)
from seedtf.data.paths import is_url, read_url
from seedtf.errors import UserError

__all__ = ["UTF8", "TableForm", "find_form", "open_table", "read_rows", "table_errors"]

UTF8 = "utf-8-sig"
"""UTF-8, with or without a byte-order mark."""

_SEPARATORS = {",": "comma", ";": "`;`", "\t": "tab", "|": "`|`"}
_HEAD_BYTES, _HEAD_ROWS = 1 << 16, 20
_BINARY_KINDS = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"PAR1": "a Parquet file",
}


@dataclass(frozen=True)
class TableForm:
    """The format of a table.

    Attributes:
        encoding: the encoding of the file.
        separator: the character between the cells.
        header: the cells of the first line; None if the table has no header.
        file: index of the column of files or ids.
        label: index of the column of labels.
        split: index of the column that contains train, val or test; None if there is none.
    """

    encoding: str
    separator: str
    header: tuple[str, ...] | None
    file: int
    label: int
    split: int | None

    @property
    def first_row(self) -> int:
        """The number of the first row with data, counted from 1."""
        return 1 if self.header is None else 2

    @property
    def is_plain(self) -> bool:
        """Whether this is the default format: UTF-8, commas, and the columns file and label."""
        return (
            self.header is not None
            and self.encoding == UTF8
            and self.separator == ","
            and (self.header[self.file], self.header[self.label]) == ("file", "label")
        )

    def column_name(self, index: int) -> str:
        """The header of a column, or its number from 1 in a table without header."""
        return f"`{self.header[index]}`" if self.header else f"column {index + 1}"

    def describe(self, file_detail: str = "") -> str:
        """Describes the detected format in one line.

        Args:
            file_detail: how a file name was made from a cell, such as `` + `.jpg` ``.
        """
        parts = [
            f"file = {self.column_name(self.file)}{file_detail}",
            f"label = {self.column_name(self.label)}",
        ]
        if self.split is not None:
            parts.append(f"split = {self.column_name(self.split)}")
        if self.header is None:
            parts.append("no header")
        parts.append(f"separator {_SEPARATORS[self.separator]}")
        if self.encoding != UTF8:
            parts.append(f"encoding {self.encoding}")
        return ", ".join(parts)


def find_form(
    path: str | os.PathLike[str],
    flag: str,
    columns: Columns = ANY_COLUMNS,
    is_file: Callable[[str], bool] = lambda cell: False,
) -> TableForm:
    """Detects the format of a table from its first lines.

    Args:
        path: the table, local or at a URL.
        flag: the flag that the table was passed with, for error messages.
        columns: the columns that the user named.
        is_file: whether a cell names an image that exists; it decides between two columns that may
            both contain files, and whether the first line is a header.

    Raises:
        UserError: the table is missing, is not text, or its columns are ambiguous.

    Example:
        >>> _ = Path("labels.csv").write_text("id;breed\\n000bec;boston_bull\\n")
        >>> find_form("labels.csv", "--labels_csv").describe()
        'file = `id`, label = `breed`, separator `;`'
    """
    with table_errors(path, flag):
        encoding = _find_encoding(path, flag)
        with open_table(path, encoding) as file:
            head = "".join(itertools.islice(file, _HEAD_ROWS))
        separator, rows = _find_separator(head)
        source = f"{flag}={path}"
        first = tuple(cell.strip() for cell in rows[0]) if rows else ()
        if not rows or has_header(first, columns, is_file):
            indices = named_columns(source, first, rows[1:], columns, is_file)
            return TableForm(encoding, separator, first, *indices)
        indices = numbered_columns(source, rows, columns, is_file)
        return TableForm(encoding, separator, None, *indices)


def read_rows(
    path: str | os.PathLike[str], form: TableForm, flag: str
) -> Iterator[tuple[int, str, str, str]]:
    """Yields the number of each row, from 1, and its cells of file, label and split, stripped.

    Empty lines are skipped and not counted. A missing cell is an empty string.

    Raises:
        UserError: the table cannot be read.
    """
    with table_errors(path, flag), open_table(path, form.encoding) as file:
        rows = filter(None, csv.reader(file, delimiter=form.separator))
        if form.header is not None:
            next(rows, None)
        for number, row in enumerate(rows, start=form.first_row):
            file_cell, label = cell_at(row, form.file), cell_at(row, form.label)
            yield number, file_cell, label, "" if form.split is None else cell_at(row, form.split)


@contextmanager
def open_table(path: str | os.PathLike[str], encoding: str = UTF8) -> Iterator[TextIO]:
    """Opens a table, local or at a URL, as text with its line ends unchanged."""
    if is_url(path):
        yield io.StringIO(read_url(os.fspath(path)).decode(encoding), newline="")
        return
    with Path(path).open(newline="", encoding=encoding) as file:
        yield file


def _find_encoding(path: str | os.PathLike[str], flag: str) -> str:
    """UTF-8 or UTF-16, detected by byte-order mark or content; otherwise cp1252, as Excel writes."""
    if is_url(path):
        return UTF8
    decoder = codecs.getincrementaldecoder("utf-8")()
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
        for magic, kind in _BINARY_KINDS.items():
            if head.startswith(magic):
                raise UserError(f"{flag}={path}: is {kind}; save it as CSV")
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if head[1:20:2].count(0) > 5:
            return "utf-16-le"
        if head[:20:2].count(0) > 5:
            return "utf-16-be"
        try:
            while head:
                decoder.decode(head)
                head = file.read(_HEAD_BYTES)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return UTF8


def _find_separator(head: str) -> tuple[str, list[list[str]]]:
    """The separator of the first lines, and their cells.

    It is the comma if the first line then contains ``file`` and ``label``. Otherwise it is the one with
    which most lines have the same number of cells as the first line; if there are several, the one with
    the most cells.
    """
    parsed: dict[str, list[list[str]]] = {}
    for separator in _SEPARATORS:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
        parsed[separator] = [row for row in reader if row]
    if parsed[","] and {"file", "label"} <= set(parsed[","][0]):
        return ",", parsed[","]

    def quality(separator: str) -> tuple[bool, int, int]:
        widths = [len(row) for row in parsed[separator]]
        width = widths[0] if widths else 0
        return width > 1, widths.count(width), width

    best = max(_SEPARATORS, key=quality)  # the first of equals
    return best, parsed[best]


@contextmanager
def table_errors(path: str | os.PathLike[str], flag: str) -> Iterator[None]:
    """Converts the errors of reading a table to a UserError that names the flag."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{flag}={path}: no such file; pass a CSV table") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{flag}={path}: cannot be read as UTF-8 CSV: {error}") from error
