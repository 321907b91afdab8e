"""Refuses folders that are probably not classes, or that contradict the table beside them.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

from seedtf.data.catalog import to_nfc
from seedtf.data.found_tables import side_of
from seedtf.data.label_table import LabelTable
from seedtf.data.paths import Folder
from seedtf.data.walk import folder_names, folders_with_images, has_images, has_images_directly
from seedtf.errors import DataConflictError, UserError

__all__ = ["check_classes", "check_table"]

# Names of folders in data sets for detection and segmentation, such as Pascal VOC.
_NOT_CLASSES = frozenset(
    {
        *("images", "image", "imgs", "img", "jpegimages", "photos", "masks", "mask", "labels"),
        *("annotations", "segmentationclass", "segmentationobject", "groundtruth", "ground_truth"),
    }
)
# The names of the folders are checked only if there are at most 4 folders. To find out whether folders
# have the same sub-folders, the first 20 sub-folders of each are compared.
_MAX_NOT_CLASSES, _MAX_SHARED = 4, 20


def check_classes(top: Folder, source: str) -> None:
    """Raises UserError if the folders in ``top`` are probably not classes.

    There are two such cases: all folders have the same sub-folders, for example folds or sites that
    each contain the class folders; or the names of the folders are usual for images and masks.
    """
    names = folder_names(top)
    if len(names) <= _MAX_NOT_CLASSES:
        with_images = folders_with_images(top, at_most=_MAX_NOT_CLASSES)
        if all(name.lower() in _NOT_CLASSES for name in with_images):
            raise UserError(
                f"{source}: {', '.join(with_images)} are no classes by their names; pass --labels_csv "
                "with a table of labels, or --layout=folders if these are the classes"
            )
    shared: list[str] = []
    for name in names:
        inner = folders_with_images(top / name, at_most=_MAX_SHARED)
        if not inner and not has_images(top / name):
            continue
        if len(inner) < 2 or inner != (shared or inner) or has_images_directly(top / name):
            return
        shared = inner
    with_images = [name for name in names if has_images(top / name)]
    if len(with_images) > 1:
        first, second = with_images[:2]
        raise UserError(
            f"{source}: {first}, {second}{', …' if len(with_images) > 2 else ''} have the same folders "
            f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}); pass one of them, or "
            "--layout=folders if they are the classes"
        )


def check_table(table: LabelTable, *, is_split: bool) -> None:
    """Checks that each image lies in folders for the class and the side that the table gives it.

    Args:
        table: a table with paths relative to the folder of the class folders, or of the split.
        is_split: whether the first folder of a path is a side of the split, and the second the class.

    Raises:
        DataConflictError: an image lies in the folder of another class or side.
    """
    catalog, depth = table.catalog, 1 if is_split else 0
    for index, (path, label) in enumerate(zip(catalog.paths, catalog.labels, strict=True)):
        parts, name = path.split("/"), catalog.class_names[label]
        in_folder = parts[depth] if len(parts) > depth + 1 else ""
        if to_nfc(in_folder) != to_nfc(name):
            raise DataConflictError(
                f"{table.source}: labels {path!r} as {name!r}, but class folders beside the table say "
                "otherwise; pass --layout=table or --layout=folders"
            )
        if is_split and table.sides is not None and side_of(parts[0]) != table.sides[index]:
            raise DataConflictError(
                f"{table.source}: says that {path!r} is for {table.sides[index]}, but it lies in the "
                f"folder {parts[0]}; pass --layout=table or --layout=split_folders"
            )
