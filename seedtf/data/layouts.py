"""Reads what a data set consists of on disk: folders of files and CSV tables.

This module opens no image and does not import TensorFlow.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence

from seedtf.data.paths import RemotePath, folder_at
from seedtf.data.tables import open_table, table_errors
from seedtf.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "SkipCallback", "read_csv", "walk_files"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp")
# File managers, archivers, file systems and network storages leave these; they are never the user's
# images.
_SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "lost+found"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("#recycle", "@recycle", "#snapshot", "@recently-snapshot", "lost.dir"),
    }
)
# The names in a folder by which it is known as an output of seedtf: a run, a learning-rate search, a
# tuning, and the embedded sample in a cache folder. Folders end with a slash.
_OUTPUTS = (
    frozenset({"checkpoints/", "state/"}),
    frozenset({"lr_find.csv", "lr_find.png"}),
    frozenset({"trials.csv", "importance.png"}),
    frozenset({".seedtf-sample.json"}),
)


SkipCallback = Callable[[str, str, str], None]
"""Called with the path, a short fixed name and the detail of each entry that is skipped."""


def walk_files(
    root: str | os.PathLike[str],
    flag: str,
    on_skip: SkipCallback | None = None,
    on_left_out: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Yields the path of every file below ``root``, relative, ``/``-separated and sorted.

    Hidden and system entries are skipped. Links to folders are followed, except back to a folder that
    contains the link. Only the names in the current folder and in those above it are held in memory.

    Args:
        root: a folder, or the URL of one.
        flag: the flag that named it, for error messages.
        on_skip: called for each skipped entry. If given, a folder that cannot be listed is skipped
            too, instead of ending the walk.
        on_left_out: called with each system folder that is not hidden. If given, the runs, searches
            and samples that seedtf wrote below ``root`` are left out too, and it is called with them.

    Raises:
        UserError: a folder cannot be listed.
    """
    skip = on_skip or (lambda path, name, detail: None)
    top = folder_at(root)
    remote = top if isinstance(top, RemotePath) else None

    def entries(folder: str, relative: str) -> Iterator[str]:
        if remote is not None:
            for name, is_folder in remote.list(relative, IMAGE_SUFFIXES):
                yield f"{name}/" if is_folder else name
            return
        with os.scandir(folder) as listing:
            for entry in listing:
                yield f"{entry.name}/" if _is_folder(entry) else entry.name

    def walk(relative: str, ancestors: frozenset[str]) -> Iterator[str]:
        folder = os.path.join(top, relative[:-1]) if relative else os.fspath(top)
        try:
            # The names of folders end with a slash, so that the whole paths come out sorted.
            names = sorted(entries(folder, relative))
        except OSError as error:
            if on_skip is None:
                raise UserError(f"{flag}: cannot list {folder}: {error.strerror}") from error
            skip(relative, "unreadable", f"folder cannot be listed: {error.strerror}")
            return
        if relative and on_left_out and _is_output(names):
            on_left_out(relative.rstrip("/"))
            skip(relative.rstrip("/"), "seedtf output", "skipped")
            return
        for entry in names:
            name = entry.rstrip("/")
            if name.startswith(".") or name.lower() in _SYSTEM_NAMES:
                skip(relative + name, "system file", "skipped")
                if on_left_out and name != entry and not name.startswith("."):
                    on_left_out(relative + name)
            elif name == entry:
                yield relative + name
            elif remote is not None:
                yield from walk(relative + entry, ancestors)
            elif (real := os.path.realpath(os.path.join(folder, name))) in ancestors:
                skip(relative + name, "symlink loop", f"leads back to {real}; not entered again")
            else:
                yield from walk(relative + entry, ancestors | {real})

    return walk("", frozenset({os.path.realpath(top)}))


def _is_output(names: list[str]) -> bool:
    """Whether the entries of a folder show that seedtf wrote it."""
    return any(marks.issubset(names) for marks in _OUTPUTS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def read_csv(
    csv_path: str | os.PathLike[str], columns: Sequence[str], flag: str
) -> Iterator[list[str]]:
    """Yields the cells of ``columns``, unchanged, of each row of a UTF-8 CSV table with a header line.

    Raises:
        UserError: the file is missing, is not such a table, or lacks one of ``columns``.
    """
    with table_errors(csv_path, flag), open_table(csv_path) as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        missing = [column for column in columns if column not in header]
        if missing:
            found = ", ".join(header) or "none"
            raise UserError(
                f"{flag}={csv_path}: no column {missing[0]!r}, found {found}; "
                f"the first line must name {', '.join(columns)}"
            )
        for row in reader:
            yield [row[column] or "" for column in columns]
