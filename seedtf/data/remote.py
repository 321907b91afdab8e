"""Lists and reads files at URLs, through the file systems of TensorFlow and fsspec.

If both have a file system for a URL, TensorFlow's is used. TensorFlow and fsspec are imported when the
first URL is opened.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import importlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from seedtf.errors import UserError, first_line

__all__ = ["REQUESTS", "RemoteFiles", "read_by_tensorflow", "remote_files"]

REQUESTS = 64
"""The number of threads for requests over a network; many, because they wait most of the time."""

# The keys under which different file systems of fsspec give the modification time of a file.
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "created")


class RemoteFiles(Protocol):
    """A file system at URLs. All methods except ``is_dir`` and ``exists`` may raise OSError."""

    def is_dir(self, url: str) -> bool:
        """Whether the URL is an existing folder. Raises UserError if it cannot be reached."""

    def exists(self, url: str) -> bool:
        """Whether the file or folder exists. Raises UserError if it cannot be reached."""

    def list_entries(self, folder: str, file_suffixes: tuple[str, ...]) -> list[tuple[str, bool]]:
        """The name of each entry of a folder, and whether it is a folder.

        A name with one of ``file_suffixes`` may be taken for a file without a further request.
        """

    def status(self, url: str) -> tuple[int, int]:
        """Size in bytes, and modification time in ns, which is 0 in some file systems."""

    def read(self, url: str, max_bytes: int = -1) -> bytes:
        """The bytes of the file, or its first ``max_bytes`` bytes if this is not negative."""

    def copy(self, url: str, path: str) -> None:
        """Copies the file to a local path, in parts, because it may be larger than the memory."""


def remote_files(url: str) -> RemoteFiles:
    """The file system that opens a URL.

    Raises:
        UserError: neither TensorFlow nor fsspec has a file system for the scheme.
    """
    files = _files_of_scheme(url.partition("://")[0])
    if isinstance(files, str):
        raise UserError(f"{url}: {files}")
    return files


def read_by_tensorflow(url: str) -> bool:
    """Whether TensorFlow's own ops can open the URL. Raises as ``remote_files``."""
    return isinstance(remote_files(url), _TensorFlowFiles)


@functools.lru_cache(maxsize=16)
def _files_of_scheme(scheme: str) -> RemoteFiles | str:
    """The file system of a scheme; or a text that says why there is none and what the user can do."""
    registered = importlib.import_module("tensorflow").io.gfile.get_registered_schemes()
    if scheme in registered:
        return _TensorFlowFiles()
    try:
        fsspec = importlib.import_module("fsspec")
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        known = ", ".join(sorted(name for name in registered if name))
        return (
            f"this TensorFlow has no file system for {scheme}://, only {known}, nor has fsspec "
            f"({first_line(error, 80)}); run: pip install 'seedtf[remote]', or mount the bucket"
        )
    return _FsspecFiles(fsspec)


class _TensorFlowFiles:
    def __init__(self) -> None:
        self._tf = importlib.import_module("tensorflow")
        self._gfile = self._tf.io.gfile

    def is_dir(self, url: str) -> bool:
        self._check_reachable(url)
        return bool(self._gfile.isdir(url))

    def exists(self, url: str) -> bool:
        self._check_reachable(url)
        return bool(self._gfile.exists(url))

    def list_entries(self, folder: str, file_suffixes: tuple[str, ...]) -> list[tuple[str, bool]]:
        with self._os_errors(folder):
            names = self._gfile.listdir(folder)
            unknown = [
                n for n in names if not n.endswith("/") and not n.lower().endswith(file_suffixes)
            ]
            with ThreadPoolExecutor(REQUESTS) as pool:
                is_dir = pool.map(lambda name: self._gfile.isdir(f"{folder}/{name}"), unknown)
                folders = set(itertools.compress(unknown, is_dir))
        return [(name.rstrip("/"), name.endswith("/") or name in folders) for name in names]

    def status(self, url: str) -> tuple[int, int]:
        with self._os_errors(url):
            status = self._gfile.stat(url)
            return int(status.length), int(status.mtime_nsec)

    def read(self, url: str, max_bytes: int = -1) -> bytes:
        with self._os_errors(url), self._gfile.GFile(url, "rb") as file:
            return bytes(file.read(max_bytes))

    def copy(self, url: str, path: str) -> None:
        with self._os_errors(url):
            self._gfile.copy(url, path, overwrite=True)

    def _check_reachable(self, url: str) -> None:
        try:
            # Call stat first, because isdir returns False for every error, and exists raises errors of
            # TensorFlow.
            self._gfile.stat(url)
        except self._tf.errors.NotFoundError:
            pass
        except self._tf.errors.OpError as error:
            raise UserError(f"{url}: cannot be reached: {first_line(error.message)}") from None

    @contextlib.contextmanager
    def _os_errors(self, url: str) -> Iterator[None]:
        """Converts TensorFlow's errors to OSError with an error number of the operating system."""
        errors = self._tf.errors
        numbers = {errors.NotFoundError: errno.ENOENT, errors.PermissionDeniedError: errno.EACCES}
        try:
            yield
        except errors.OpError as error:
            number = numbers.get(type(error), errno.EIO)
            text = first_line(error.message) or os.strerror(number)
            raise OSError(number, text, url) from None


