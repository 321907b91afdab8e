"""Lists labelled image files and fixes one class list, before any split.

This module opens no image and does not import TensorFlow.
"""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from seedtf.data.paths import Folder, folder_at
from seedtf.data.string_array import StringArray
from seedtf.data.walk import IMAGE_SUFFIXES, SkipCallback, is_image, walk_files
from seedtf.errors import UserError
from seedtf.report import report

__all__ = [
    "Catalog",
    "Fault",
    "align_labels",
    "composed",
    "make_catalog",
    "scan_folder",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that cannot be used, and why.

    Attributes:
        path: relative to the data folder.
        fault: a short fixed name of the reason, such as ``truncated``.
        detail: what exactly is wrong.
    """

    path: str
    fault: str
    detail: str


@dataclass(frozen=True)
class Catalog:
    """Labelled files and the class list that every later stage uses.

    In memory, a file takes the bytes of its name and about 12 more.

    Attributes:
        root: the folder that ``paths`` are relative to.
        paths: N file paths, ``/``-separated; any sequence is converted to a ``StringArray``.
        labels: int32 ``[N]``, indices into ``class_names``.
        class_names: K names, sorted; saved with the model.
        faults: the files of the folder that cannot be used.
    """

    root: Folder
    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...] = field(default=())

    def __post_init__(self) -> None:
        """Converts the paths to a compact array."""
        if not isinstance(self.paths, StringArray):
            object.__setattr__(self, "paths", StringArray(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def path_array(self) -> StringArray:
        """``paths``, typed as a ``StringArray``."""
        assert isinstance(self.paths, StringArray)
        return self.paths

    def absolute_paths(self) -> StringArray:
        """The N paths with ``root``, which the operating system (for a URL, TensorFlow) can open."""
        return self.path_array.with_prefix(os.path.join(self.root, ""))

    def take(self, indices: np.ndarray, faults: Iterable[Fault] = ()) -> Catalog:
        """The records at ``indices`` (int ``[M]``) in that order, with ``faults`` added."""
        return Catalog(
            self.root,
            self.path_array.take(indices),
            self.labels[indices],
            self.class_names,
            (*self.faults, *faults),
        )

    def class_counts(self) -> dict[str, int]:
        """The number of images of each class, in the order of the class list."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))


def scan_folder(
    root: str | os.PathLike[str],
    flag: str = "--data_dir",
    on_skip: SkipCallback | None = None,
    *,
    flat: bool = False,
    split_folders: bool = False,
) -> Catalog:
    """Lists ``root/<class>/**/<image>``; the first folder below ``root`` is the class.

    Suffixes may be in upper or lower case. Hidden and system entries are skipped, and so are folders
    that seedtf wrote itself, which one line names. Any other file that has no image suffix, or is not
    in a class folder, becomes a fault. Links to folders are followed, but not in a loop.

    Args:
        root: a folder, or the URL of one.
        flag: the flag that named the folder, for error messages.
        on_skip: called for each skipped entry, as in ``walk_files``.
        flat: whether there are no class folders, but the names of the images begin with the class and
            end with a number, such as ``cat.1.jpg``.
        split_folders: whether the first folder is a side of a split, and the second one the class.

    Raises:
        UserError: the folder is missing, cannot be read, or contains no images.

    Example:
        >>> from pathlib import Path
        >>> for name in ["maize/1.jpg", "maize/2.JPG", "wheat/row 3/3.png", "wheat/notes.txt"]:
        ...     file = Path("field", name)
        ...     file.parent.mkdir(parents=True, exist_ok=True)
        ...     file.touch()
        >>> catalog = scan_folder("field")
        >>> list(catalog.paths)
        ['maize/1.jpg', 'maize/2.JPG', 'wheat/row 3/3.png']
        >>> catalog.class_names, catalog.labels.tolist()
        (('maize', 'wheat'), [0, 0, 1])
        >>> catalog.faults
        (Fault(path='wheat/notes.txt', fault='unsupported suffix', detail='suffix .txt'),)
    """
    root = folder_at(root)
    if not root.is_dir():
        problem = "a file" if root.exists() else "no such folder"
        raise UserError(f"{flag}={root}: {problem}; pass a folder with one sub-folder per class")
    faults: list[Fault] = []
    skipped_folders: list[str] = []
    details: dict[str, str] = {}  # so that a million files share one copy of each text

    def images() -> Iterator[tuple[str, str]]:
        for path in walk_files(root, flag, on_skip, skipped_folders.append):
            below = path.partition("/")[2] if split_folders else path
            class_name, _, rest = below.partition("/")
            if not _is_text(path):
                readable = os.fsencode(path).decode("utf-8", "backslashreplace")
                faults.append(Fault(readable, "unreadable name", "not UTF-8; rename it"))
            elif not is_image(path):
                # Path().suffix is not used, because pathlib keeps every name in memory.
                detail = f"suffix {os.path.splitext(path)[1] or 'none'}"
                detail = details.setdefault(detail, detail)
                faults.append(Fault(path, "unsupported suffix", detail))
            elif flat:
                yield path, _class_in_name(path)
            elif not rest:
                faults.append(Fault(path, "no class folder", "lies directly in the data folder"))
            else:
                yield path, class_name

    catalog = make_catalog(root, images(), faults)
    if skipped_folders and on_skip is None:
        report("left out", _describe_skipped(skipped_folders))
    if not len(catalog):
        suffixes = " ".join(IMAGE_SUFFIXES)
        raise UserError(
            f"{flag}={root}: no images in class folders ({len(faults)} other files); "
            f"expected {root}/<class>/<image> with suffix {suffixes}"
        )
    return catalog


def align_labels(catalog: Catalog, class_names: Sequence[str], flag: str) -> Catalog:
    """``catalog`` with labels that are indices into ``class_names``, the class list of training.

    Raises:
        UserError: ``catalog`` has a class that is not in ``class_names``.
    """
    index_of = {composed(name): index for index, name in enumerate(class_names)}
    index_of |= {name: index for index, name in enumerate(class_names)}
    indices = [index_of.get(n, index_of.get(composed(n), -1)) for n in catalog.class_names]
    pairs = zip(catalog.class_names, indices, strict=True)
    unknown = sorted(name for name, index in pairs if index < 0)
    if unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{flag}={catalog.root}: class {unknown[0]!r}{more} has no training images; "
            "remove its folder or add training images"
        )
    new_label = np.array(indices, np.int32)
    labels = new_label[catalog.labels]
    return Catalog(catalog.root, catalog.paths, labels, tuple(class_names), catalog.faults)


