"""One image of a source on its way into a pack, and the rules that all sources share."""

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
from seedtf.images.kinds import SNIFFED_BYTES, SUFFIXES, sniff

__all__ = ["ClassNumbers", "NameGiver", "Record", "Records", "optional_module", "sides_of_files"]

# The first bytes of an image file, and the suffix of a name that has none.
_NAME_FILES = ("classnames.txt", "class_names.txt", "names.txt", "label.labels.txt", "labels.txt")


@dataclass(frozen=True)
class Record:
    """An image: its name, the name of its class, its side of the split or nothing, and its bytes."""

    name: str
    label: str
    side: str
    data: bytes


Records = Iterator[Record | Fault]
"""Images in the order of the source, and what is left out."""


class NameGiver:
    """Gives the images of one file of a source names that are unique and end like those of images.

    Example:
        >>> name = NameGiver("train-00000")
        >>> name("photos/7.jpg", b""), name("", b"GIF8"), name("photos/7.jpg", b"")
        ('train-00000/photos/7.jpg', 'train-00000/0000001.gif', 'train-00000/photos/7~2.jpg')
    """

    def __init__(self, folder: str) -> None:
        """``folder`` becomes the folder of all names: the name of the file without its suffix."""
        self._folder, self._count = folder, 0
        self._seen: Counter[str] = Counter()

    def __call__(self, given: str, data: bytes) -> str:
        """The name of the next image; ``given`` is what the source calls it, empty for nothing.

        Returns:
            The name, or an empty string if neither ``given`` nor ``data`` looks like an image.
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
        self._seen[name] += 1
        if self._seen[name] > 1:
            stem, suffix = os.path.splitext(name)
            name = f"{stem}~{self._seen[name]}{suffix}"
        return f"{self._folder}/{name}"


def _suffix_of(data: bytes) -> str:
    return SUFFIXES.get(sniff(data[:SNIFFED_BYTES]), ("",))[0]


class ClassNumbers:
    """Turns numbers of classes into names, if a file beside the source lists the names from 0 on.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("classnames.txt").write_text("maize\\nwheat\\n")
        >>> numbers = ClassNumbers(".")
        >>> numbers.source, numbers("1"), numbers("rye")
        ('./classnames.txt', 'wheat', 'rye')
    """

    def __init__(self, folder: str) -> None:
        """Reads the first of the files ``classnames.txt``, ``names.txt``, … in ``folder``."""
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
        """The name of a number; anything else is returned unchanged.

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


def sides_of_files(files: Sequence[str]) -> list[str]:
    """The side of each file of a source, from its folders or its name; empty if there is no split.

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


def optional_module(name: str, wanted: str, extra: str) -> Any:
    """The module ``name``, or a UserError that says that ``wanted`` needs it and how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{wanted}: needs {package}; run: pip install 'seedtf[{extra}]'") from None
