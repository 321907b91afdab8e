"""Numbered version folders that a polling server sees whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seedtf.errors import UserError

__all__ = ["Version", "find_saved_model", "new_version", "newest_saved_model"]

# a server takes any name that reads as an integer for a version, and no other
_UNFINISHED = ".exporting."


@dataclass(frozen=True)
class Version:
    """A version in the making: its ``number``, and the hidden ``folder`` to fill."""

    number: int
    folder: Path


@contextmanager
def new_version(out_dir: str | os.PathLike[str]) -> Iterator[Version]:
    """Yields a version to fill; at the end its folder is flushed to disk and renamed to its number.

    The number is one more than the largest in ``out_dir``, which is created where it is missing. When
    the body raises nothing remains; what a killed process left is removed at the next call. One
    process at a time may work in ``out_dir``.

    Raises:
        UserError: ``out_dir`` is a file, cannot be written, or another export is at work there.
    """
    out_dir = Path(out_dir)
    with _out_errors(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(out_dir, os.O_RDONLY)
    try:
        with _out_errors(out_dir):
            version = _begin(out_dir, lock)
        try:
            yield version
            with _out_errors(out_dir):
                _publish(version.folder, out_dir / str(version.number))
        finally:
            shutil.rmtree(version.folder, ignore_errors=True)
    finally:
        os.close(lock)  # which also gives up the lock, as the end of the process does


def find_saved_model(path: str | os.PathLike[str]) -> Path:
    """The SavedModel at ``path``: the folder itself, or the newest version in it.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; pass what seedtf export printed")
    found = newest_saved_model(path)
    if found is None:
        raise UserError(
            f"{path}: not an export (no saved_model.pb); pass what seedtf export printed"
        )
    return found


def newest_saved_model(path: Path) -> Path | None:
    """``path`` if it is a SavedModel, else the highest version in it if that is one, else None."""
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        return None
    versions = [entry for entry in path.iterdir() if _is_version(entry.name)]
    newest = max(versions, key=lambda entry: int(entry.name), default=path)
    return newest if (newest / "saved_model.pb").is_file() else None


def _begin(out_dir: Path, lock: int) -> Version:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"--out={out_dir}: another export is at work there; wait for it or pass another folder"
        ) from None
    for leftover in out_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    numbers = [int(entry.name) for entry in out_dir.iterdir() if _is_version(entry.name)]
    folder = tempfile.mkdtemp(prefix=_UNFINISHED, dir=out_dir)
    return Version(max(numbers, default=0) + 1, Path(folder))


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _publish(folder: Path, target: Path) -> None:
    """Flushes every file and folder, then renames: after a power cut too, a number means whole."""
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(os.path.join(parent, name))
        _sync(parent)
    # mkdtemp makes folders private (0700); a server is often another user
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    os.rename(folder, target)
    _sync(target.parent)


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _out_errors(out_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--out={out_dir}: {error.strerror or error}; pass a folder that can be written"
        ) from error
