"""Atomic writes (to a temporary file that is then renamed), CSV lines, file locks, unused names."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seedtf.errors import UserError
from seedtf.report import warn

__all__ = [
    "atomic_path",
    "check_out_folder",
    "check_parent",
    "csv_line",
    "fsync",
    "is_locked",
    "lock_folder",
    "numbered_names",
    "remove_leftovers",
    "unique_name",
    "write_bytes",
    "write_lines",
    "write_text",
]

_TEMPORARY = ".seedtf-tmp-"

# The error numbers of a file system that does not support an operation.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)

LOCK = "lock"
"""Name of the file that a process locks while it uses the folder."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, and renames it to ``path`` after the ``with`` block.

    Another process sees the old file or the new one, never a part of it. If the block raises an error,
    the temporary file is removed and ``path`` stays unchanged. The temporary name has the suffix of
    ``path``, because writers such as Keras choose the format by the suffix. The name starts with a dot,
    so the file is hidden and is not listed as an image.

    Args:
        path: the file to create or replace; its folder must exist.

    Raises:
        OSError: the folder cannot be written, or the disk is full.

    Example:
        >>> with atomic_path("classes.txt") as temporary:
        ...     _ = temporary.write_text("maize")
        ...     Path("classes.txt").exists()
        False
        >>> Path("classes.txt").read_text()
        'maize'
    """
    path = Path(path)
    temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}{path.suffix}"
    try:
        # Create the file with ``touch``, so that its permissions follow the umask.
        temporary.touch(exist_ok=False)
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # There may be no temporary file, for example without the folder.
            temporary.unlink()
        # Name the path that the user knows, not the temporary file. An error of h5py has no number. It
        # gets no file name, because Python would print that name instead of the message.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to the file ``path``, atomically. Raises OSError as ``atomic_path`` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` to the file ``path`` in UTF-8, atomically. Line ends are not converted."""
    write_bytes(path, text.encode("utf-8"))


def write_lines(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Writes the lines, which have their own line ends, to ``path`` in UTF-8, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that killed processes left below ``folder``."""
    for path in folder.rglob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def csv_line(*cells: str) -> str:
    """One line of a CSV table, in which cells are quoted if necessary.

    The format is that of RFC 4180, except that the line ends with ``\\n``.

    Example:
        >>> print(csv_line("oak/1.png", 'an "old" oak'), end="")
        oak/1.png,"an ""old"" oak"
    """
    # csv.writer took twice as long for a million rows. It also does not quote a cell with a carriage
    # return, which csv.reader takes for the end of the row.
    plain = ",".join(cells)
    if plain.count(",") == len(cells) - 1 and not any(char in plain for char in '"\r\n'):
        return plain + "\n"
    return ",".join(map(_quoted, cells)) + "\n"


def check_out_folder(
    folder: str | os.PathLike[str], flag: str, *, overwrite: bool | None = False
) -> None:
    """Raises UserError if ``folder`` is a file, or contains files that must not be replaced.

    Args:
        folder: the folder that will be written; it need not exist.
        flag: the flag that names the folder, such as ``--out``.
        overwrite: whether the files in the folder may be replaced. None means that they may not, and
            that the message must not suggest ``--overwrite``, because the command lacks this flag.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag}={folder}: is a file; pass a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        remedy = "" if overwrite is None else " or --overwrite"
        raise UserError(f"{flag}={folder}: already exists; pass another folder{remedy}")


def check_parent(path: Path, flag: str) -> None:
    """Raises UserError unless the parent folder of ``path`` exists and can be written.

    Commands check this before they begin, so that a result of minutes of work is not lost.

    Args:
        path: the file that will be written.
        flag: the flag that names the file, such as ``--out``.
    """
    if not path.parent.is_dir():
        raise UserError(f"{flag}={path}: no folder {path.parent}; create it or pass another path")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{flag}={path}: {path.parent} cannot be written; pass another path")


def numbered_names(base: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the paths ``base``, ``base-2``, ``base-3``, … without end, whether they exist or not.

    Example:
        >>> names = numbered_names("runs/oak")
        >>> str(next(names)), str(next(names))
        ('runs/oak', 'runs/oak-2')
    """
    yield Path(base)
    for number in itertools.count(2):
        yield Path(f"{base}-{number}")


def unique_name(stem: str, suffix: str, counts: Counter[str]) -> str:
    """``stem + suffix``, or a numbered name such as ``stem~2`` if earlier calls returned that name.

    The first number, from 2, that gives a new name is used.

    Args:
        stem: the name without its suffix.
        suffix: the suffix with its dot; may be empty.
        counts: the names that earlier calls returned, each with the last number that was tried for it.
            Pass the same counter to all calls; it is empty before the first call.

    Example:
        >>> counts = Counter()
        >>> [unique_name(stem, ".png", counts) for stem in ("7", "7~2", "7", "7")]
        ['7.png', '7~2.png', '7~3.png', '7~4.png']
    """
    given = name = stem + suffix
    while name in counts:
        counts[given] += 1
        name = f"{stem}~{counts[given]}{suffix}"
    counts[name] = 1
    return name


@contextmanager
def lock_folder(folder: Path, *, file: str = LOCK) -> Iterator[None]:
    """Holds an exclusive lock on a file in ``folder`` during the ``with`` block.

    The kernel releases the lock even if the process is killed. Some file systems have no locks, such as
    NFS without its lock service. There, a warning is printed and nothing is locked.

    Args:
        folder: an existing folder.
        file: name of the lock file; empty locks the folder itself, which leaves no file in it.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder is missing or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT if file else os.O_RDONLY
    descriptor = os.open(folder / file, flags, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            warn(f"{folder}: its file system has no locks; let only one process use the folder")
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock ``folder/lock``; False if there is no such file.

    Raises:
        OSError: the user lacks the permission to read the folder or the file.
    """
    # Try a shared lock, because it needs only the permission to read the file. An exclusive lock on NFS
    # needs a file that is opened for writing.
    try:
        file = (folder / LOCK).open()
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return False


def fsync(path: str | os.PathLike[str]) -> None:
    """Flushes a file or folder to disk; does nothing for a folder that cannot be flushed.

    Raises:
        OSError: the path is missing, or the disk reports an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # VirtualBox's vboxsf and older CIFS can rename files in a folder, but not flush the folder.
        if error.errno not in _UNSUPPORTED or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def _quoted(cell: str) -> str:
    if not any(char in cell for char in ',"\r\n'):
        return cell
    return '"' + cell.replace('"', '""') + '"'
