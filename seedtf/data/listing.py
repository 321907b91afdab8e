"""Lists the labelled files of a folder or table, and their split if the data has one.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seedtf.data.catalog import Catalog, Fault, align_labels, scan_folder
from seedtf.data.columns import ANY_COLUMNS, Columns
from seedtf.data.label_table import LabelTable, read_label_table
from seedtf.data.layouts import FLAT, SPLIT_FOLDERS, Layout, find_layout, find_unsplit_layout
from seedtf.data.packed import PackedPath
from seedtf.data.paths import Folder, folder_at
from seedtf.data.split import Split, check_trainable, join_catalogs
from seedtf.data.walk import SkipCallback
from seedtf.errors import UserError
from seedtf.report import format_count, report

__all__ = ["FilesToCheck", "list_files", "list_for_check", "list_known_classes"]


@dataclass(frozen=True)
class FilesToCheck:
    """All labelled files of a folder or table, including those for validation and test.

    Attributes:
        catalog: the files.
        sides: ``train``, ``val`` or ``test`` for each file, or empty for a file that is not used. None
            if the data gives no split.
        in_class_folders: whether the folders directly below the root are the classes.
    """

    catalog: Catalog
    sides: np.ndarray | None
    in_class_folders: bool = False

    def refusal(self, usable: np.ndarray) -> str:
        """Why training on the files at ``usable`` (int64 indices) would be refused; empty if not."""
        train, min_images = usable, 2
        if self.sides is not None:
            train = usable[self.sides[usable] == "train"]
            min_images = 1 if (self.sides[usable] == "val").any() else 2
        try:
            check_trainable(self.catalog.take(train), min_images)
        except UserError as error:
            return str(error)
        return ""


def list_files(
    data_dir: str,
    labels_csv: str = "",
    columns: Columns = ANY_COLUMNS,
    layout: str = "auto",
    min_images: int = 2,
) -> tuple[Catalog, Split | None]:
    """Lists the labelled files of a folder, or the files of a table, and prints what was detected.

    Args:
        data_dir: the folder; the paths in a table are relative to it.
        labels_csv: the table; empty to list the folder.
        columns: the columns of the table that the user named.
        layout: the layout of the folder, or ``auto`` to detect it.
        min_images: the number of images that each class needs if the data gives no validation images.
            If the data gives some, each class needs one training image.

    Returns:
        The files, and the split that the data gives; None if it gives none. The split's ``val`` is
        empty if the data gives test images but no validation images.

    Raises:
        UserError: the folder or table is missing or unusable, there is only one class, or a class has
            too few images.

    Example:
        >>> from pathlib import Path
        >>> for name in ["d/train/oak/1.jpg", "d/train/elm/2.jpg", "d/valid/oak/3.jpg"]:
        ...     Path(name).parent.mkdir(parents=True, exist_ok=True)
        ...     Path(name).touch()
        >>> catalog, split = list_files("d")
        layout    folders of a split in d: train (train), valid (val); --layout=folders takes them ...
        >>> [catalog.paths[index] for index in split.val]
        ['valid/oak/3.jpg']
    """
    if labels_csv:
        table = _read_and_report(labels_csv, data_dir, columns)
        return _split_by_table(table, min_images)
    if packed := _read_packed(data_dir, "--data_dir", layout, columns):
        return _split_by_table(packed, min_images)
    found = find_layout(data_dir, choice=layout, columns=columns)
    _report_layout(found)
    if found.table:
        return _split_by_table(found.table, min_images)
    catalog = scan_folder(found.root, flat=found.kind == FLAT)
    check_trainable(catalog, 1 if found.val else min_images)
    test = _scan_test(found.test, catalog) if found.test else None
    if not found.val and test is None:
        return catalog, None
    val = scan_folder(found.val) if found.val else None
    if val is not None:
        val = align_labels(val, catalog.class_names, "--data_dir")
    return join_catalogs(catalog, val, test)


def _scan_test(folder: Folder, train: Catalog) -> Catalog | None:
    """The images of a test folder; None if it has no class folders, or a class that ``train`` lacks."""
    try:
        test = align_labels(scan_folder(folder), train.class_names, "test")
    except UserError as error:
        report("test", f"{folder} is not used ({error})")
        return None
    report("test", f"{folder} is kept for the end: seedtf evaluate reports on it last")
    return test


def list_known_classes(
    data_dir: str,
    class_names: tuple[str, ...],
    flag: str = "--data_dir",
    labels_csv: str = "",
    columns: Columns = ANY_COLUMNS,
    *,
    layout: str = "auto",
) -> Catalog:
    """Lists labelled files whose classes are known; the labels are indices into ``class_names``.

    If a table has test rows, only the files of these rows are listed.

    Args:
        data_dir: a folder without folders of a split; the paths in a table are relative to it.
        class_names: the classes of training.
        flag: the flag that named the folder, for error messages.
        labels_csv: the table; empty to list the folder.
        columns: the columns of the table that the user named.
        layout: the layout of the folder, or ``auto`` to detect it.

    Raises:
        UserError: the folder or table cannot be used, or has a class that is not in ``class_names``.
    """
    if labels_csv:
        table: LabelTable | None = _read_and_report(labels_csv, data_dir, columns)
    elif not (table := _read_packed(data_dir, flag, layout, columns)):
        found = find_unsplit_layout(data_dir, flag, class_names, columns, layout)
        table = found.table
        _report_layout(found)
    if table:
        return align_labels(_test_rows(table), class_names, flag)
    catalog = scan_folder(found.root, flag, flat=found.kind == FLAT)
    return align_labels(catalog, class_names, flag)


def list_for_check(
    data_dir: str,
    labels_csv: str,
    columns: Columns,
    layout: str,
    on_skip: SkipCallback,
) -> FilesToCheck:
    """Lists all labelled files of a folder or table, of every side of a split, for ``seedtf check``.

    Args:
        data_dir: the folder; the paths in a table are relative to it.
        labels_csv: the table; empty to list the folder.
        columns: the columns of the table that the user named.
        layout: the layout of the folder, or ``auto`` to detect it.
        on_skip: called for each skipped entry, as in ``scan_folder``.

    Raises:
        UserError: for the reasons of ``list_files``, except for too few classes or images.
    """
    if labels_csv:
        table: LabelTable | None = _read_and_report(labels_csv, data_dir, columns)
    elif not (table := _read_packed(data_dir, "DATA_DIR", layout, columns)):
        found = find_layout(data_dir, "DATA_DIR", layout, columns=columns)
        table = found.table
        _report_layout(found)
    if table:
        return FilesToCheck(table.catalog, table.sides)
    if found.kind != SPLIT_FOLDERS:
        is_flat = found.kind == FLAT
        catalog = scan_folder(found.root, "DATA_DIR", on_skip, flat=is_flat)
        return FilesToCheck(catalog, None, in_class_folders=not is_flat)
    catalog = scan_folder(found.root.parent, "DATA_DIR", on_skip, split_folders=True)
    side_names = {str(found.root): "train", str(found.val): "val", str(found.test): "test"}
    folders = (str(found.root.parent / path.partition("/")[0]) for path in catalog.paths)
    return FilesToCheck(catalog, np.array([side_names.get(folder, "") for folder in folders]))


def _read_and_report(labels_csv: str, data_dir: str, columns: Columns) -> LabelTable:
    """The rows of a table of labels, whose detected format is printed."""
    table = read_label_table(labels_csv, data_dir, columns=columns)
    _report_table(table)
    return table


def _read_packed(data_dir: str, flag: str, layout: str, columns: Columns) -> LabelTable | None:
    """The labels of a packed folder, about which a line is printed; None for any other folder.

    Raises:
        UserError: the pack cannot be opened, or the user named a layout or columns, which a pack does
            not have.
    """
    folder = folder_at(data_dir)
    if not isinstance(folder, PackedPath):
        return None
    pack = folder.pack
    if layout != "auto" or columns != ANY_COLUMNS:
        raise UserError(
            f"{flag}={data_dir}: is packed with its labels; leave out --layout and the columns, or "
            "pass --labels_csv with other labels"
        )
    faults = tuple(Fault(*row) for row in pack.left_out)
    catalog = Catalog(folder, pack.names, pack.labels, pack.class_names, faults)
    report("layout", f"{len(catalog):,} images packed in {folder}")
    return LabelTable(catalog, pack.sides, "", str(folder))


def _report_layout(layout: Layout) -> None:
    if layout.description:
        report("layout", layout.description)
    if layout.table:
        _report_table(layout.table)


def _report_table(table: LabelTable) -> None:
    if table.description:
        report("table", table.description)


def _test_rows(table: LabelTable) -> Catalog:
    """The files of the test rows, whose number is printed; all files if there are no test rows."""
    if table.sides is None or "test" not in table.sides:
        return table.catalog
    rows = np.flatnonzero(table.sides == "test")
    report("test", f"the {len(rows):,} test rows of the {len(table.sides):,} rows of the table")
    return table.catalog.take(rows)


def _split_by_table(table: LabelTable, min_images: int) -> tuple[Catalog, Split | None]:
    """The files of a table, and its split; None for the split if no row is for validation or test."""
    catalog, sides = table.catalog, table.sides
    if sides is not None and (num_test := int((sides == "test").sum())):
        images = format_count(num_test, "image")
        report("test", f"{images} kept for the end, not for training or validation")
    if sides is None or not {"val", "test"} & set(sides.tolist()):
        check_trainable(catalog, min_images)
        return catalog, None
    split = Split(*(np.flatnonzero(sides == side) for side in ("train", "val", "test")))
    check_trainable(catalog.take(split.train), 1 if len(split.val) else min_images)
    return catalog, split
