"""Lists labelled image files under one class list, fixed before any split.

Nothing here opens an image or imports TensorFlow.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from seedtf.data.paths import Folder, RemotePath, folder_at, is_url, read_url
from seedtf.data.string_array import StringArray
from seedtf.errors import UserError

__all__ = [
    "IMAGE_SUFFIXES",
    "Catalog",
    "Fault",
    "TellSkipped",
    "align_labels",
    "read_csv",
    "read_labels_csv",
    "scan_folder",
    "walk_files",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp")
# left by file managers and archivers; never the user's images
_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"})


TellSkipped = Callable[[str, str, str], None]
"""Told the path, a short fixed name and the detail of an entry that a walk does not enter."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not used: ``path`` relative to the data folder, ``fault`` a short fixed name."""

    path: str
    fault: str
    detail: str


@dataclass(frozen=True)
class Catalog:
    """Labelled files and the one class list that every later stage uses.

    A million files take their names and about 12 bytes each.

    Attributes:
        root: the folder that ``paths`` are relative to.
        paths: N file paths, ``/``-separated; any sequence is kept as ``StringArray``.
        labels: int32 ``[N]``, indices into ``class_names``.
        class_names: K names, sorted; fixed here, before any split, and saved with the model.
        faults: files of the folder that were left out, and why.
    """

    root: Folder
    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...] = field(default=())

    def __post_init__(self) -> None:
        """Makes the list of paths small."""
        if not isinstance(self.paths, StringArray):
            object.__setattr__(self, "paths", StringArray(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> StringArray:
        """``paths``, as they are kept."""
        assert isinstance(self.paths, StringArray)
        return self.paths

    def absolute_paths(self) -> StringArray:
        """The N paths as the operating system, or TensorFlow for a URL, takes them."""
        return self.names.with_prefix(os.path.join(self.root, ""))

    def take(self, indices: np.ndarray, faults: Iterable[Fault] = ()) -> Catalog:
        """The records at ``indices`` (int ``[M]``) in that order, ``faults`` added to the list."""
        return Catalog(
            self.root,
            self.names.take(indices),
            self.labels[indices],
            self.class_names,
            (*self.faults, *faults),
        )

    def class_counts(self) -> dict[str, int]:
        """Images of each class, in the order of the class list."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))


def scan_folder(
    root: str | os.PathLike[str],
    flag: str = "--data_dir",
    tell_skipped: TellSkipped | None = None,
) -> Catalog:
    """Lists ``root/<class>/**/<image>``; the first folder below ``root`` is the class.

    Suffixes count in any case. Hidden and system entries are passed over; any other file that is not
    an image by its suffix, or lies in no class folder, becomes a fault. Links to folders are followed
    once; a loop ends where it would repeat. ``tell_skipped`` is as in ``walk_files``.

    Raises:
        UserError: the folder is missing, cannot be read, or holds no images.
    """
    root = folder_at(root)
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise UserError(f"{flag}={root}: {found}; pass a folder with one sub-folder per class")
    faults: list[Fault] = []
    details: dict[str, str] = {}  # the same few texts for any number of files

    def judged() -> Iterator[tuple[str, str]]:
        for path in walk_files(root, flag, tell_skipped):
            class_name, _, rest = path.partition("/")
            if not _is_text(path):
                readable = os.fsencode(path).decode("utf-8", "backslashreplace")
                faults.append(Fault(readable, "unreadable name", "not UTF-8; rename it"))
            elif not path.lower().endswith(IMAGE_SUFFIXES):
                # not Path: it would keep every name it sees in one table of the whole process
                detail = f"suffix {os.path.splitext(path)[1] or 'none'}"
                detail = details.setdefault(detail, detail)
                faults.append(Fault(path, "unsupported suffix", detail))
            elif not rest:
                faults.append(Fault(path, "no class folder", "lies directly in the data folder"))
            else:
                yield path, class_name

    catalog = _make_catalog(root, judged(), faults)
    if not len(catalog):
        wanted = " ".join(IMAGE_SUFFIXES)
        raise UserError(
            f"{flag}={root}: no images in class folders ({len(faults)} other files); "
            f"expected {root}/<class>/<image> with suffix {wanted}"
        )
    return catalog


def read_labels_csv(
    csv_path: str | os.PathLike[str], root: str | os.PathLike[str], flag: str = "--labels_csv"
) -> Catalog:
    """Reads a table with the columns ``file`` (relative to ``root``) and ``label``; more are ignored.

    Raises:
        UserError: table or column missing, an empty or contradictory row, a file that is not there.
    """
    root = folder_at(root)
    rows = _make_catalog(root, _labelled_rows(csv_path, flag), [])
    if not len(rows):
        raise UserError(f"{flag}={csv_path}: no rows; give one line per image")
    order = np.array(sorted(range(len(rows)), key=rows.paths.__getitem__), np.int64)
    catalog = rows.take(order)
    again = _repeated(catalog)
    for later in again.tolist():
        if catalog.labels[later] != catalog.labels[later - 1]:
            earlier, found = (catalog.class_names[catalog.labels[i]] for i in (later - 1, later))
            raise UserError(
                f"{flag}={csv_path}: row {order[later] + 2} labels {catalog.paths[later]!r} as "
                f"{found!r}, an earlier row as {earlier!r}; keep one"
            )
    catalog = catalog.take(np.delete(np.arange(len(catalog)), again))
    _check_present(catalog, f"{flag}={csv_path}")
    return catalog


def _labelled_rows(csv_path: str | os.PathLike[str], flag: str) -> Iterator[tuple[str, str]]:
    for row, cells in enumerate(read_csv(csv_path, ("file", "label"), flag), start=2):
        path, label = (cell.strip() for cell in cells)
        if not path or not label:
            raise UserError(f"{flag}={csv_path}: row {row} is incomplete; give a file and a label")
        yield Path(path).as_posix(), label


def _repeated(catalog: Catalog) -> np.ndarray:
    """Places of a sorted list whose path stands before them already, int64."""
    pairs = enumerate(itertools.pairwise(catalog.paths), start=1)
    return np.array([index for index, (one, two) in pairs if one == two], np.int64)


def _check_present(catalog: Catalog, source: str) -> None:
    """Raises UserError when a listed file is not there; behind a URL, reading it tells."""
    if isinstance(catalog.root, RemotePath):
        return
    count, first = 0, ""
    for path, absolute in zip(catalog.paths, catalog.absolute_paths(), strict=True):
        if not os.path.isfile(absolute):
            count, first = count + 1, first or path
    if count:
        raise UserError(
            f"{source}: {count} of {len(catalog)} files are not in {catalog.root}, "
            f"first {first!r}; check --data_dir or the table"
        )


def align_labels(catalog: Catalog, class_names: Sequence[str], flag: str) -> Catalog:
    """``catalog`` with its labels counted in ``class_names``, the class list of training.

    Raises:
        UserError: ``catalog`` has a class that ``class_names`` lacks.
    """
    unknown = sorted(set(catalog.class_names) - set(class_names))
    if unknown:
        raise UserError(
            f"{flag}={catalog.root}: class {unknown[0]!r} has no training images "
            f"({len(unknown)} such); remove its folder or add training images"
        )
    position = np.array([class_names.index(n) for n in catalog.class_names], np.int32)
    labels = position[catalog.labels]
    return Catalog(catalog.root, catalog.paths, labels, tuple(class_names), catalog.faults)


def _make_catalog(root: Folder, records: Iterable[tuple[str, str]], faults: list[Fault]) -> Catalog:
    """Takes paths and the names of their classes one at a time; ``faults`` may grow meanwhile."""
    found: dict[str, int] = {}
    labels = array("i")

    def paths() -> Iterator[str]:
        for path, class_name in records:
            labels.append(found.setdefault(class_name, len(found)))
            yield path

    names = StringArray(paths())
    class_names = tuple(sorted(found))
    position = np.empty(len(found), np.int32)
    position[[found[name] for name in class_names]] = np.arange(len(found))
    numbers = position[np.frombuffer(labels, np.int32)] if labels else np.empty(0, np.int32)
    return Catalog(root, names, numbers, class_names, tuple(faults))


def _is_text(path: str) -> bool:
    """Whether a UTF-8 table and TensorFlow can hold ``path``; a name in another encoding cannot."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def walk_files(
    root: str | os.PathLike[str], flag: str, tell_skipped: TellSkipped | None = None
) -> Iterator[str]:
    """Yields every ordinary file below ``root``, relative, ``/``-separated and sorted.

    Hidden and system entries are passed over; links to folders are followed once. The names of one
    folder and of those above it are in memory. What is passed over goes to ``tell_skipped``, where
    given; then a folder that cannot be listed goes there too instead of ending the walk.

    Raises:
        UserError: a folder cannot be listed; ``flag`` is named.
    """
    tell = tell_skipped or (lambda path, name, detail: None)
    top = folder_at(root)
    remote = top if isinstance(top, RemotePath) else None

    def entries(folder: str, relative: str) -> Iterator[str]:
        if remote is not None:
            found = remote.list(relative, IMAGE_SUFFIXES)
            yield from (name + "/" * is_folder for name, is_folder in found)
            return
        with os.scandir(folder) as scanned:
            for entry in scanned:
                yield entry.name + "/" * _is_folder(entry)

    def walk(relative: str, ancestors: frozenset[str]) -> Iterator[str]:
        folder = os.path.join(top, relative[:-1]) if relative else os.fspath(top)
        try:
            # a folder sorts by its slash, so that whole paths come out sorted
            names = sorted(entries(folder, relative))
        except OSError as error:
            if tell_skipped is None:
                raise UserError(f"{flag}: cannot list {folder}: {error.strerror}") from error
            tell(relative, "unreadable", f"folder cannot be listed: {error.strerror}")
            return
        for entry in names:
            name = entry.rstrip("/")
            if name.startswith(".") or name.lower() in _SYSTEM_NAMES:
                tell(relative + name, "system file", "passed over")
            elif name == entry:
                yield relative + name
            elif remote is not None:
                yield from walk(relative + entry, ancestors)
            elif (real := os.path.realpath(os.path.join(folder, name))) in ancestors:
                tell(relative + name, "symlink loop", f"leads back to {real}; not entered again")
            else:
                yield from walk(relative + entry, ancestors | {real})

    return walk("", frozenset({os.path.realpath(top)}))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def read_csv(
    csv_path: str | os.PathLike[str], columns: Sequence[str], flag: str
) -> Iterator[list[str]]:
    """Yields the cells of ``columns``, as they stand, of each row of a UTF-8 table with a heading line.

    Raises:
        UserError: the file is missing or no such table, or lacks one of ``columns``.
    """
    try:
        with _open_table(csv_path) as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            missing = [column for column in columns if column not in found]
            if missing:
                raise UserError(
                    f"{flag}={csv_path}: no column {missing[0]!r}, found {', '.join(found) or 'none'}; "
                    f"the first line must name {', '.join(columns)}"
                )
            for row in reader:
                yield [row[column] or "" for column in columns]
    except FileNotFoundError:
        raise UserError(f"{flag}={csv_path}: no such file; pass a CSV table") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{flag}={csv_path}: cannot be read as UTF-8 CSV: {error}") from error


@contextmanager
def _open_table(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    if is_url(path):
        yield io.StringIO(read_url(os.fspath(path)).decode("utf-8-sig"), newline="")
        return
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        yield file
