"""Finds the columns of a table that contain the files, the labels and the split.

This module does not import TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seedtf.errors import UserError

__all__ = [
    "ANY_COLUMNS",
    "NO_SPLIT",
    "SPLIT_WORDS",
    "ColumnIndices",
    "Columns",
    "cell_at",
    "find_columns",
    "find_columns_without_header",
    "has_header",
    "is_marked",
]

# The usual names of columns, in lower case and without spaces and punctuation, in groups. A name of a
# later group is used only if no column of the table fits an earlier group.
_FILE_NAMES = (
    {
        *("file", "filename", "filepath", "path", "image", "img", "images", "imagepath"),
        *("imgpath", "imagefile", "imagefilename", "imagename", "imgname", "photo", "picture"),
    },
    {"id", "imageid", "imgid", "idcode", "photoid", "pictureid", "fileid", "uuid"},
)
_LABEL_NAMES = (
    {
        *("label", "labels", "class", "classname", "category", "categoryname", "species", "breed"),
        *("target", "diagnosis", "labelname", "variety", "cultivar", "disease", "choice", "tag"),
    },
    {"labelid", "classid", "categoryid", "speciesid", "breedid", "targetid", "y"},
)
# Usual names of columns of free text, such as captions, which differ for each image. Such a column is
# used for labels only if the user names it.
_TEXT_NAMES = {"text", "caption", "captions", "description", "prompt", "title", "url"}
_SPLIT_NAMES = ({"split"}, {"subset", "partition"}, {"set", "fold"})
# The remedy in errors about the table of --groups_csv: no flag can name its column of files.
_HEADER_REMEDY = "name the column of the files 'file' in a header line"

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The side of a split for each lower-case word that tables and folder names use for it."""

NO_SPLIT = "none"
"""The value of ``--split_column`` that says that no column is a split."""


@dataclass(frozen=True)
class Columns:
    """The columns that the user named, by header or by number from 1; an empty one is detected.

    Attributes:
        file: the column of files.
        label: the column of labels.
        split: the column of train, val or test; ``NO_SPLIT`` if no column is a split.
        label_flag: the flag that names the column of labels, for error messages.
        file_flag: the flag that names the column of files, for error messages; empty if no flag does.
    """

    file: str = ""
    label: str = ""
    split: str = ""
    label_flag: str = "label_column"
    file_flag: str = "file_column"

    @property
    def named_split(self) -> str:
        """The column of the split that the user named; empty if the user named none."""
        return "" if self.split == NO_SPLIT else self.split


ANY_COLUMNS = Columns()
"""The user named no column, so all of them are detected."""


@dataclass(frozen=True)
class ColumnIndices:
    """The indices, counted from 0, of the columns to use.

    Attributes:
        file: the column of files or ids.
        label: the column of labels; None if there is one column for each class.
        split: the column of train, val or test; None if there is none.
        classes: the columns of the classes if there is one column for each class; otherwise empty.
    """

    file: int
    label: int | None
    split: int | None
    classes: tuple[int, ...] = ()


def find_columns(
    source: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Columns,
    is_file: Callable[[str], bool],
) -> ColumnIndices:
    """Finds the columns of files, labels and split in a table with a header.

    A table is taken to have one column for each class if the user named no column of labels, no column
    has a usual name for labels, and all columns except those of files and split contain only marks (0
    and 1, or true and false).

    Args:
        source: how error messages name the table.
        header: the cells of the header line.
        rows: the cells of the first lines after the header.
        columns: the columns that the user named.
        is_file: whether a cell names an image that exists.

    Raises:
        UserError: a column is missing or ambiguous.
    """
    picker = _Picker(source, header, rows, is_file)
    file_at = picker.pick_file(columns.file, columns.file_flag)
    split_at = picker.pick_split(columns.split)
    if not columns.label and (classes := picker.pick_classes(file_at, split_at)):
        return ColumnIndices(file_at, None, split_at, classes)
    label_at = picker.pick_label(columns.label, file_at, split_at, columns.label_flag)
    return ColumnIndices(file_at, label_at, split_at)


