"""Refuses folders that would be read as classes but probably are not.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

from seedtf.data.paths import Folder
from seedtf.data.walk import folder_names, folders_with_images, has_images, has_images_directly
from seedtf.errors import UserError

__all__ = ["check_classes"]

# Names of folders in data sets for detection and segmentation, such as Pascal VOC.
_NOT_CLASSES = frozenset(
    {
        *("images", "image", "imgs", "img", "jpegimages", "photos", "masks", "mask", "labels"),
        *("annotations", "segmentationclass", "segmentationobject", "groundtruth", "ground_truth"),
    }
)
# Names are checked only if there are at most 4 folders; at most 20 sub-folders of each are compared.
_MAX_NOT_CLASSES, _MAX_SHARED = 4, 20


def check_classes(top: Folder, source: str) -> None:
    """Raises UserError if the folders in ``top`` are probably not classes.

    Folders are probably not classes if all have the same sub-folders, such as folds or sites that each
    contain the class folders, or if their names are usual for images and masks.
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
