"""Lists labelled image files and their classes, before any split is made.

This module decodes nothing and does not import TensorFlow.
"""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seedtf.data.image_files import is_image, suffix_of
from seedtf.data.paths import Folder, folder_at
from seedtf.data.string_array import StringArray
from seedtf.data.walk import SkipCallback, walk_files
from seedtf.errors import UserError
from seedtf.report import format_count, report, warn

__all__ = [
    "Catalog",
    "Fault",
    "align_labels",
    "describe_faults",
    "describe_others",
    "make_catalog",
    "name_fault",
    "scan_folder",
    "to_nfc",
]

_SHOWN_SUFFIXES = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of a report: a file, and why it cannot be used or has to be named.

    Attributes:
        path: the path of the file, relative to the data folder.
        fault: a short fixed name of the reason, such as ``truncated``.
        detail: the reason in more detail.
    """

    path: str
    fault: str
    detail: str


@dataclass(frozen=True)
class Catalog:
    """Labelled files and their classes.

    In memory, a file takes the bytes of its path below ``root`` and about 12 more.

    Attributes:
        root: the folder that ``paths`` are relative to.
        paths: N file paths, ``/``-separated; any sequence is converted to a ``StringArray``.
        labels: int32 ``[N]``, indices into ``class_names``.
        class_names: the names of the K classes, which are saved with the model. They are sorted by
            name, or by number if a table has numbers.
        faults: the images of the folder that cannot be used.
        others: the number of files that are not images, for each suffix.
    """

    root: Folder
    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...] = field(default=())
    others: Mapping[str, int] = field(default_factory=dict)

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
        """The N paths including ``root``, by which ``data.paths`` opens the files."""
        return self.path_array.with_prefix(os.path.join(self.root, ""))

    def take(self, indices: np.ndarray, faults: Iterable[Fault] = ()) -> Catalog:
        """A catalog of the files at ``indices``, int ``[M]``, in this order, with ``faults`` added."""
        return Catalog(
            self.root,
            self.path_array.take(indices),
            self.labels[indices],
            self.class_names,
            (*self.faults, *faults),
            self.others,
        )

    def class_counts(self) -> dict[str, int]:
        """The number of images of each class, in the order of ``class_names``."""
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

    A file is an image if its suffix or its first bytes say so; other files are counted. An image that
    is not in a class folder becomes a fault. Skipped are hidden files and folders, files and folders of
    the system, and folders that seedtf wrote. One line names the skipped folders that are not hidden.
    Links to folders are followed, except back to a folder that contains the link.

    Args:
        root: a folder, or the URL of one.
        flag: the flag that named the folder, for error messages.
        on_skip: called for each skipped entry, as in ``walk_files``, and for each file that is not an
            image. If it is given, no line about such entries and files is printed.
        flat: whether there are no class folders, and the name of an image consists of its class and a
            number, such as ``cat.1.jpg``.
        split_folders: whether the first folder below ``root`` is a side of a split, and the second one
            is the class.

    Raises:
        UserError: the folder is missing, cannot be read, or has no image in a class folder (with
            ``flat``, no image at all).

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
        >>> catalog.faults, dict(catalog.others)
        ((), {'.txt': 1})
    """
    root = folder_at(root)
    if not root.is_dir():
        problem = "a file" if root.exists() else "no such folder"
        raise UserError(f"{flag}={root}: {problem}; pass a folder with one sub-folder per class")
    faults: list[Fault] = []
    skipped_folders: list[str] = []
    others: Counter[str] = Counter()
    # The class folders with an image, and the suffixes of the files in folders without an image so far.
    with_images: set[str] = set()
    others_of: dict[str, Counter[str]] = {}

    def count_other(path: str, class_name: str) -> None:
        suffix = suffix_of(path)
        others[suffix] += 1
        if class_name and class_name not in with_images:
            others_of.setdefault(class_name, Counter())[suffix] += 1
        if on_skip:
            on_skip(path, "not an image", suffix)

    def find_images() -> Iterator[tuple[str, str]]:
        for path in walk_files(root, flag, on_skip, skipped_folders.append):
            below = path.partition("/")[2] if split_folders else path
            class_name, _, rest = below.partition("/")
            if fault := name_fault(path):
                faults.append(fault)
            elif not is_image(root, path):
                count_other(path, class_name if rest else "")
            elif flat:
                yield path, _class_in_name(path)
            elif not rest:
                faults.append(Fault(path, "no class folder", "lies beside the class folders"))
            else:
                with_images.add(class_name)
                others_of.pop(class_name, None)
                yield path, class_name

    catalog = make_catalog(root, find_images(), faults, others=others)
    if skipped_folders and on_skip is None:
        report("left out", _describe_skipped(skipped_folders))
    if not len(catalog):
        count = len(faults) + sum(others.values())
        place, expected = ("it", "<class>.1.jpg") if flat else ("class folders", "<class>/<image>")
        raise UserError(
            f"{flag}={root}: no images in {place} ({count:,} other files); "
            f"expected {root}/{expected}, in any common format"
        )
    if on_skip is None:
        for folder, suffixes in sorted(others_of.items()):
            warn(f"folder {folder!r} is not a class: {describe_others(suffixes)}, none an image")
    return catalog