class _FsspecFiles:
    def __init__(self, fsspec: Any) -> None:
        self._url_to_fs = fsspec.core.url_to_fs

    def is_dir(self, url: str) -> bool:
        info = self._info(url)
        return info is not None and info.get("type") == "directory"

    def exists(self, url: str) -> bool:
        return self._info(url) is not None

    def list_entries(self, folder: str, file_suffixes: tuple[str, ...]) -> list[tuple[str, bool]]:
        with _os_errors(folder):
            file_system, path = self._url_to_fs(folder)
            entries = file_system.ls(path, detail=True)
        listed = ((entry["name"].rstrip("/"), entry["type"] == "directory") for entry in entries)
        # Leave out the folder itself, which a store lists if a tool created it as an empty object.
        return [
            (name.rpartition("/")[2], is_folder)
            for name, is_folder in listed
            if name != path.rstrip("/")
        ]

    def status(self, url: str) -> tuple[int, int]:
        with _os_errors(url):
            file_system, path = self._url_to_fs(url)
            info = file_system.info(path)
        time = next((info[name] for name in _TIME_KEYS if info.get(name) is not None), 0)
        return int(info.get("size") or 0), _nanoseconds(time)

    def read(self, url: str, max_bytes: int = -1) -> bytes:
        with _os_errors(url):
            file_system, path = self._url_to_fs(url)
            if max_bytes < 0:
                return bytes(file_system.cat_file(path))
            try:
                return bytes(file_system.cat_file(path, start=0, end=max_bytes))
            except Exception:
                # S3 refuses to read a range of an empty object.
                if file_system.info(path).get("size") == 0:
                    return b""
                raise

    def copy(self, url: str, path: str) -> None:
        with _os_errors(url):
            file_system, remote = self._url_to_fs(url)
            file_system.get_file(remote, path)

    def _info(self, url: str) -> dict[str, Any] | None:
        try:
            with _os_errors(url):
                file_system, path = self._url_to_fs(url)
                return dict(file_system.info(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{url}: cannot be reached: {error.strerror}") from None


@contextlib.contextmanager
def _os_errors(url: str) -> Iterator[None]:
    """Converts any error of an fsspec file system to an OSError with an error number."""
    try:
        yield
    except FileNotFoundError:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
    except OSError as error:
        text = error.strerror or first_line(error)
        raise OSError(error.errno or errno.EIO, text, url) from None
    except Exception as error:  # Each file system has its own types of errors.
        raise OSError(errno.EIO, first_line(error), url) from None


def _nanoseconds(time: Any) -> int:
    """A modification time in ns, from any form that fsspec returns; 0 for an unknown form.

    Example:
        >>> _nanoseconds(1.5), _nanoseconds("1970-01-01T00:00:02Z"), _nanoseconds("soon")
        (1500000000, 2000000000, 0)
    """
    if isinstance(time, str):
        with contextlib.suppress(ValueError):
            time = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
    if isinstance(time, datetime.datetime):
        time = time.timestamp()
    return round(time * 1e9) if isinstance(time, (int, float)) else 0
