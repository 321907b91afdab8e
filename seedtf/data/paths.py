"""Opens folders and files by their paths: local, in a packed folder, or URLs (``gs://…``, ``s3://…``).

The path of an image in a packed folder looks like that of a file in an ordinary folder, for example
``photos/oak/1.jpg``.
``data/remote.py`` opens URLs.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from seedtf.data.packed import PackedPath, find_packed, is_pack, open_pack
from seedtf.data.remote import REQUESTS, read_by_tensorflow, remote_files
from seedtf.data.string_array import StringArray
from seedtf.images.header import RefusedError

__all__ = [
    "Folder",
    "RemotePath",
    "common_folder",
    "file_statuses",
    "files_for_tensorflow",
    "folder_at",
    "is_file",
    "is_url",
    "needs_copy",
    "num_threads",
    "open_file",
    "read_file",
    "read_url",
]

# The largest plausible image file has _BYTES_PER_PIXEL (uncompressed 16-bit RGBA) for each pixel, plus
# _METADATA_BYTES.
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 64 << 20


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a URL, that is, contains ``://``.

    Example:
        >>> is_url("gs://bucket/photos"), is_url("photos")
        (True, False)
    """
    return "://" in os.fspath(path)


@dataclass(frozen=True)
class RemotePath(os.PathLike):
    """The URL of a file or folder, with the methods of ``pathlib.Path`` that seedtf uses."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def parent(self) -> RemotePath:
        """The folder that contains this file or folder."""
        return RemotePath(self.url.rstrip("/").rpartition("/")[0])

    def resolve(self) -> RemotePath:
        """The same URL, because a URL is always absolute."""
        return self

    def is_dir(self) -> bool:
        """Whether the URL is an existing folder.

        Raises:
            UserError: no file system is installed for the scheme, or the URL cannot be reached.
        """
        return remote_files(self.url).is_dir(self.url)

    def exists(self) -> bool:
        """Whether the file or folder exists. Raises as ``is_dir``."""
        return remote_files(self.url).exists(self.url)

    def list_entries(
        self, subfolder: str, file_suffixes: tuple[str, ...]
    ) -> list[tuple[str, bool]]:
        """Lists ``subfolder`` of this folder, or this folder itself if ``subfolder`` is empty.

        A name with one of ``file_suffixes`` is taken for a file unless the listing marks the name as
        a folder. Asking whether it is a folder would take one request for every image.

        Returns:
            The name of each entry, and whether it is a folder.

        Raises:
            OSError: the folder cannot be listed.
        """
        folder = str(self / subfolder).rstrip("/") if subfolder else self.url
        return remote_files(folder).list_entries(folder, file_suffixes)

    def read_bytes(self) -> bytes:
        """Reads a whole file. Raises OSError."""
        return read_url(self.url)


Folder = Path | RemotePath | PackedPath
"""A folder: local, at a URL, or packed."""


def folder_at(path: str | os.PathLike[str]) -> Folder:
    """The folder at ``path``, local, at a URL or packed; a packed folder is opened.

    Raises:
        UserError: the packed folder is damaged, or array-record is not installed.
    """
    if isinstance(path, (RemotePath, PackedPath)):
        return path
    text = os.fspath(path)
    if is_url(text):
        return RemotePath(text.rstrip("/"))
    return PackedPath(open_pack(text), text) if is_pack(text) else Path(text)


def is_file(path: str) -> bool:
    """Whether ``path`` is a local file or an image in a packed folder; False for a URL.

    Raises as ``folder_at``.
    """
    return os.path.isfile(path) or find_packed(path) is not None


def common_folder(*folders: Folder) -> tuple[Folder, list[str]]:
    """The nearest common parent of some folders, and the path from this parent to each folder.

    The path is empty for the parent itself; other paths end with a slash.

    Raises:
        ValueError: the folders are in different file systems or buckets.

    Example:
        >>> root, below = common_folder(folder_at("gs://b/train"), folder_at("gs://b/val"))
        >>> str(root), below
        ('gs://b', ['train/', 'val/'])
    """
    names = [str(folder.resolve()) for folder in folders]
    schemes = [name.partition("://")[0] if is_url(name) else "" for name in names]
    if len(set(schemes)) > 1:
        raise ValueError("different file systems")
    start = f"{schemes[0]}://" if schemes[0] else ""
    # Without its scheme, a URL is made to look like an absolute path, as os.path needs it.
    tails = [f"/{name.removeprefix(start)}" if start else name for name in names]
    common = os.path.commonpath(tails)
    if start and common == "/":  # unlike local folders, buckets and hosts have no common root
        raise ValueError("different buckets")
    relative = [os.path.relpath(tail, common) for tail in tails]
    prefixes = [("" if path == "." else f"{path}/") for path in relative]
    return folder_at(f"{start}{common[1:]}" if start else common), prefixes


def num_threads(paths: StringArray) -> int:
    """The number of threads to read ``paths``: one per core, but at least 64 for URLs."""
    cores = os.cpu_count() or 1
    return max(cores, REQUESTS) if is_url(paths.prefix) else cores


def file_statuses(paths: StringArray) -> Iterator[tuple[int, int] | None]:
    """Yields size in bytes and modification time in ns of each file; None if it cannot be read."""

    def status(path: str) -> tuple[int, int] | None:
        try:
            if is_url(path):
                return remote_files(path).status(path)
            result = os.stat(path)
        except OSError:
            packed = find_packed(path)
            return (packed.size(), packed.pack.mtime_ns) if packed else None
        return result.st_size, result.st_mtime_ns

    if not is_url(paths.prefix):
        yield from map(status, paths)
        return
    # pool.map queues all its tasks at once. To save memory, it is called for one chunk at a time.
    chunk = 64 * REQUESTS
    with ThreadPoolExecutor(num_threads(paths)) as pool:
        for start in range(0, len(paths), chunk):
            yield from pool.map(status, paths[start : start + chunk])


def open_file(path: str) -> BinaryIO:
    """Opens a file to read bytes; a file at a URL or in a packed folder is read into memory.

    Raises:
        OSError: the file cannot be read.
        UserError: the packed folder that has the file is damaged.
    """
    if is_url(path):
        return io.BytesIO(read_url(path))
    try:
        return open(path, "rb")
    except OSError:
        if packed := find_packed(path):
            return io.BytesIO(packed.read_bytes())
        raise


def read_file(path: str, max_pixels: int) -> bytes:
    """Reads a regular file that may contain an image of at most ``max_pixels``.

    Raises:
        RefusedError: the path is not a regular file (but, for example, a pipe, from which reading may
            never end), or the file is larger than such an image can be.
        OSError: the file cannot be read.
        UserError: the packed folder that has the image is damaged.
    """
    limit = _BYTES_PER_PIXEL * max_pixels + _METADATA_BYTES
    if is_url(path):
        data = read_url(path, limit + 1)
        if len(data) > limit:
            raise RefusedError("too large", f"more than {limit} bytes")
        return data
    try:
        status = os.stat(path)
    except OSError:
        packed = find_packed(path)
        if packed is None:
            raise
        if packed.size() > limit:
            raise RefusedError("too large", f"{packed.size()} bytes") from None
        return packed.read_bytes()
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("unreadable", "not an ordinary file")
    if status.st_size > limit:
        raise RefusedError("too large", f"{status.st_size} bytes")
    with open(path, "rb") as file:
        return file.read()


def read_url(url: str, max_bytes: int = -1) -> bytes:
    """The bytes of a file, or its first ``max_bytes`` bytes if this is not negative. Raises OSError."""
    return remote_files(url).read(url, max_bytes)


def needs_copy(path: str) -> bool:
    """Whether a file must be copied before TensorFlow can open it.

    This is so if it is packed, or if only fsspec reads its URL.
    """
    if is_url(path):
        return not read_by_tensorflow(path)
    return not os.path.exists(path) and find_packed(path) is not None


@contextlib.contextmanager
def files_for_tensorflow(paths: Sequence[str]) -> Iterator[list[str]]:
    """Yields, for each file, a path that TensorFlow can open.

    Files that TensorFlow cannot open are copied to a temporary folder for the ``with`` block.

    Raises:
        OSError: a file cannot be read.
        UserError: a packed folder is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="seedtf-files-") as folder:
        files = []
        for number, path in enumerate(paths):
            if needs_copy(path):
                copy = os.path.join(folder, f"{number}{os.path.splitext(path)[1]}")
                with open_file(path) as source, open(copy, "wb") as out:
                    shutil.copyfileobj(source, out)
                path = copy
            files.append(path)
        yield files
