"""Folders behind a URL (``gs://…``, ``s3://…``), through TensorFlow's own file systems.

TensorFlow is imported only when a URL is really opened.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtf.errors import UserError

__all__ = [
    "REQUESTS",
    "Folder",
    "RemotePath",
    "common_folder",
    "folder_at",
    "is_url",
    "read_url",
    "url_status",
]

REQUESTS = 64
"""Requests at a time over a network, which wait more than they work."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` names a file system by its scheme, such as ``gs://``."""
    return "://" in os.fspath(path)


@dataclass(frozen=True)
class RemotePath(os.PathLike):
    """What the program needs of ``pathlib.Path``, for a URL."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def resolve(self) -> RemotePath:
        """Itself; a URL is whole."""
        return self

    def is_dir(self) -> bool:
        """Whether there is such a folder.

        Raises:
            UserError: TensorFlow has no file system for the scheme, or cannot reach it.
        """
        return self._status(folder=True)

    def exists(self) -> bool:
        """Whether there is a file or folder. Raises as ``is_dir``."""
        return self._status(folder=False)

    def list(self, below: str, files: tuple[str, ...]) -> list[tuple[str, bool]]:
        """The entries of the folder ``below`` this one: names and whether each is a folder.

        A name that ends as one of ``files`` is taken for a file unless the file system marks it as a
        folder: to ask would be a request over the network for every image.

        Raises:
            OSError: it cannot be listed.
        """
        folder = str(self / below).rstrip("/") if below else self.url
        with _os_errors(folder) as gfile:
            names = gfile.listdir(folder)
            unsure = [n for n in names if not n.endswith("/") and not n.lower().endswith(files)]
            with ThreadPoolExecutor(REQUESTS) as pool:
                asked = pool.map(lambda name: gfile.isdir(f"{folder}/{name}"), unsure)
                folders = {name for name, is_folder in zip(unsure, asked, strict=True) if is_folder}
        return [(name.rstrip("/"), name.endswith("/") or name in folders) for name in names]

    def read_bytes(self) -> bytes:
        """A whole file. Raises OSError."""
        return read_url(self.url)

    def _status(self, *, folder: bool) -> bool:
        tf = _tensorflow()
        _check_scheme(self.url)
        try:
            # isdir and exists would take every error for a no
            tf.io.gfile.stat(self.url)
        except tf.errors.NotFoundError:
            pass
        except tf.errors.OpError as error:
            raise UserError(
                f"{self.url}: cannot be reached: {_first_line(error.message)}"
            ) from None
        return bool((tf.io.gfile.isdir if folder else tf.io.gfile.exists)(self.url))


Folder = Path | RemotePath
"""A folder of images, here or behind a URL."""


def folder_at(path: str | os.PathLike[str]) -> Folder:
    """``path`` as a folder; nothing is opened."""
    text = os.fspath(path)
    if isinstance(path, RemotePath):
        return path
    return RemotePath(text.rstrip("/")) if is_url(text) else Path(text)


def common_folder(first: Folder, second: Folder) -> tuple[Folder, str, str]:
    """The nearest folder that holds both, and the two as prefixes relative to it.

    A prefix is empty or ends in a slash.

    Raises:
        ValueError: they lie in different file systems.
    """
    folders = [str(folder.resolve()) for folder in (first, second)]
    schemes = [folder.partition("://")[0] if is_url(folder) else "" for folder in folders]
    if schemes[0] != schemes[1]:
        raise ValueError("different file systems")
    start = f"{schemes[0]}://" if schemes[0] else ""
    # a bucket or host is no folder of the one root that a local path has
    tails = [f"/{folder.removeprefix(start)}" if start else folder for folder in folders]
    common = os.path.commonpath(tails)
    if start and common == "/":
        raise ValueError("different buckets")
    prefixes = [os.path.relpath(tail, common) for tail in tails]
    shown = [("" if prefix == "." else f"{prefix}/") for prefix in prefixes]
    return folder_at(f"{start}{common[1:]}" if start else common), shown[0], shown[1]


def read_url(url: str, most_bytes: int = -1) -> bytes:
    """The first ``most_bytes`` bytes of a file, or all.

    Raises:
        OSError: it cannot be read.
    """
    with _os_errors(url) as gfile, gfile.GFile(url, "rb") as file:
        return bytes(file.read(most_bytes))


def url_status(url: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns since 1970, which some file systems leave 0.

    Raises:
        OSError: there is no such file, or it cannot be asked.
    """
    with _os_errors(url) as gfile:
        status = gfile.stat(url)
        return int(status.length), int(status.mtime_nsec)


@contextlib.contextmanager
def _os_errors(url: str) -> Iterator[Any]:
    """TensorFlow's file functions, their errors made the operating system's."""
    tf = _tensorflow()
    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise OSError(error.error_code, _first_line(error.message) or "no such file", url) from None


def _check_scheme(url: str) -> None:
    """Raises UserError unless TensorFlow, or a plug-in that is installed, knows the scheme."""
    schemes = _tensorflow().io.gfile.get_registered_schemes
    scheme = url.partition("://")[0]
    if scheme not in schemes():
        # it registers its file systems; it may be missing, or made for another TensorFlow
        with contextlib.suppress(Exception):
            importlib.import_module("tensorflow_io")
    known = sorted(name for name in schemes() if name)
    if scheme not in known:
        raise UserError(
            f"{url}: this TensorFlow has no file system for {scheme}://, only {', '.join(known)}; "
            "install a tensorflow-io made for it (s3, az, hdfs, http), or mount the bucket as a folder"
        )


def _tensorflow() -> Any:
    return importlib.import_module("tensorflow")


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else ""