def has_header(first: tuple[str, ...], columns: Columns, is_file: Callable[[str], bool]) -> bool:
    """Whether the line with the cells ``first`` is a header, and not the row of an image."""
    given = {name for name in (columns.file, columns.label, columns.named_split) if name}
    if given & set(first):
        return True
    # A cell such as "image" is a usual header of the column of files, but might also name a file.
    if any(_matches(cell, _FILE_NAMES) and not is_file(cell) for cell in first):
        return True
    if any(is_file(cell) for cell in first):
        return False
    if any(_matches(name, (*_FILE_NAMES, *_LABEL_NAMES)) for name in first):
        return True
    return not any(_looks_like_file(cell) for cell in first)


def find_columns_without_header(
    source: str,
    rows: list[list[str]],
    columns: Columns,
    is_file: Callable[[str], bool],
) -> ColumnIndices:
    """Finds the columns of files, labels and split in a table without header.

    Raises:
        UserError: a column is missing or ambiguous.
    """
    numbers = [str(index + 1) for index in range(len(rows[0]))]
    if columns.file:
        file_at = _find_named("file_column", columns.file, numbers, source)
    else:
        candidates = [i for i in range(len(numbers)) if is_file(cell_at(rows[0], i))] or [
            i for i in range(len(numbers)) if _looks_like_file(cell_at(rows[0], i))
        ]
        if len(candidates) != 1:
            flags = f"--{columns.file_flag} and --{columns.label_flag}"
            remedy = f"pass {flags} with their numbers" if columns.file_flag else _HEADER_REMEDY
            found = ", ".join([numbers[i] for i in candidates] or numbers)
            raise UserError(
                f"{source}: no header, and the columns {found} may name the files; {remedy}"
            )
        file_at = candidates[0]
    if columns.label:
        label_at = _find_named(columns.label_flag, columns.label, numbers, source)
    else:
        others = [index for index in range(len(numbers)) if index != file_at]
        if len(others) != 1:
            found = ", ".join(numbers[index] for index in others) or "none"
            raise UserError(
                f"{source}: no header, and the label may be in the columns {found}; pass "
                "--label_column with its number"
            )
        label_at = others[0]
    split_at = None
    if columns.named_split:
        split_at = _find_named("split_column", columns.named_split, numbers, source)
    return ColumnIndices(file_at, label_at, split_at)


def _find_named(flag: str, given: str, header: Sequence[str], source: str) -> int:
    """The index of the column that the user named, by its header or by its number from 1."""
    if given in header:
        return list(header).index(given)
    plain = [_normalized(name) for name in header]
    if plain.count(_normalized(given)) == 1:
        return plain.index(_normalized(given))
    if given.isdecimal() and len(given) < 10 and 1 <= int(given) <= len(header):
        return int(given) - 1
    found = ", ".join(header) or "none"
    raise UserError(f"--{flag}={given}: no such column in {source}, found {found}")


