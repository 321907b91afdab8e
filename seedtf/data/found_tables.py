"""Finds tables of labels beside the images, as Hugging Face and Roboflow write them.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seedtf.data.columns import ANY_COLUMNS, SPLIT_WORDS, Columns
from seedtf.data.label_table import LabelTable, read_label_table, read_split_tables
from seedtf.data.paths import Folder
from seedtf.data.walk import folder_names, names_in

__all__ = ["FoundTable", "find_tables", "read_found_tables", "side_of", "table_names"]

_KNOWN_NAMES = ("metadata.csv", "metadata.jsonl", "_classes.csv")
_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
FoundTable = tuple[str, str, str]
"""The side of a split, the name of its folder, and the name of the table in it.

For a table beside the images of all sides, the side and the folder are empty.
"""


def find_tables(folder: Folder) -> tuple[FoundTable, ...]:
    """The table of labels in a folder or, without one, the tables in its folders train, val and test.

    Tables are recognised by the names that Hugging Face and Roboflow use. The tables in the folders of
    a split are returned only if train has one, and if each side has at most one.

    Example:
        >>> from pathlib import Path
        >>> for name in ["d/train/1.jpg", "d/train/_classes.csv", "d/valid/_classes.csv"]:
        ...     Path(name).parent.mkdir(parents=True, exist_ok=True)
        ...     Path(name).touch()
        >>> find_tables(Path("d"))
        (('train', 'train', '_classes.csv'), ('val', 'valid', '_classes.csv'))
    """
    if name := _known_name(folder):
        return (("", "", name),)
    named = ((side_of(part), part, _known_name(folder / part)) for part in _split_parts(folder))
    tables = tuple(table for table in named if table[2])
    sides = [side for side, _, _ in tables]
    is_split = "train" in sides and len(set(sides)) == len(sides)
    return tables if is_split else ()


def table_names(folder: Folder) -> list[str]:
    """The names of the files in a folder that have the suffix of a table."""
    names = names_in(folder)
    return [n for n in names if n.lower().endswith(_TABLE_SUFFIXES) and not n.startswith(".")]


def read_found_tables(
    folder: Folder, tables: tuple[FoundTable, ...], columns: Columns = ANY_COLUMNS
) -> LabelTable:
    """Reads the tables that ``find_tables`` has found in a folder.

    If a single table gives no split, and all its images lie in folders such as train and val, these
    folders give the split.

    Raises:
        UserError: for the reasons of ``read_label_table``.
    """
    (side, _, name), *others = tables
    if side:
        return read_split_tables(folder, tables, columns)
    assert not others
    table = read_label_table(folder / name, folder, "", columns)
    if table.sides is not None:
        return table
    sides = np.array([side_of(path.partition("/")[0]) for path in table.catalog.paths])
    is_split = (sides != "").all() and "train" in sides and len(np.unique(sides)) > 1
    return replace(table, sides=sides) if is_split else table


def side_of(folder_name: str) -> str:
    """The side of a split that a folder's name means: ``train``, ``val``, ``test``, or empty for none.

    Example:
        >>> side_of("valid"), side_of("Train_Images"), side_of("oak")
        ('val', 'train', '')
    """
    words = folder_name.lower().replace("-", "_").replace(" ", "_").split("_")
    kept = [word for word in words if word not in _IGNORED_WORDS]
    return SPLIT_WORDS.get(kept[0], "") if len(kept) == 1 else ""


_IGNORED_WORDS = {"image", "images", "img", "imgs", "photos", "pictures", "data", "dataset", "set"}


def _split_parts(folder: Folder) -> list[str]:
    return [name for name in folder_names(folder) if side_of(name)]


def _known_name(folder: Folder) -> str:
    """The first of ``_KNOWN_NAMES`` that a file in a folder has; empty if none has one."""
    names = set(names_in(folder))
    return next((name for name in _KNOWN_NAMES if name in names), "")
