"""Detects the layout of a folder of labelled images: class folders, a split, a table, or flat files.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from seedtf.data.columns import ANY_COLUMNS, SPLIT_WORDS, Columns
from seedtf.data.folder_checks import check_classes, check_table
from seedtf.data.found_tables import find_tables, read_found_tables, side_of, table_names
from seedtf.data.label_table import LabelTable
from seedtf.data.paths import Folder, folder_at
from seedtf.data.walk import (
    folder_names,
    folders_with_images,
    has_images,
    has_images_directly,
    image_paths,
)
from seedtf.errors import DataConflictError, UserError

__all__ = [
    "FLAT",
    "FOLDERS",
    "SPLIT_FOLDERS",
    "TABLE",
    "Layout",
    "find_layout",
    "find_unsplit_layout",
]

# At most this many nested folders around the class folders, the split or the table are entered.
_MAX_WRAPPERS = 8
FOLDERS, SPLIT_FOLDERS, TABLE, FLAT = "folders", "split_folders", "table", "flat"


@dataclass(frozen=True)
class Layout:
    """Where the labelled images of a data folder are, and what gives their labels.

    Attributes:
        kind: ``folders``, ``split_folders``, ``table``, or ``flat`` (file names begin with the class).
        root: the folder that contains the class folders for training; for ``flat`` and ``table``, the
            folder that contains the images.
        val: the folder that contains the class folders for validation; None if there is none.
        test: the folder of test images, which are evaluated last; None if there is none.
        table: the table beside the images; None unless ``kind`` is ``table``.
        description: the detected layout, for the console; empty if the data folder does not exist and
            ``kind`` is not ``flat``.
    """

    kind: str
    root: Folder
    val: Folder | None = None
    test: Folder | None = None
    table: LabelTable | None = None
    description: str = ""


def find_layout(
    data_dir: str | os.PathLike[str],
    flag: str = "--data_dir",
    choice: str = "auto",
    class_names: Sequence[str] = (),
    columns: Columns = ANY_COLUMNS,
) -> Layout:
    """Detects class folders, the folders of a split, or a table.

    A folder called train beside one called val or test (or similar) is a split if train has class
    folders. A table gives the labels if it lies in ``data_dir`` or in the folders of a split, and is
    called ``metadata.csv``, ``metadata.jsonl`` (Hugging Face) or ``_classes.csv`` (Roboflow). Folders
    that give the same labels, and the split if the table has one, are preferred to the table. If only
    one sub-folder has images and nothing else is found, the layout of this sub-folder is detected.

    Args:
        data_dir: a folder, or the URL of one.
        flag: the flag that named the folder, for error messages.
        choice: the layout that the user named, or ``auto``.
        class_names: the expected classes, if they are known; a folder with such a name is a class.
        columns: the columns of a table that the user named. If there are any, ``auto`` means ``table``.

    Raises:
        UserError: the folder does not have the layout that the user named; is ambiguous; has images but
            neither class folders nor a usable table; or has folders that are probably not classes.

    Example:
        >>> from pathlib import Path
        >>> for name in ["d/train/oak/1.jpg", "d/train/elm/2.jpg", "d/valid/oak/3.jpg"]:
        ...     Path(name).parent.mkdir(parents=True, exist_ok=True)
        ...     Path(name).touch()
        >>> layout = find_layout("d")
        >>> layout.kind, str(layout.root), str(layout.val), layout.test
        ('split_folders', 'd/train', 'd/valid', None)
    """
    top = folder_at(data_dir)
    if choice == "auto" and columns != ANY_COLUMNS:
        choice = TABLE
    if choice == FLAT:
        return Layout(FLAT, top, description=f"images in {top} whose names begin with the class")
    if not top.is_dir():
        return Layout(FOLDERS, top)
    class_folders = Layout(FOLDERS, top, description=f"class folders in {top}")
    if choice == FOLDERS:
        return class_folders
    finder = _Finder(top, flag, choice, class_names, columns)
    for folder in _folders_to_search(top, class_names):
        if layout := finder.layout_of(folder):
            return layout
    finder.check_top()
    return class_folders


def find_unsplit_layout(
    data_dir: str | os.PathLike[str],
    flag: str,
    class_names: Sequence[str],
    columns: Columns = ANY_COLUMNS,
    choice: str = "auto",
) -> Layout:
    """Detects the layout of a folder whose classes are known, and which must not have a split.

    Args:
        data_dir: a folder, or the URL of one.
        flag: the flag that named the folder, for error messages.
        class_names: the expected classes.
        columns: the columns of a table that the user named. If there are any, ``auto`` means ``table``.
        choice: the layout that the user named, or ``auto``.

    Raises:
        UserError: for the reasons of ``find_layout``; or the folder contains the folders of a split, so
            that the user has to pass one of these.
    """
    # If a class is called train, val or test, folders with such a name are not taken for a split.
    if set(class_names) & SPLIT_WORDS.keys() and columns == ANY_COLUMNS and choice == "auto":
        choice = FOLDERS
    layout = find_layout(data_dir, flag, choice, class_names, columns)
    if layout.kind == SPLIT_FOLDERS:
        part = (layout.val if flag == "--val_dir" else layout.test) or layout.val or layout.root
        raise UserError(f"{flag}={data_dir}: has the folders of a split; pass one, such as {part}")
    return layout


def _folders_to_search(top: Folder, class_names: Sequence[str]) -> Iterator[Folder]:
    """Yields ``top``, then repeatedly the sub-folder with images, while there is exactly one."""
    folder = top
    for _ in range(_MAX_WRAPPERS):
        yield folder
        if folder != top and has_images_directly(folder):
            return
        names = folders_with_images(folder, at_most=2)
        if len(names) != 1 or names[0] in class_names:
            return
        folder = folder / names[0]
    yield folder


@dataclass
class _Finder:
    """Detects the layout of each folder that ``_folders_to_search`` yields.

    Attributes:
        top: the folder that the user named.
        flag: the flag that named ``top``, for error messages.
        choice: the layout that the user named, or ``auto``.
        class_names: the expected classes; empty if they are not known.
        columns: the columns of a table that the user named.
        table_error: why the last unusable table cannot be used; None if there was no such table.
    """

    top: Folder
    flag: str
    choice: str
    class_names: Sequence[str]
    columns: Columns
    table_error: UserError | None = None

    def layout_of(self, folder: Folder) -> Layout | None:
        """The layout of ``folder``; None if none is found, so that a sub-folder is searched next.

        Raises:
            UserError: the folder is ambiguous, or does not have the layout that the user named.
        """
        table = self._table_in(folder)
        split = None
        if self.choice != TABLE:
            has_table = table is not None
            split = _split_layout(folder, self.flag, self.choice, has_table, self.table_error)
        layout = _by_table(folder, table, split, self.choice) if table else None
        layout = layout or split or self._class_folders(folder)
        if layout and self.table_error:
            text = f"{layout.description}; not used: {self.table_error}"
            return replace(layout, description=text)
        return layout

    def check_top(self) -> None:
        """Raises UserError if ``top``, in which no layout was found, cannot be a folder of classes."""
        source = f"{self.flag}={self.top}"
        if self.choice == SPLIT_FOLDERS:
            raise UserError(f"{source}: no folder train with class folders; leave --layout out")
        if self.choice == TABLE:
            raise UserError(f"{source}: no table of labels in it; {_table_remedy(self.top)}")
        if self.table_error:
            raise self.table_error
        for folder in _folders_to_search(self.top, self.class_names):
            _check_only_folder(folder, f"{self.flag}={folder}", self.class_names)
        if has_images_directly(self.top) and not folders_with_images(self.top, at_most=1):
            raise UserError(
                f"{source}: images lie directly in it, without class folders; "
                f"{_table_remedy(self.top)}, or --layout=flat if their names begin with the class "
                "(cat.1.jpg)"
            )

    def _table_in(self, folder: Folder) -> LabelTable | None:
        tables = find_tables(folder) if self.choice != SPLIT_FOLDERS else ()
        try:
            return read_found_tables(folder, tables, self.columns) if tables else None
        except UserError as error:
            # With the class folders instead of the table, test images would become training images.
            is_conflict = isinstance(error, DataConflictError)
            if self.choice == TABLE or (is_conflict and self.choice not in (FOLDERS, FLAT)):
                raise
            self.table_error = error
            return None

    def _class_folders(self, folder: Folder) -> Layout | None:
        if self.choice in (TABLE, SPLIT_FOLDERS) or len(folders_with_images(folder, 2)) < 2:
            return None
        if folder != self.top and has_images_directly(folder):
            return None  # The folder is a class itself.
        if not self.class_names:
            check_classes(folder, f"{self.flag}={folder}")
        around = f", the only folder of images in {self.top}" if folder != self.top else ""
        return Layout(FOLDERS, folder, description=f"class folders in {folder}{around}")


def _by_table(
    folder: Folder, table: LabelTable, split: Layout | None, choice: str
) -> Layout | None:
    """The layout with the labels of a table; None if folders give the same labels and the same split.

    Raises:
        UserError: class folders or the folders of a split contradict the table, or have images that the
            table does not list.
    """
    catalog, num_images = table.catalog, sum(1 for _ in image_paths(folder))
    unlisted = num_images - len(catalog)
    text = f"images in {folder} with the labels of {table.source}"
    if unlisted > 0:
        text += f"; {unlisted:,} of {num_images:,} images are not listed there and not used"
    layout = Layout(TABLE, folder, table=table, description=text)
    classes = (n for n in folder_names(folder) if not side_of(n) and has_images(folder / n))
    if choice == TABLE or not (split or len(list(itertools.islice(classes, 2))) == 2):
        return layout
    check_table(table, is_split=split is not None)
    if table.sides is not None and not split:
        return layout
    if unlisted > 0:
        raise UserError(
            f"{table.source}: lists {len(catalog):,} of the {num_images:,} images in class folders "
            "beside it; pass --layout=table for these, or --layout=folders for all"
        )
    return None


def _split_layout(
    top: Folder, flag: str, choice: str, has_table: bool, table_error: UserError | None
) -> Layout | None:
    """The layout of a folder that contains the folders of a split; None if ``top`` is no such folder.

    Such a folder contains a folder train with class folders, and a folder val or test.

    Args:
        top: the folder.
        flag: the flag that named the folder, for error messages.
        choice: the layout that the user named, or ``auto``; ``split_folders`` needs no val or test.
        has_table: whether a table gives the labels, so that train needs no class folders.
        table_error: why a table that was found cannot be used; None if there is no such table.
    """
    names = folder_names(top)
    sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in names:
        if side := side_of(name):
            sides[side].append(name)
    if not sides["train"] or not (sides["val"] or sides["test"] or choice == SPLIT_FOLDERS):
        return None
    parts = [name for side in sides.values() for name in side]
    with_classes = [name for name in parts if folders_with_images(top / name, at_most=1)]
    others = [n for n in names if n not in parts and has_images(top / n)]
    shown, source = ", ".join(parts), f"{flag}={top}"
    if sides["train"][0] not in with_classes:
        if others or has_table or not any(has_images_directly(top / name) for name in parts):
            return None  # A class may be called train.
        raise table_error or UserError(
            f"{source}: {shown} hold images without class folders; {_table_remedy(top)}, or "
            "--layout=folders if these are the classes"
        )
    same_side = next((names for names in sides.values() if len(names) > 1), [])
    if same_side or (others and choice != SPLIT_FOLDERS):
        reason = f"both {' and '.join(same_side)}" if same_side else f"{shown} beside {others[0]}"
        raise UserError(
            f"{source}: holds {reason}; pass --layout=folders if these are the classes, or the folders "
            f"of the split: --data_dir={top / sides['train'][0]} --val_dir=…"
        )
    train, val, test = (
        top / side[0] if side and side[0] in with_classes else None for side in sides.values()
    )
    assert train is not None
    roles = [
        f"{name} ({side})"
        for side, found in sides.items()
        for name in found
        if name in with_classes
    ]
    roles += [
        f"{name} is not used, because it has no class folders"
        for name in parts
        if name not in with_classes
    ]
    text = (
        f"folders of a split in {top}: {', '.join(roles)}; --layout=folders takes them for classes"
    )
    return Layout(SPLIT_FOLDERS, train, val, test, description=text)


def _check_only_folder(folder: Folder, source: str, class_names: Sequence[str]) -> None:
    """Raises UserError if all images lie in one sub-folder, and a table beside it may label them."""
    names = folders_with_images(folder, at_most=2)
    if len(names) == 1 and names[0] not in class_names and table_names(folder):
        images = folder / names[0]
        if has_images_directly(images) and not folders_with_images(images, at_most=1):
            raise UserError(
                f"{source}: all images lie in {names[0]}, without class folders; "
                f"{_table_remedy(folder)}"
            )


def _table_remedy(folder: Folder) -> str:
    """What an error suggests if a table may have the labels; names the table in ``folder``, if any."""
    tables = table_names(folder)
    if not tables:
        return "pass --labels_csv with a table of their labels"
    others = f" or another of its {len(tables)} tables" if len(tables) > 1 else ""
    return f"pass --labels_csv={folder / tables[0]}{others}"
