"""Lists the files below a folder, except those that operating systems and seedtf itself leave there.

This module decodes nothing and does not import TensorFlow.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

from seedtf.data.image_files import any_image, is_image
from seedtf.data.packed import PackedPath
from seedtf.data.paths import Folder, RemotePath, folder_at
from seedtf.errors import UserError
from seedtf.images.kinds import IMAGE_SUFFIXES

__all__ = [
    "SkipCallback",
    "folder_names",
    "folders_with_images",
    "has_images",
    "has_images_directly",
    "image_paths",
    "names_in",
    "walk_files",
]

# Each folder is walked by a call inside the call for its parent, and Python allows 1,000 nested calls.
_MAX_DEPTH = 200

# Names, in lower case, of the files and folders that file managers, archivers, file systems and network
# storages create. They never contain the user's images.
_SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "lost+found"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("#recycle", "@recycle", "#snapshot", "@recently-snapshot", "lost.dir"),
    }
)
# A folder that contains all names of one of these sets was written by seedtf. In this order, the sets
# are for a run, a search of `seedtf lr_find`, a search of `seedtf tune`, a cross-validation, and the
# embedded sample. The names of folders end with a slash.
_OUTPUTS = (
    frozenset({"checkpoints/", "state/"}),
    frozenset({"lr_find.csv", "lr_find.png"}),
    frozenset({"trials.csv", "importance.png"}),
    frozenset({"folds.csv", "folds.json"}),
    frozenset({".seedtf-sample.json"}),
)


SkipCallback = Callable[[str, str, str], None]
"""A function that is called for each skipped entry: ``(path, short fixed reason, detail)``."""


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
        flag: the flag that named the folder, for error messages.
        on_skip: called for each skipped entry. If it is given, a folder that cannot be listed is
            skipped, instead of raising an error.
        on_left_out: called with the path of each skipped folder that could be taken for a class: system
            folders whose names do not begin with a dot, and folders that seedtf wrote (runs, searches,
            samples). If it is not given, folders that seedtf wrote are not skipped.

    Raises:
        UserError: a folder cannot be listed, or more than 200 folders are inside each other.
    """
    skip = on_skip or (lambda path, reason, detail: None)
    top = folder_at(root)
    if isinstance(top, PackedPath):
        return iter(sorted(top.pack.names))
    remote = top if isinstance(top, RemotePath) else None

    def entries(folder: str, relative: str) -> Iterator[str]:
        if remote is not None:
            for name, is_folder in remote.list_entries(relative, IMAGE_SUFFIXES):
                yield f"{name}/" if is_folder else name
            return
        with os.scandir(folder) as listing:
            for entry in listing:
                yield f"{entry.name}/" if _is_folder(entry) else entry.name

    def walk(relative: str, ancestors: frozenset[str]) -> Iterator[str]:
        folder = os.path.join(top, relative[:-1]) if relative else os.fspath(top)
        if relative.count("/") > _MAX_DEPTH:
            if on_skip is None:
                raise UserError(
                    f"{flag}: more than {_MAX_DEPTH} folders inside each other: {folder}"
                )
            skip(relative, "unreadable", f"more than {_MAX_DEPTH} folders inside each other")
            return
        try:
            # Because the names of folders end with a slash, sorting the names sorts the paths.
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


def names_in(folder: Folder) -> list[str]:
    """The sorted names of the entries of a folder; the name of a folder ends with a slash.

    The list is empty for a packed folder, and for a folder that cannot be listed.
    """
    try:
        if isinstance(folder, PackedPath):
            return []
        if isinstance(folder, RemotePath):
            listed = folder.list_entries("", IMAGE_SUFFIXES)
            return sorted(f"{name}/" if is_folder else name for name, is_folder in listed)
        with os.scandir(folder) as entries:
            return sorted(f"{e.name}/" if _is_folder(e) else e.name for e in entries)
    except OSError:
        return []


def folder_names(folder: Folder) -> list[str]:
    """The names of the folders in a folder, except hidden folders and folders of the system."""
    names = (entry[:-1] for entry in names_in(folder) if entry.endswith("/"))
    return [n for n in names if not n.startswith(".") and n.lower() not in _SYSTEM_NAMES]


def folders_with_images(folder: Folder, at_most: int) -> list[str]:
    """The names of the first ``at_most`` folders in ``folder`` with an image anywhere below them."""
    found = (name for name in folder_names(folder) if has_images(folder / name))
    return list(itertools.islice(found, at_most))


def has_images_directly(folder: Folder) -> bool:
    """Whether an image lies in the folder itself."""
    files = (name for name in names_in(folder) if not name.startswith(".") and name[-1] != "/")
    return any_image(folder, (name for name in files if name.lower() not in _SYSTEM_NAMES))


def has_images(folder: Folder) -> bool:
    """Whether an image lies anywhere below a folder; False for a folder that seedtf wrote."""
    return not _is_output(names_in(folder)) and any_image(folder, _visible_files(folder))


def image_paths(folder: Folder) -> Iterator[str]:
    """The path of each image below a folder, except images that seedtf or the system wrote."""
    return (path for path in _visible_files(folder) if is_image(folder, path))


def _visible_files(folder: Folder) -> Iterator[str]:
    return walk_files(folder, "", lambda *_: None, lambda _: None)


def _is_output(names: list[str]) -> bool:
    """Whether seedtf wrote the folder that contains these names."""
    return any(output_names.issubset(names) for output_names in _OUTPUTS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False
