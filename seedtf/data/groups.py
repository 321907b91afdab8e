"""Reads which images belong to one group, such as one plant, from a table, folders or file names.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from seedtf.data.catalog import Catalog
from seedtf.data.columns import Columns
from seedtf.data.string_array import NameFinder
from seedtf.data.table_files import FileFinder
from seedtf.data.tables import detect_format, read_rows
from seedtf.errors import UserError
from seedtf.report import format_count

__all__ = ["FOLDER", "GroupFlags", "Grouping", "read_groups"]

FOLDER = "folder"
"""The value of ``--group_by`` that makes each folder a group; a column name with ``--groups_csv``."""

_DEFAULT_COLUMN = "group"


@dataclass(frozen=True)
class GroupFlags:
    """The flags that say which images are in one group; the names are those of ``TrainConfig``."""

    group_by: str = ""
    group_regex: str = ""
    groups_csv: str = ""
    labels_csv: str = ""
    file_column: str = ""

    @classmethod
    def of(cls, config: Any) -> GroupFlags:
        """The flags of ``config``, such as a ``TrainConfig``, which has attributes of these names."""
        return cls(**{flag.name: getattr(config, flag.name) for flag in fields(cls)})

    def __bool__(self) -> bool:
        return bool(self.group_by or self.group_regex or self.groups_csv)

    def __str__(self) -> str:
        """The flags as the user typed them, for messages."""
        names = ("groups_csv", "group_by", "group_regex")
        return " ".join(f"--{n}={getattr(self, n)}" for n in names if getattr(self, n))


@dataclass(frozen=True)
class Grouping:
    """The user's groups of N images.

    Attributes:
        names: the name of the group of each image; empty for an image without a group.
        groups: int64 ``[N]``, the number of the group of each image, which is the index of the group's
            first image. An image without a name gets a number of its own.
    """

    names: tuple[str, ...]
    groups: np.ndarray

    def describe(self) -> str:
        """How many groups, images in the largest group and images without a group there are."""
        named = {name for name in self.names if name}
        sizes = np.unique(self.groups, return_counts=True)[1]
        largest = format_count(int(sizes.max()), "image")
        text = f"{format_count(len(named), 'group')}, the largest of {largest}"
        num_ungrouped = self.names.count("")
        ungrouped = format_count(num_ungrouped, "image")
        return f"{text}; {ungrouped} without a group" if num_ungrouped else text


def read_groups(catalog: Catalog, flags: GroupFlags) -> Grouping | None:
    """Reads the group of every image; returns None if no flag asks for groups.

    Args:
        catalog: N files.
        flags: where the groups come from.

    Raises:
        UserError: the table or its column is missing, a column or the name of a file is ambiguous, a
            table gives one file two groups, or no image has a group.

    Example:
        >>> from pathlib import Path
        >>> paths = [f"oak/plant{plant}_{day}.jpg" for plant in (1, 2) for day in (1, 2)]
        >>> catalog = Catalog(Path("field"), paths, np.zeros(4, np.int32), ("oak",))
        >>> read_groups(catalog, GroupFlags(group_regex=r"(plant\\d+)_")).groups.tolist()
        [0, 0, 2, 2]
    """
    if not flags:
        return None
    if flags.group_regex:
        names = tuple(_captured_texts(catalog, re.compile(flags.group_regex)))
    elif flags.group_by == FOLDER and not flags.groups_csv:
        names = tuple(os.path.dirname(path) for path in catalog.paths)
    else:
        names = _read_column(catalog, flags)
    if not any(names):
        raise UserError(f"{flags}: no image of {catalog.root} has a group; check the flag")
    first_of: dict[str, int] = {}
    groups = np.fromiter(
        (first_of.setdefault(name, i) if name else i for i, name in enumerate(names)),
        np.int64,
        len(names),
    )
    return Grouping(names, groups)


def _captured_texts(catalog: Catalog, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yields what the capture groups of ``pattern`` match in each path, joined by ``/``.

    A pattern without capture groups gives its whole match. For a path that does not match, the text is
    empty.
    """
    for path in catalog.paths:
        match = pattern.search(path)
        yield "/".join(part or "" for part in match.groups() or (match[0],)) if match else ""


def _read_column(catalog: Catalog, flags: GroupFlags) -> tuple[str, ...]:
    """The group of each image in ``--groups_csv`` or, without that flag, in ``--labels_csv``."""
    table, flag = (
        (flags.groups_csv, "--groups_csv")
        if flags.groups_csv
        else (flags.labels_csv, "--labels_csv")
    )
    column = flags.group_by or _DEFAULT_COLUMN
    file_finder = FileFinder(catalog.root)
    if flags.groups_csv:  # --file_column is about --labels_csv
        columns = Columns(label=column, label_flag="group_by", file_flag="")
    else:
        columns = Columns(flags.file_column, column, label_flag="group_by")
    table_format = detect_format(table, flag, columns, file_finder.is_file)
    index_finder = NameFinder(catalog.paths)
    names = [""] * len(catalog)
    for row, cell, group, _ in read_rows(table, table_format, flag):
        index = index_finder.find(file_finder.find(cell)) if cell else -1
        if index < 0:  # The row names no file, or none of the catalog.
            continue
        if names[index] not in ("", group):
            raise UserError(
                f"{flag}={table}: row {row} puts {catalog.paths[index]!r} in the group {group!r}, an "
                f"earlier row in {names[index]!r}; keep one"
            )
        names[index] = group
    return tuple(names)
