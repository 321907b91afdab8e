"""Unpacks a ZIP or tar archive of a data set into a folder below ``--cache_dir``, once.

An archive may be hostile. Nothing is therefore written outside this folder, and an archive that might
fill the disk is refused. This module does not import TensorFlow.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from seedtf.data.archive_entries import (
    DAMAGED,
    ArchiveEntry,
    archive_kind,
    tar_entries,
    zip_entries,
)
from seedtf.data.pack.fetch import fetch_pack
from seedtf.data.paths import is_url
from seedtf.errors import UserError, first_line
from seedtf.files import lock_folder
from seedtf.report import format_bytes, format_count, is_silent, report

__all__ = ["unpack_archive"]

_CHUNK_BYTES = 1 << 20
# The largest unpacked size is a multiple of the archive's size, but 100 MiB are always allowed. An
# archive of drawings unpacks to about 100 times its size. An archive that was made to fill a disk
# unpacks to thousands of times its size.
_MAX_RATIO, _ALWAYS_ALLOWED_BYTES = 200, 100 << 20
_MAX_DISK_FRACTION = 0.8
_FILE_BYTES = 512  # counted for each file in addition to its content
_TEMPORARY, _ABANDONED_SECONDS = ".unpacking-", 60
_OTHER_ARCHIVES = {b"Rar!": "a RAR archive", b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive"}


def unpack_archive(path: str, flag: str, cache_dir: Path) -> str:
    """The folder below ``cache_dir`` with the content of an archive, or of a packed folder at a URL.

    An archive is unpacked when it is first used, and again after it has changed. It is recognised by
    its content: ZIP, or tar, which may be compressed by gzip, bzip2 or xz. A packed folder, which
    ``seedtf pack`` writes, is copied if it is at a URL. Any other path is returned unchanged.

    Args:
        path: a folder, an archive or a URL.
        flag: the flag that ``path`` was passed with, for error messages.
        cache_dir: the folder of cache files; created if it does not exist.

    Raises:
        UserError: the archive cannot be read, is damaged, is encrypted, is a RAR or 7-Zip archive, or
            would take too much of the disk; an entry is a link or a device, has the path of another
            entry, has too long a name, or would be written outside the folder; the folder cannot be
            written; the packed folder is damaged; or neither TensorFlow nor fsspec can read the URL.

    Example:
        >>> import zipfile
        >>> with zipfile.ZipFile("plants.zip", "w") as archive:
        ...     archive.writestr("oak/1.jpg", b"")
        >>> folder = Path(unpack_archive("plants.zip", "--data_dir", Path("cache")))
        archive   plants.zip: 1 file unpacked into cache/archives/plants-...
        >>> [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")]
        ['oak/1.jpg']
    """
    if is_url(path):
        return fetch_pack(path, flag, cache_dir)
    if not os.path.isfile(path):
        return path
    source = f"{flag}={path}"
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}") from error
    for magic, description in _OTHER_ARCHIVES.items():
        if head.startswith(magic):
            raise UserError(f"{source}: is {description}; unpack it and pass the folder")
    kind = archive_kind(head)
    if not kind:
        return path
    status = os.stat(path)
    key = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
    digest = hashlib.blake2b(os.fsencode(key), digest_size=8).hexdigest()
    folder = cache_dir / "archives" / f"{Path(path).name.partition('.')[0]}-{digest}"
    if folder.is_dir():
        report("archive", f"{path}: unpacked before into {folder}")
        return str(folder)
    try:
        with open(path, "rb") as file:
            count = _unpack(file, kind, folder, source)
    except OSError as error:
        if error.errno is None:  # bz2 raises an OSError without a number for damaged data.
            raise _damaged(source, error) from error
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"--cache_dir={cache_dir}: {error.strerror or error}{where}; pass another one"
        ) from error
    report("archive", f"{path}: {format_count(count, 'file')} unpacked into {folder}")
    return str(folder)


def _unpack(file: BinaryIO, kind: str, folder: Path, source: str) -> int:
    """Unpacks an archive into a folder that appears when it is complete; returns the number of files.

    Raises:
        UserError: the archive is damaged, or one of its entries is refused.
        OSError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    temporary = folder.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
    temporary.mkdir()
    try:
        with lock_folder(temporary, file=""):
            check = _EntryChecker(source, os.fstat(file.fileno()).st_size, temporary)
            # All entries of a ZIP archive are checked before the first file is written. The entries of
            # a tar archive become known only while it is unpacked.
            checked = (
                list(map(check, zip_entries(file)))
                if kind == "zip"
                else map(check, tar_entries(file))
            )
            count = _write_files(checked, temporary)
            try:
                os.rename(temporary, folder)
            except OSError:
                # It is no error if another process has unpacked the archive meanwhile.
                if not folder.is_dir():
                    raise
    except DAMAGED as error:
        raise _damaged(source, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _damaged(source: str, error: Exception) -> UserError:
    reason = first_line(error)
    return UserError(
        f"{source}: cannot be unpacked ({reason}); copy it again, or unpack it with "
        "another program and pass the folder"
    )


class _EntryChecker:
    """Refuses entries that would leave the folder, replace another entry, or fill the disk."""

    def __init__(self, source: str, archive_bytes: int, folder: Path) -> None:
        """Computes the limits of the unpacked size, from the archive's size and the free disk space."""
        self._source = source
        self._max_by_ratio = max(_MAX_RATIO * archive_bytes, _ALWAYS_ALLOWED_BYTES)
        self._max_by_disk = int(_MAX_DISK_FRACTION * shutil.disk_usage(folder).free)
        self._total = 0
        self._files: set[tuple[str, ...]] = set()
        self._folders: set[tuple[str, ...]] = {()}

    def __call__(self, entry: ArchiveEntry) -> ArchiveEntry:
        """Returns the entry unchanged, or raises UserError with its name and the reason."""
        refusal = entry.refusal
        parents = [entry.parts[:depth] for depth in range(len(entry.parts))]
        if entry.is_folder:
            self._folders.add(entry.parts)
            is_repeated = entry.parts in self._files
        else:
            is_repeated = entry.parts in self._files or entry.parts in self._folders
            self._files.add(entry.parts)
            self._total += max(entry.size, 0) + _FILE_BYTES
        self._folders.update(parents)
        if is_repeated or any(parent in self._files for parent in parents):
            refusal = refusal or "occurs twice"
        if refusal:
            shown = entry.name.encode("utf-8", "backslashreplace").decode()
            raise UserError(
                f"{self._source}: {shown!r} {refusal}; unpack the archive and pass the folder"
            )
        if self._total > min(self._max_by_ratio, self._max_by_disk):
            size = format_bytes(self._total)
            reason = (
                f"over {_MAX_RATIO} times its own size, as only archives made to fill a disk do"
                if self._total > self._max_by_ratio
                else f"and only {format_bytes(self._max_by_disk)} of the disk may be used"
            )
            raise UserError(
                f"{self._source}: unpacks to {size} or more, {reason}; unpack it and pass the folder"
            )
        return entry


def _write_files(entries: Iterable[ArchiveEntry], folder: Path) -> int:
    """Writes the files below a new folder; returns their number."""
    count = 0
    # With disable=None, tqdm prints nothing if stderr is not a terminal.
    disable = True if is_silent() else None
    with tqdm(desc="unpacking", unit="B", unit_scale=True, disable=disable, leave=False) as bar:
        for entry in entries:
            if entry.is_folder or not entry.parts:
                continue
            target = folder.joinpath(*entry.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            written = 0
            with entry.open() as source, target.open("xb") as out:
                while chunk := source.read(_CHUNK_BYTES):
                    written += len(chunk)
                    if written > entry.size:
                        raise ValueError(f"{entry.name} is longer than it says")
                    out.write(chunk)
                    bar.update(len(chunk))
            count += 1
    return count


def _remove_abandoned(folder: Path) -> None:
    """Removes the incomplete folders of killed processes."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with suppress(OSError):  # Another process holds the lock or has removed the folder.
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                with lock_folder(path, file=""):
                    shutil.rmtree(path, ignore_errors=True)