class _Picker:
    """Picks the columns of a table with a header."""

    def __init__(
        self,
        source: str,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        is_file: Callable[[str], bool],
    ) -> None:
        self.source, self.header, self.rows, self.is_file = source, header, rows, is_file

    def pick_file(self, given: str, flag: str) -> int:
        """The column of files: the one that the user named, or one with a usual name."""
        return self._pick("file", given, _FILE_NAMES, self._with_files, flag)

    def pick_label(self, given: str, file_at: int, split_at: int | None, flag: str) -> int:
        """The column that the user named, one with a usual name, or the only one that is left.

        If the only column that is left has a usual name for free text, it is not taken.
        """
        others = [i for i in range(len(self.header)) if i not in (file_at, split_at)]
        other_fits = len(others) == 1 and _normalized(self.header[others[0]]) not in _TEXT_NAMES
        if not given and not self._has_label_name() and other_fits:
            return others[0]
        return self._pick("label", given, _LABEL_NAMES, lambda candidates: candidates, flag)

    def pick_split(self, given: str) -> int | None:
        """The column that the user named, or one with a usual name and some ``SPLIT_WORDS``, or None.

        A column that also has empty cells or other words is accepted here, so that ``label_table`` can
        refuse the table. If the split were ignored, test images would become training images.
        """
        if given == NO_SPLIT:
            return None
        if given:
            return _find_named("split_column", given, self.header, self.source)
        for group in _SPLIT_NAMES:
            for index, name in enumerate(self.header):
                cells = {cell_at(row, index).lower() for row in self.rows}
                if _matches(name, (group,)) and cells & SPLIT_WORDS.keys():
                    return index
        return None

    def pick_classes(self, file_at: int, split_at: int | None) -> tuple[int, ...]:
        """The columns of the classes if the table has one column for each class; otherwise empty.

        All columns except those of files and split must contain only marks. If one of them contains
        other values, the marks may mean something else than a class, such as a blurred image.
        """
        others = tuple(
            index
            for index, name in enumerate(self.header)
            # pandas writes row numbers into a column without a name.
            if index not in (file_at, split_at) and _normalized(name) not in ("", "unnamed0")
        )
        if len(others) < 2 or self._has_label_name():
            return ()
        marks = [[is_marked(cell_at(row, index)) for index in others] for row in self.rows]
        if any(None in row for row in marks) or not any(map(any, marks)):
            return ()
        return others

    def _has_label_name(self) -> bool:
        return any(_matches(name, _LABEL_NAMES) for name in self.header)

    def _pick(
        self,
        role: str,
        given: str,
        names: tuple[set[str], ...],
        narrow: Callable[[list[int]], list[int]],
        flag: str,
    ) -> int:
        """The column for ``role``: the ``given`` one, one called ``role``, or one with a usual name.

        ``narrow`` chooses among several columns with a usual name. ``flag`` is the flag with which the
        user can name the column, or empty if there is no such flag. Raises UserError.
        """
        if given:
            return _find_named(flag, given, self.header, self.source)
        if role in self.header:
            return self.header.index(role)
        for group in names:
            candidates = [i for i, name in enumerate(self.header) if _matches(name, (group,))]
            if len(candidates) > 1:
                candidates = narrow(candidates)
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                found = ", ".join(self.header[index] for index in candidates)
                remedy = f"pass --{flag}={self.header[candidates[0]]} or another of them"
                raise UserError(
                    f"{self.source}: the {role} may be in the columns {found}; "
                    f"{remedy if flag else _HEADER_REMEDY}"
                )
        found = ", ".join(self.header) or "none"
        remedy = f"name the columns file and label in the first line, or pass --{flag}"
        raise UserError(
            f"{self.source}: no column {role!r}, found {found}; {remedy if flag else _HEADER_REMEDY}"
        )

    def _with_files(self, candidates: list[int]) -> list[int]:
        """The ``candidates`` with a cell that names an image; all ``candidates`` if none has one."""
        with_files = [
            i for i in candidates if any(self.is_file(cell_at(row, i)) for row in self.rows)
        ]
        return with_files or candidates


def is_marked(cell: str) -> bool | None:
    """Whether a cell marks its image (1, true) or not (0, false, empty); None for any other cell.

    Example:
        >>> is_marked("1"), is_marked("0.0"), is_marked("TRUE"), is_marked("oak")
        (True, False, True, None)
    """
    return _MARKS.get(cell.lower())


_MARKS = {
    **dict.fromkeys(("1", "1.0", "true"), True),
    **dict.fromkeys(("0", "0.0", "false", ""), False),
}


def _normalized(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _matches(name: str, groups: tuple[set[str], ...]) -> bool:
    return any(_normalized(name) in group for group in groups)


def _looks_like_file(cell: str) -> bool:
    return re.search(r"\.(jpe?g|jpe|png|bmp|gif|webp|tiff?)$", cell.strip().lower()) is not None


def cell_at(row: Sequence[str], index: int) -> str:
    """A cell without surrounding spaces; empty if the row is too short."""
    return row[index].strip() if index < len(row) else ""
