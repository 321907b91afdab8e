"""Reads what a data set consists of on disk: folders of files and CSV tables.

This module opens no image and does not import TensorFlow.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seedtf.data.columns import SPLIT_WORDS
from seedtf.data.paths import Folder, RemotePath, folder_at
from seedtf.data.tables import open_table, table_errors
from seedtf.errors import UserError

__all__ = [
    "FLAT",
    "FOLDERS",
    "IMAGE_SUFFIXES",
    "SPLIT_FOLDERS",
    "Layout",
    "SkipCallback",
    "find_layout",
    "read_csv",
    "walk_files",
]

_MAX_WRAPPERS = 8
FOLDERS, SPLIT_FOLDERS, FLAT = "folders", "split_folders", "flat"

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


@dataclass(frozen=True)
class Layout:
    """What lies in a folder of labelled images.

    Attributes:
        kind: ``folders``, ``split_folders`` or ``flat``.
        root: the folder of the class folders of training, or of the images if they lie flat.
        val: the folder of validation, with class folders; None if a split is to be drawn.
        test: the folder that is kept for the end; None if there is none.
        description: what the folder was taken for and why; empty for class folders in the folder that
            the user named.
    """

    kind: str
    root: Folder
    val: Folder | None = None
    test: Folder | None = None
    description: str = ""


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


def find_layout(
    data_dir: str | os.PathLike[str],
    flag: str = "--data_dir",
    choice: str = "auto",
    class_names: Sequence[str] = (),
) -> Layout:
    """Recognises class folders, the folders of a split, and one folder around either of them.

    Folders called train, and val or test (or like these), are a split if each has class folders. A
    folder whose only folder with images has itself two class folders or more is entered.

    Args:
        data_dir: a folder, or the URL of one.
        flag: the flag that named it, for error messages.
        choice: ``auto``, or the layout that the user knows it to have.
        class_names: the classes that are expected; a folder with such a name is never entered.

    Raises:
        UserError: the folder does not have the layout that was chosen, is ambiguous, or has images
            but no class folders.

    Example:
        >>> from pathlib import Path
        >>> for name in ["d/train/oak/1.jpg", "d/train/elm/2.jpg", "d/valid/oak/3.jpg"]:
        ...     Path(name).parent.mkdir(parents=True, exist_ok=True)
        ...     Path(name).touch()
        >>> layout = find_layout("d")
        >>> layout.kind, str(layout.root), str(layout.val), layout.test
        ('split_folders', 'd/train', 'd/valid', None)
    """
    top = folder_at(data_dir)
    if choice in (FOLDERS, FLAT) or not top.is_dir():
        return Layout(choice if choice == FLAT else FOLDERS, top)
    source = f"{flag}={top}"
    if layout := _split_layout(top, source, choice):
        return layout
    if choice == SPLIT_FOLDERS:
        raise UserError(f"{source}: no folder train beside val or test; leave --layout out")
    wrapped, entered = top, 0
    while (inner := _only_folder(wrapped)) and inner not in class_names and entered < _MAX_WRAPPERS:
        wrapped, entered = wrapped / inner, entered + 1
        if _has_images_directly(wrapped):
            break
        if layout := _split_layout(wrapped, f"{flag}={wrapped}", choice):
            return layout
        if len(_folders_with_images(wrapped, at_most=2)) == 2:
            text = f"class folders in {wrapped}, the only folder of images in {top}"
            return Layout(FOLDERS, wrapped, description=text)
    if _has_images_directly(top) and not _folders_with_images(top, at_most=1):
        raise UserError(
            f"{source}: images lie directly in it, without class folders; pass --labels_csv with a "
            "table of their labels, or --layout=flat if their names begin with the class (cat.1.jpg)"
        )
    return Layout(FOLDERS, top)


def _split_layout(top: Folder, source: str, choice: str) -> Layout | None:
    """The layout of a folder with train, and val or test; None if it has no such folders."""
    names = _folder_names(top)
    sides: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in names:
        if side := SPLIT_WORDS.get(name.lower()):
            sides[side].append(name)
    if not sides["train"] or not (sides["val"] or sides["test"] or choice == SPLIT_FOLDERS):
        return None
    parts = [name for side in sides.values() for name in side]
    nested = [name for name in parts if _folders_with_images(top / name, at_most=1)]
    others = [n for n in names if n not in parts and _has_images(top / n)]
    listed = ", ".join(parts)
    if sides["train"][0] not in nested:
        if others or not any(_has_images_directly(top / name) for name in parts):
            return None  # a class may be called train
        raise UserError(
            f"{source}: {listed} hold images without class folders; pass --labels_csv with a table of "
            "their labels, or --layout=folders if these are the classes"
        )
    doubled = next((names for names in sides.values() if len(names) > 1), [])
    if doubled or (others and choice != SPLIT_FOLDERS):
        reason = f"both {' and '.join(doubled)}" if doubled else f"{listed} beside {others[0]}"
        raise UserError(
            f"{source}: holds {reason}; pass --layout=folders if these are the classes, or the folders "
            f"of the split: --data_dir={top / sides['train'][0]} --val_dir=…"
        )
    train, val, test = (
        top / side[0] if side and side[0] in nested else None for side in sides.values()
    )
    assert train is not None
    told = [f"{name} ({side})" for side, found in sides.items() for name in found if name in nested]
    told += [
        f"{name} is not used, because it has no class folders"
        for name in parts
        if name not in nested
    ]
    text = (
        f"folders of a split in {top}: {', '.join(told)}; --layout=folders takes them for classes"
    )
    return Layout(SPLIT_FOLDERS, train, val, test, text)


def _entries(folder: Folder) -> list[str]:
    """The names in a folder, those of folders with a slash; empty if it cannot be listed."""
    try:
        if isinstance(folder, RemotePath):
            listed = folder.list("", IMAGE_SUFFIXES)
            return sorted(f"{name}/" if is_folder else name for name, is_folder in listed)
        with os.scandir(folder) as entries:
            return sorted(f"{e.name}/" if _is_folder(e) else e.name for e in entries)
    except OSError:
        return []


def _folder_names(folder: Folder) -> list[str]:
    """The folders in a folder, without those of the system."""
    names = (entry[:-1] for entry in _entries(folder) if entry.endswith("/"))
    return [n for n in names if not n.startswith(".") and n.lower() not in _SYSTEM_NAMES]


def _has_images_directly(folder: Folder) -> bool:
    return any(
        name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        for name in _entries(folder)
    )


def _has_images(folder: Folder) -> bool:
    """Whether an image lies anywhere below a folder that seedtf did not write."""
    if _is_output(_entries(folder)):
        return False
    paths = walk_files(folder, "", lambda *_: None, lambda _: None)
    return any(path.lower().endswith(IMAGE_SUFFIXES) for path in paths)


def _folders_with_images(folder: Folder, at_most: int) -> list[str]:
    images = (name for name in _folder_names(folder) if _has_images(folder / name))
    return list(itertools.islice(images, at_most))


def _only_folder(folder: Folder) -> str:
    """The only folder with images in ``folder``; empty if there is none or another."""
    names = _folders_with_images(folder, at_most=2)
    return names[0] if len(names) == 1 else ""


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