def make_catalog(
    root: Folder,
    records: Iterable[tuple[str, str]],
    faults: list[Fault],
    order: Callable[[Iterable[str]], list[str]] = sorted,
) -> Catalog:
    """A catalog of pairs (path, class name).

    Two spellings of a class name, with composed and with separate accents, are one class.

    Args:
        root: the folder that the paths are relative to.
        records: the pairs; iterating over them may append to ``faults``.
        faults: the files that cannot be used.
        order: sorts the class names.
    """
    number_of: dict[str, int] = {}  # composed name → number of the class, by first appearance
    spelling_of: dict[str, str] = {}  # composed name → name as the class list will spell it
    labels = array("i")

    def paths() -> Iterator[str]:
        for path, class_name in records:
            key = composed(class_name)
            labels.append(number_of.setdefault(key, len(number_of)))
            if spelling_of.setdefault(key, class_name) != class_name:
                spelling_of[key] = key  # two spellings: the composed one is taken
            yield path

    names = StringArray(paths())
    key_of = {spelling: key for key, spelling in spelling_of.items()}
    class_names = tuple(order(key_of))
    label_of = np.empty(len(number_of), np.int32)  # number of a class → its place in the class list
    label_of[[number_of[key_of[name]] for name in class_names]] = np.arange(len(number_of))
    indices = label_of[np.frombuffer(labels, np.int32)] if labels else np.empty(0, np.int32)
    return Catalog(root, names, indices, class_names, tuple(faults))


def _class_in_name(path: str) -> str:
    """The name of a file without its suffix and a number at the end: ``cat`` for ``cat.1.jpg``."""
    stem = os.path.splitext(path.rpartition("/")[2])[0]
    return re.sub(r"[\s._-]*\(?\d+\)?$", "", stem) or stem


def composed(name: str) -> str:
    """``name`` with composed accents (NFC), so that names from a Mac equal those of other systems.

    Example:
        >>> composed("e\\u0301") == "\\u00e9"
        True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _describe_skipped(folders: Sequence[str]) -> str:
    """One line about the folders that are not classes: the first three, and how many others."""
    shown = ", ".join(folders[:3]) + (f" and {len(folders) - 3:,} more" if len(folders) > 3 else "")
    return f"{shown}: written by the system or by seedtf, not classes"


def _is_text(path: str) -> bool:
    """Whether ``path`` is valid UTF-8, which CSV tables and TensorFlow need."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