def align_labels(catalog: Catalog, class_names: Sequence[str], flag: str) -> Catalog:
    """``catalog`` with labels that are indices into ``class_names``, the classes of training.

    Raises:
        UserError: ``catalog`` has a class that is not in ``class_names``.
    """
    index_of = {to_nfc(name): index for index, name in enumerate(class_names)}
    index_of |= {name: index for index, name in enumerate(class_names)}
    indices = [index_of.get(n, index_of.get(to_nfc(n), -1)) for n in catalog.class_names]
    pairs = zip(catalog.class_names, indices, strict=True)
    unknown = sorted(name for name, index in pairs if index < 0)
    if unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{flag}={catalog.root}: class {unknown[0]!r}{more} has no training images; "
            "leave its images out, or add training images"
        )
    new_label = np.array(indices, np.int32)
    labels = new_label[catalog.labels]
    names = tuple(class_names)
    return Catalog(catalog.root, catalog.paths, labels, names, catalog.faults, catalog.others)


def make_catalog(
    root: Folder,
    records: Iterable[tuple[str, str]],
    faults: list[Fault],
    sort_names: Callable[[Iterable[str]], list[str]] = sorted,
    others: Mapping[str, int] | None = None,
) -> Catalog:
    """Makes a catalog of pairs (path, class name).

    Two spellings of a class name, with composed and with separate accents, are one class.

    Args:
        root: the folder that the paths are relative to.
        records: the pairs; iterating over them may append to ``faults``.
        faults: the files that cannot be used.
        sort_names: returns the class names in the order of their labels.
        others: the number of files that are not images, for each suffix.
    """
    number_of: dict[str, int] = {}  # normalized name → number of the class, in order of appearance
    spelling_of: dict[str, str] = {}  # normalized name → name in ``class_names``
    labels = array("i")

    def paths() -> Iterator[str]:
        for path, class_name in records:
            key = to_nfc(class_name)
            labels.append(number_of.setdefault(key, len(number_of)))
            if spelling_of.setdefault(key, class_name) != class_name:
                spelling_of[key] = key  # Of two spellings, the one with composed accents is used.
            yield path

    names = StringArray(paths())
    key_of = {spelling: key for key, spelling in spelling_of.items()}
    class_names = tuple(sort_names(key_of))
    label_of = np.empty(len(number_of), np.int32)  # number of a class → index in ``class_names``
    label_of[[number_of[key_of[name]] for name in class_names]] = np.arange(len(number_of))
    indices = label_of[np.frombuffer(labels, np.int32)] if labels else np.empty(0, np.int32)
    return Catalog(root, names, indices, class_names, tuple(faults), others or {})


def _class_in_name(path: str) -> str:
    """The name of a file without its suffix and the number before it: ``cat`` for ``cat.1.jpg``."""
    stem = os.path.splitext(path.rpartition("/")[2])[0]
    return re.sub(r"[\s._-]*\(?\d+\)?$", "", stem) or stem


def to_nfc(name: str) -> str:
    """``name`` with composed accents (NFC), so that names from a Mac equal those of other systems.

    Example:
        >>> to_nfc("e\\u0301") == "\\u00e9"
        True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _describe_skipped(folders: Sequence[str]) -> str:
    """The names of the first three skipped folders, how many more there are, and the reason."""
    shown = ", ".join(folders[:3]) + (f" and {len(folders) - 3:,} more" if len(folders) > 3 else "")
    return f"{shown}: written by the system or by seedtf, not classes"


def describe_faults(faults: Sequence[Fault]) -> str:
    """Describes the images that were left out: how many in all, and how many for each reason.

    Example:
        >>> describe_faults([Fault("c/1.png", "truncated", ""), Fault("c/2.png", "too large", "")])
        '2 images: 1 too large, 1 truncated'
    """
    counts = sorted(Counter(fault.fault for fault in faults).items())
    reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(counts, key=lambda c: -c[1]))
    return f"{format_count(len(faults), 'image')}: {reasons}"


def describe_others(others: Mapping[str, int]) -> str:
    """Describes files that are not images: how many in all, and how many with each common suffix.

    Example:
        >>> describe_others({".txt": 3, "no suffix": 1})
        '4 files (3 .txt, 1 no suffix)'
    """
    ranked = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {suffix}" for suffix, count in ranked[:_SHOWN_SUFFIXES]]
    if len(ranked) > _SHOWN_SUFFIXES:
        shown.append(f"{sum(count for _, count in ranked[_SHOWN_SUFFIXES:]):,} others")
    return f"{format_count(sum(others.values()), 'file')} ({', '.join(shown)})"


def name_fault(path: str) -> Fault | None:
    """A fault if a path is not valid UTF-8, which CSV tables and TensorFlow need; otherwise None.

    Example:
        >>> name_fault("oak/\\udcff.png").path, name_fault("öland rye/1.png")
        ('oak/\\\\xff.png', None)
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        readable = os.fsencode(path).decode("utf-8", "backslashreplace")
        return Fault(readable, "unreadable name", "not UTF-8; rename it")
    return None
