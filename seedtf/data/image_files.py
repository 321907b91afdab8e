"""Decides which files are images: by a suffix that only images have, otherwise by the first bytes.

This module decodes nothing and does not import TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from seedtf.data.packed import PackedPath
from seedtf.data.paths import Folder, RemotePath, is_url, read_url
from seedtf.images.kinds import IMAGE_SUFFIXES, SNIFFED_BYTES, sniff

__all__ = ["any_image", "has_image_suffix", "is_image", "suffix_of"]

# At a URL, files with these suffixes are not opened. Opening a file takes a request, and a folder of a
# million images may also have a million files with such a suffix.
_NEVER_OPENED_REMOTELY = (
    *(".csv", ".db", ".gz", ".h5", ".html", ".json", ".jsonl", ".log", ".md", ".npy", ".npz"),
    *(".parquet", ".pdf", ".tar", ".tfrecord", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip"),
)
# `any_image` opens at most this many files, so that it answers quickly in a huge folder without images.
_MAX_OPENED = 100


def has_image_suffix(path: str) -> bool:
    """Whether the name ends like that of an image, in upper or lower case.

    Example:
        >>> has_image_suffix("a/leaf.JPG"), has_image_suffix("a/leaf.JPG_large")
        (True, False)
    """
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_image(root: Folder, path: str) -> bool:
    """Whether a file below ``root`` is an image.

    A file with the suffix of an image counts as an image and is not opened. Any other file is opened,
    and is not an image if it cannot be read. At a URL, files with the suffix of another common kind,
    such as ``.txt``, ``.csv`` or ``.zip``, are not opened and do not count as images.
    """
    return has_image_suffix(path) or _starts_as_image(root, path)


def any_image(root: Folder, paths: Iterable[str]) -> bool:
    """Whether any of these files is an image; at most 100 files are opened to find out."""
    num_opened = 0
    for path in paths:
        if has_image_suffix(path):
            return True
        if num_opened < _MAX_OPENED:
            num_opened += 1
            if _starts_as_image(root, path):
                return True
    return False


def suffix_of(path: str) -> str:
    """The suffix of a file in lower case, such as ``.txt``, or ``no suffix``."""
    # Path().suffix is not used, because pathlib keeps every name in memory until the process ends.
    return os.path.splitext(path)[1].lower() or "no suffix"


def _starts_as_image(root: Folder, path: str) -> bool:
    if isinstance(root, RemotePath) and path.lower().endswith(_NEVER_OPENED_REMOTELY):
        return False
    full_path = os.path.join(root, path)
    try:
        if isinstance(root, PackedPath):
            return bool(sniff((root / path).read_bytes()))
        if is_url(full_path):
            return bool(sniff(read_url(full_path, SNIFFED_BYTES)))
        # Without O_NONBLOCK, opening a pipe would wait for a process that writes to it.
        handle = os.open(full_path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return bool(sniff(os.read(handle, SNIFFED_BYTES)))
        finally:
            os.close(handle)
    except OSError:
        return False
