"""Local paths, images of packed folders, and URLs (``gs://…``, ``s3://…``) of folders and files.

An image of a packed folder has the path that it would have if the folder were unpacked there.
URLs are opened through TensorFlow's file systems; TensorFlow is imported when a URL is first opened.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from seedtf.data.packed import PackedPath, find_packed, is_pack, open_pack
from seedtf.data.string_array import StringArray
from seedtf.errors import UserError, first_line
from seedtf.images.header import RefusedError

__all__ = [
    "Folder",
    "RemotePath",
    "common_folder",
    "file_statuses",
    "folder_at",
    "is_file",
    "is_url",
    "num_threads",
    "open_file",
    "read_file",
    "read_url",
]

# The number of threads for requests over a network. It may exceed the number of cores, because these
# threads mostly wait.
_REQUESTS = 64
# A file has at most 8 bytes per pixel (uncompressed 16-bit RGBA), plus metadata.
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 64 << 20


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` starts with the scheme of a file system.

    Example:
        >>> is_url("gs://bucket/photos"), is_url("photos")
        (True, False)
    """
    return "://" in os.fspath(path)


@dataclass(frozen=True)
class RemotePath(os.PathLike):
    """A URL with the methods of ``pathlib.Path`` that seedtf uses."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def parent(self) -> RemotePath:
        """The folder that contains this one."""
        return RemotePath(self.url.rstrip("/").rpartition("/")[0])

    def resolve(self) -> RemotePath:
        """Returns itself, because a URL is always absolute."""
        return self

    def is_dir(self) -> bool:
        """Whether the URL is an existing folder.

        Raises:
            UserError: TensorFlow has no file system for the scheme, or cannot reach it.
        """
        return self._status(folder=True)

    def exists(self) -> bool:
        """Whether the file or folder exists. Raises as ``is_dir``."""
        return self._status(folder=False)

    def list(self, subfolder: str, file_suffixes: tuple[str, ...]) -> list[tuple[str, bool]]:
        """Lists ``subfolder`` of this folder, or this folder itself if ``subfolder`` is empty.

        A name with one of ``file_suffixes`` counts as a file unless the listing marks it as a folder,
        because a check would take one request over the network for every image.

        Returns:
            The name of each entry, and whether it is a folder.

        Raises:
            OSError: the folder cannot be listed.
        """
        folder = str(self / subfolder).rstrip("/") if subfolder else self.url
        with _os_errors(folder) as gfile:
            names = gfile.listdir(folder)
            unknown = [
                n for n in names if not n.endswith("/") and not n.lower().endswith(file_suffixes)
            ]
            with ThreadPoolExecutor(_REQUESTS) as pool:
                is_dir = pool.map(lambda name: gfile.isdir(f"{folder}/{name}"), unknown)
                folders = set(itertools.compress(unknown, is_dir))
        return [(name.rstrip("/"), name.endswith("/") or name in folders) for name in names]

    def read_bytes(self) -> bytes:
        """Reads a whole file. Raises OSError."""
        return read_url(self.url)

    def _status(self, *, folder: bool) -> bool:
        tf = _tensorflow()
        _check_scheme(self.url)
        try:
            # stat comes first, because isdir and exists return False for every error.
            tf.io.gfile.stat(self.url)
        except tf.errors.NotFoundError:
            pass
        except tf.errors.OpError as error:
            raise UserError(f"{self.url}: cannot be reached: {first_line(error.message)}") from None
        return bool((tf.io.gfile.isdir if folder else tf.io.gfile.exists)(self.url))


Folder = Path | RemotePath | PackedPath
"""A folder, local, packed or at a URL."""


def folder_at(path: str | os.PathLike[str]) -> Folder:
    """Converts ``path`` to a ``Path``, ``RemotePath`` or ``PackedPath``.

    Only a packed folder is opened.

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
    """Whether a local file exists, or a packed folder has this image. Raises as ``folder_at``."""
    return os.path.isfile(path) or find_packed(path) is not None


def common_folder(*folders: Folder) -> tuple[Folder, list[str]]:
    """The nearest common parent of some folders, and the path of each folder relative to it.

    A relative path is empty or ends with a slash.

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
    # Unlike the folders of a local file system, buckets and hosts have no common root.
    tails = [f"/{name.removeprefix(start)}" if start else name for name in names]
    common = os.path.commonpath(tails)
    if start and common == "/":
        raise ValueError("different buckets")
    relative = [os.path.relpath(tail, common) for tail in tails]
    prefixes = [("" if path == "." else f"{path}/") for path in relative]
    return folder_at(f"{start}{common[1:]}" if start else common), prefixes


def num_threads(paths: StringArray) -> int:
    """The number of threads to read ``paths``: one per core, or more for files on a network."""
    cores = os.cpu_count() or 1
    return max(cores, _REQUESTS) if is_url(paths.prefix) else cores


def file_statuses(paths: StringArray) -> Iterator[tuple[int, int] | None]:
    """The size in bytes and the modification time in ns of each file; None if it cannot be read."""

    def status(path: str) -> tuple[int, int] | None:
        try:
            if is_url(path):
                return _url_status(path)
            result = os.stat(path)
        except OSError:
            packed = find_packed(path)
            return (packed.size(), packed.pack.mtime_ns) if packed else None
        return result.st_size, result.st_mtime_ns

    if not is_url(paths.prefix):
        yield from map(status, paths)
        return
    chunk = 64 * _REQUESTS  # pool.map would queue all its tasks at once, which takes memory
    with ThreadPoolExecutor(num_threads(paths)) as pool:
        for start in range(0, len(paths), chunk):
            yield from pool.map(status, paths[start : start + chunk])


def open_file(path: str) -> BinaryIO:
    """Opens a file to read bytes; a file at a URL or in a pack is read completely.

    Raises:
        OSError: the file cannot be read.
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
        RefusedError: the path is a pipe or device, which could block for ever, or the file is larger
            than such an image can be.
        OSError: the file cannot be read.
        UserError: the pack that has the image is damaged.
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
    """Reads a file, or its first ``max_bytes`` bytes. Raises OSError."""
    with _os_errors(url) as gfile, gfile.GFile(url, "rb") as file:
        return bytes(file.read(max_bytes))


def _url_status(url: str) -> tuple[int, int]:
    """Size in bytes and modification time in ns, 0 in some file systems. Raises OSError."""
    with _os_errors(url) as gfile:
        status = gfile.stat(url)
        return int(status.length), int(status.mtime_nsec)


@contextlib.contextmanager
def _os_errors(url: str) -> Iterator[Any]:
    """Yields ``tf.io.gfile`` and converts TensorFlow's errors to OSError."""
    tf = _tensorflow()
    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise OSError(error.error_code, first_line(error.message) or "no such file", url) from None


def _check_scheme(url: str) -> None:
    """Raises UserError unless TensorFlow, or an installed plug-in, supports the scheme."""
    schemes = _tensorflow().io.gfile.get_registered_schemes
    scheme = url.partition("://")[0]
    if scheme not in schemes():
        # Importing tensorflow_io registers more file systems. The import fails if the package is
        # missing or was made for another version of TensorFlow.
        with contextlib.suppress(Exception):
            importlib.import_module("tensorflow_io")
    supported = sorted(name for name in schemes() if name)
    if scheme not in supported:
        raise UserError(
            f"{url}: this TensorFlow has no file system for {scheme}://, only {', '.join(supported)}; "
            "install a tensorflow-io made for it (s3, az, hdfs, http), or mount the bucket as a folder"
        )


def _tensorflow() -> Any:
    return importlib.import_module("tensorflow")
