"""Tells images from other files: by the suffix where it is that of an image, otherwise by the content.

This module decodes nothing and does not import TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from seedtf.data.packed import PackedPath
from seedtf.data.paths import Folder, RemotePath, is_url, read_url
from seedtf.images.kinds import IMAGE_SUFFIXES, SNIFFED_BYTES, sniff

__all__ = ["any_image", "has_image_suffix", "is_image", "suffix_of"]

# In an object store, opening a file is a request, and beside a million images there may be a million
# files of these kinds.
_NEVER_OPENED_REMOTELY = (
    *(".csv", ".db", ".gz", ".h5", ".html", ".json", ".jsonl", ".log", ".md", ".npy", ".npz"),
    *(".parquet", ".pdf", ".tar", ".tfrecord", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip"),
)
# The layout of a folder is recognised by its first files.
_OPENED_FOR_LAYOUT = 100


def has_image_suffix(path: str) -> bool:
    """Whether the name ends like that of an image, in upper or lower case.

    Example:
        >>> has_image_suffix("a/leaf.JPG"), has_image_suffix("a/leaf.JPG_large")
        (True, False)
    """
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_image(root: Folder, path: str) -> bool:
    """Whether a file below ``root`` is an image; it is opened unless its suffix is that of an image.

    A file that cannot be read is no image. At a URL, files with a common suffix of texts, tables and
    archives are not opened.
    """
    return has_image_suffix(path) or _starts_as_image(root, path)


def any_image(root: Folder, paths: Iterable[str]) -> bool:
    """Whether any file below ``root`` is an image; of those with other suffixes, 100 are opened."""
    opened = 0
    for path in paths:
        if has_image_suffix(path):
            return True
        if opened < _OPENED_FOR_LAYOUT:
            opened += 1
            if _starts_as_image(root, path):
                return True
    return False


def suffix_of(path: str) -> str:
    """The suffix of a file in lower case, such as ``.txt``, or ``no suffix``."""
    # Not Path().suffix: pathlib interns every name for the life of the process.
    return os.path.splitext(path)[1].lower() or "no suffix"


def _starts_as_image(root: Folder, path: str) -> bool:
    if isinstance(root, RemotePath) and path.lower().endswith(_NEVER_OPENED_REMOTELY):
        return False
    whole = os.path.join(root, path)
    try:
        if isinstance(root, PackedPath):
            return bool(sniff((root / path).read_bytes()))
        if is_url(whole):
            return bool(sniff(read_url(whole, SNIFFED_BYTES)))
        # Opening a pipe would wait for a writer.
        handle = os.open(whole, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return bool(sniff(os.read(handle, SNIFFED_BYTES)))
        finally:
            os.close(handle)
    except OSError:
        return False
