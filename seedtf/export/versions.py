"""Creates numbered version folders; a model server never sees an incomplete one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from seedtf.errors import UserError
from seedtf.files import fsync, lock_folder
from seedtf.runs.saved_model import is_version

__all__ = ["Version", "new_version"]

# Model servers ignore a folder with this name, because only integers are names of versions.
_UNFINISHED = ".exporting."


@dataclass(frozen=True)
class Version:
    """A version that is being written.

    Attributes:
        number: the number of the version, which becomes the name of its folder.
        folder: the hidden folder to write to.
    """

    number: int
    folder: Path


@contextmanager
def new_version(out_dir: str | os.PathLike[str]) -> Iterator[Version]:
    """Yields a hidden folder; after the ``with`` block, the folder is renamed to its version number.

    The number is one more than the largest version in ``out_dir``, which is created if missing. All
    files are flushed to disk before the folder is renamed. If the ``with`` block raises an error, the
    hidden folder is deleted. If the process is killed, the next call deletes the hidden folder. Only
    one process at a time may export to ``out_dir``.

    Raises:
        UserError: ``out_dir`` is a file or cannot be written, or another export is running there.

    Example:
        >>> with new_version("export") as version:
        ...     _ = (version.folder / "saved_model.pb").write_bytes(b"")
        >>> version.number
        1
        >>> sorted(path.name for path in Path("export").iterdir())
        ['1']
    """
    out_dir = Path(out_dir)
    with ExitStack() as stack:
        with _os_errors_as_user_errors(out_dir):
            out_dir.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock_folder(out_dir, file=""))
            except BlockingIOError:
                raise UserError(
                    f"--out={out_dir}: another export is running there; wait for it or pass another "
                    "folder"
                ) from None
            version = _create_hidden_folder(out_dir)
        try:
            yield version
            with _os_errors_as_user_errors(out_dir):
                _publish(version.folder, out_dir / str(version.number))
        finally:
            shutil.rmtree(version.folder, ignore_errors=True)


def _create_hidden_folder(out_dir: Path) -> Version:
    """Deletes hidden folders that killed exports have left, and creates a hidden folder."""
    for leftover in out_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    numbers = [int(entry.name) for entry in out_dir.iterdir() if is_version(entry.name)]
    folder = tempfile.mkdtemp(prefix=_UNFINISHED, dir=out_dir)
    return Version(max(numbers, default=0) + 1, Path(folder))


def _publish(folder: Path, target: Path) -> None:
    """Flushes all files to disk, then renames the folder, so a power cut leaves no partial version."""
    for parent, _, files in os.walk(folder):
        for name in files:
            fsync(os.path.join(parent, name))
        fsync(parent)
    # mkdtemp creates private folders (0700), but a model server often runs as another user.
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    os.rename(folder, target)
    fsync(target.parent)


@contextmanager
def _os_errors_as_user_errors(out_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--out={out_dir}: {error.strerror or error}; pass a folder that can be written"
        ) from error
