"""What the readers of all sources of ``seedtf pack`` share: records, names, classes and sides.

A *source* is the folder or the files to pack. A *side* of the split is train, val or test.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seedtf.data.catalog import Fault
from seedtf.data.columns import SPLIT_WORDS
from seedtf.data.image_files import has_image_suffix
from seedtf.errors import UserError
from seedtf.files import unique_name
from seedtf.images.kinds import SNIFFED_BYTES, SUFFIXES, sniff

__all__ = [
    "ClassNamer",
    "ImageNamer",
    "Record",
    "Records",
    "image_folders",
    "import_optional",
    "sides_of_files",
]

# Files beside a source that may contain the names of the classes, one in each line.
_NAME_FILES = ("classnames.txt", "class_names.txt", "names.txt", "label.labels.txt", "labels.txt")
# The suffix of a file of a source. In a name that consists only of a suffix, it is not matched.
_SUFFIX = re.compile(
    r"(?<=[^/])\.(tar|tar\.gz|tgz|(tfrecords?|tfrec)(\.gz)?|parquet|arrow)\Z", re.IGNORECASE
)


@dataclass(frozen=True)
class Record:
    """An image of a source.

    Attributes:
        name: the name of the image in the pack, a relative path.
        label: the name of the class.
        side: ``train``, ``val`` or ``test``; empty if the source has no split.
        data: the bytes of the image file.
    """

    name: str
    label: str
    side: str
    data: bytes


Records = Iterator[Record | Fault]
"""The images of a source, in their order, with a fault in place of each left-out image."""


class ImageNamer:
    """Names the images of one file of a source; each name is unique and has the suffix of an image.

    Example:
        >>> name_image = ImageNamer("train-00000")
        >>> name_image("photos/7.jpg", b""), name_image("", b"GIF8"), name_image("photos/7.jpg", b"")
        ('train-00000/photos/7.jpg', 'train-00000/0000001.gif', 'train-00000/photos/7~2.jpg')
    """

    def __init__(self, folder: str) -> None:
        """Sets the folder, one of ``image_folders``, with which all names begin."""
        self._folder, self._count = folder, 0
        self._name_counts: Counter[str] = Counter()

    def __call__(self, given: str, data: bytes) -> str:
        """Names the next image.

        Args:
            given: the name of the image in the source; empty if it has none.
            data: the bytes of the image, which give it a suffix if ``given`` has no suffix of an image.

        Returns:
            The name; empty if neither the suffix of ``given`` nor ``data`` is that of an image.
        """
        parts = given.replace("\\", "/").split("/")
        name = "/".join(part for part in parts if part not in ("", ".", ".."))
        name = name or f"{self._count:07}"
        self._count += 1
        if not has_image_suffix(name):
            suffix = _suffix_of(data)
            if not suffix:
                return ""
            name += suffix
        return f"{self._folder}/{unique_name(*os.path.splitext(name), self._name_counts)}"


def _suffix_of(data: bytes) -> str:
    return SUFFIXES.get(sniff(data[:SNIFFED_BYTES]), ("",))[0]


class ClassNamer:
    """Converts class numbers, counted from 0, to the names in a file beside the source, if it exists.

    Attributes:
        source: the path of the file; empty if there is none.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("classnames.txt").write_text("maize\\nwheat\\n")
        >>> name_class = ClassNamer(".")
        >>> name_class.source, name_class("1"), name_class("rye")
        ('./classnames.txt', 'wheat', 'rye')
    """

    def __init__(self, folder: str) -> None:
        """Reads the first of ``_NAME_FILES`` that is in ``folder``, if there is one."""
        paths = (os.path.join(folder, name) for name in _NAME_FILES)
        self.source = next(filter(os.path.isfile, paths), "")
        self._names: list[str] = []
        if self.source:
            try:
                with open(self.source, encoding="utf-8") as file:
                    self._names = [line.strip() for line in file if line.strip()]
            except UnicodeDecodeError:
                raise UserError(f"{self.source}: not a UTF-8 text; save it as UTF-8") from None

    def __call__(self, label: str) -> str:
        """The name of the class with this number.

        A label is returned unchanged if it is no number, or if there is no file of names.

        Raises:
            UserError: the file has no line for the number.
        """
        if not self._names or not re.fullmatch("[0-9]{1,18}", label, re.ASCII):
            return label
        if int(label) >= len(self._names):
            raise UserError(
                f"{self.source}: has {len(self._names)} names, and an image has the label {label}, "
                "counted from 0; correct the file or move it away"
            )
        return self._names[int(label)]


def image_folders(files: Sequence[str]) -> list[str]:
    """For each file of a source, the folder of its images in the pack: the file's path without suffix.

    If the paths of several files differ only in their suffixes, the suffixes are kept, so that each
    file has a folder of its own.

    Args:
        files: paths relative to the source.

    Example:
        >>> image_folders(["a/s.000.tar", "a/s.001.tar", "x.tfrecord-00000-of-00005"])
        ['a/s.000', 'a/s.001', 'x.tfrecord-00000-of-00005']
        >>> image_folders(["a.tfrecord", "a.tfrecord.gz"])
        ['a.tfrecord', 'a.tfrecord.gz']
    """
    folders = [_SUFFIX.sub("", file) for file in files]
    counts = Counter(folders)
    return [
        folder if counts[folder] == 1 else file for folder, file in zip(folders, files, strict=True)
    ]


def sides_of_files(files: Sequence[str]) -> list[str]:
    """The side of each file of a source, by the words in its path; all empty if there is no split.

    Args:
        files: paths relative to the source.

    Example:
        >>> sides_of_files(["data/train-00000-of-00001.parquet", "data/validation-00000.parquet"])
        ['train', 'val']
        >>> sides_of_files(["train-0.tar", "train-1.tar"])
        ['', '']
    """
    sides = [_side(file) for file in files]
    is_split = "train" in sides and len(set(sides)) > 1 and all(sides)
    return sides if is_split else [""] * len(files)


def _side(file: str) -> str:
    *folders, name = file.lower().split("/")
    words = (*folders, *re.split(r"[-_.]", name))
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")


def import_optional(name: str, wanted: str, extra: str) -> Any:
    """Imports a module of an optional package.

    Raises:
        UserError: the package is not installed. The message says that ``wanted`` needs the package, and
            how to install it as a part of the ``extra`` of seedtf.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{wanted}: needs {package}; run: pip install 'seedtf[{extra}]'") from None
