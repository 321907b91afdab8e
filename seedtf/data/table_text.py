"""Reads tables as rows of cells: CSV, whose encoding and separator are detected, and JSON Lines.

This module does not import TensorFlow.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from seedtf.data.paths import is_url, read_url
from seedtf.errors import UserError

__all__ = [
    "COMMA",
    "JSON_LINES",
    "UTF8",
    "TextFormat",
    "detect_text_format",
    "name_table",
    "read_cells",
    "read_csv",
    "read_csv_rows",
    "read_head",
    "table_errors",
]

UTF8 = "utf-8-sig"
"""UTF-8, with or without a byte-order mark."""

COMMA, JSON_LINES = ",", "JSON Lines"
_SEPARATORS = (COMMA, ";", "\t", "|")
_HEAD_BYTES, _HEAD_ROWS = 1 << 16, 20
_BINARY_KINDS = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"PAR1": "a Parquet file",
}


@dataclass(frozen=True)
class TextFormat:
    """How the bytes of a table become rows of cells.

    Attributes:
        encoding: the encoding of the file.
        separator: the character between the cells, or ``JSON_LINES`` for one JSON object in each line.
        keys: for JSON Lines, the columns, which are the keys of the first 20 lines; empty for CSV.
    """

    encoding: str
    separator: str
    keys: tuple[str, ...] = ()


def detect_text_format(path: str | os.PathLike[str], flag: str) -> TextFormat:
    """Detects encoding and separator of a table from its first lines.

    Raises:
        UserError: the table is missing or is not text; or it begins with ``{``, as JSON Lines do, but
            one of its first 20 lines is not a JSON object.

    Example:
        >>> _ = Path("labels.jsonl").write_text('{"file_name": "1.jpg", "label": 3}\\n')
        >>> text_format = detect_text_format("labels.jsonl", "--labels_csv")
        >>> text_format.separator, text_format.keys
        ('JSON Lines', ('file_name', 'label'))
        >>> list(read_cells("labels.jsonl", text_format, "--labels_csv"))
        [['1.jpg', '3']]
    """
    with table_errors(path, flag):
        encoding = _find_encoding(path, flag)
        head = _first_lines(path, encoding)
        if not head.lstrip().startswith("{"):
            return TextFormat(encoding, _find_separator(head))
        lines = io.StringIO(head, newline="")  # splitlines() also splits at U+2028
        objects = [_json_object(line) for line in lines if line.strip()]
        keys = dict.fromkeys(key for record in objects for key in record)
        return TextFormat(encoding, JSON_LINES, tuple(keys))


def read_cells(
    path: str | os.PathLike[str], text_format: TextFormat, flag: str
) -> Iterator[list[str]]:
    """Yields the cells of each line that is not empty, including the header line of a CSV table.

    Raises:
        UserError: the table cannot be read.
    """
    with table_errors(path, flag), _open_table(path, text_format.encoding) as file:
        yield from _cells(file, text_format)


def read_head(path: str | os.PathLike[str], text_format: TextFormat, flag: str) -> list[list[str]]:
    """The cells of each of the first 20 lines that is not empty.

    Raises:
        UserError: the table cannot be read.
    """
    with table_errors(path, flag):
        head = _first_lines(path, text_format.encoding)
        return list(_cells(io.StringIO(head, newline=""), text_format))


def read_csv(
    csv_path: str | os.PathLike[str], columns: Sequence[str], flag: str = ""
) -> Iterator[list[str]]:
    """Yields the cells of ``columns`` in each row of a UTF-8 CSV table with a header line.

    Raises:
        UserError: the file is missing, is not UTF-8 CSV, or lacks one of ``columns``.
    """
    for _, row in read_csv_rows(csv_path, columns, flag):
        yield [row[column] or "" for column in columns]


def read_csv_rows(
    csv_path: str | os.PathLike[str], columns: Sequence[str], flag: str, remedy: str = ""
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yields the line number and the cells by column of each row of a UTF-8 CSV table with a header.

    Cells that a short row lacks at its end are None.

    Args:
        csv_path: the table.
        columns: the columns that the header must have; it may have more.
        flag: the flag that named the table, or empty.
        remedy: what the error message tells the user to do if a column is missing; if empty, to name
            ``columns`` in the first line.

    Raises:
        UserError: the file is missing, is not UTF-8 CSV, or lacks one of ``columns``.
    """
    with table_errors(csv_path, flag), _open_table(csv_path) as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        missing = [column for column in columns if column not in header]
        if missing:
            found = ", ".join(header) or "none"
            remedy = remedy or f"the first line must name {', '.join(columns)}"
            name = name_table(flag, csv_path)
            raise UserError(f"{name}: no column {missing[0]!r}, found {found}; {remedy}")
        for row in reader:
            yield reader.line_num, row


def name_table(flag: str, path: str | os.PathLike[str]) -> str:
    """How an error message names a table: ``flag=path``, or only the path if ``flag`` is empty."""
    return f"{flag}={path}" if flag else os.fspath(path)


@contextmanager
def table_errors(path: str | os.PathLike[str], flag: str) -> Iterator[None]:
    """Converts the errors of reading a table in the ``with`` block to UserErrors that name it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{name_table(flag, path)}: no such file; pass a CSV table") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{name_table(flag, path)}: cannot be read as a table: {error}") from error
    except _NotAnObjectError as error:
        raise UserError(f"{name_table(flag, path)}: {error}") from None


class _NotAnObjectError(Exception):
    """A line of a JSON Lines table is not a JSON object."""


@contextmanager
def _open_table(path: str | os.PathLike[str], encoding: str = UTF8) -> Iterator[TextIO]:
    """Opens a table, local or at a URL, as text with its line ends unchanged."""
    if is_url(path):
        yield io.StringIO(read_url(os.fspath(path)).decode(encoding), newline="")
        return
    with Path(path).open(newline="", encoding=encoding) as file:
        yield file


def _first_lines(path: str | os.PathLike[str], encoding: str) -> str:
    with _open_table(path, encoding) as file:
        return "".join(itertools.islice(file, _HEAD_ROWS))


def _cells(file: TextIO, text_format: TextFormat) -> Iterator[list[str]]:
    if text_format.separator != JSON_LINES:
        yield from filter(None, csv.reader(file, delimiter=text_format.separator))
        return
    for line in file:
        if line.strip():
            values = _json_object(line)
            yield [_cell_of(values.get(key)) for key in text_format.keys]


def _json_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _NotAnObjectError(f"a line is no JSON object: {line.strip()[:40]!r}; correct it")
    return value


def _cell_of(value: Any) -> str:
    """A JSON value as the text of a cell; a list of one value becomes the text of that value."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _find_encoding(path: str | os.PathLike[str], flag: str) -> str:
    """The encoding: UTF-8 or UTF-16, by byte-order mark or content, otherwise cp1252, as Excel writes.

    A table at a URL is always read as UTF-8.
    """
    if is_url(path):
        return UTF8
    decoder = codecs.getincrementaldecoder("utf-8")()
    with Path(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
        for magic, kind in _BINARY_KINDS.items():
            if head.startswith(magic):
                raise UserError(f"{name_table(flag, path)}: is {kind}; save it as CSV")
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


def _find_separator(head: str) -> str:
    """The separator of the first lines of a table.

    It is the comma if the first line, divided at commas, contains ``file`` and ``label``. Otherwise,
    these criteria decide, each only if the previous one does not: whether the separator divides the
    first line, how many lines then have as many cells as the first line, and how many cells these are.
    """
    num_cells: dict[str, list[int]] = {}
    for separator in _SEPARATORS:
        rows = list(_cells(io.StringIO(head, newline=""), TextFormat(UTF8, separator)))
        if separator == COMMA and rows and {"file", "label"} <= set(rows[0]):
            return COMMA
        num_cells[separator] = [len(row) for row in rows]

    def quality(separator: str) -> tuple[bool, int, int]:
        first = num_cells[separator][0] if num_cells[separator] else 0
        return first > 1, num_cells[separator].count(first), first

    return max(_SEPARATORS, key=quality)
