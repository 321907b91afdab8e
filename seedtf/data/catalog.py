"""Lists labelled image files under one class list, fixed before any split.

Nothing here opens an image or imports TensorFlow.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

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
# left by file managers and archivers; never the user's pictures
_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"})


TellSkipped = Callable[[str, str, str], None]
"""Told the path, a short fixed name and the detail of an entry that a walk does not enter."""


@dataclass(frozen=True)
class Fault:
    """A file that is not used: ``path`` relative to the data folder, ``fault`` a short fixed name."""

    path: str
    fault: str
    detail: str


@dataclass(frozen=True)
class Catalog:
    """Labelled files and the one class list that every later stage uses.

    Attributes:
        root: the folder that ``paths`` are relative to.
        paths: N file paths, ``/``-separated.
        labels: int32 ``[N]``, indices into ``class_names``.
        class_names: K names, sorted; fixed here, before any split, and saved with the model.
        faults: files of the folder that were left out, and why.
    """

    root: Path
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.paths)

    def absolute_paths(self) -> list[str]:
        """The N paths as the operating system takes them."""
        return [os.path.join(self.root, path) for path in self.paths]

    def take(self, indices: np.ndarray, faults: Iterable[Fault] = ()) -> Catalog:
        """The records at ``indices`` (int ``[M]``) in that order, ``faults`` added to the list."""
        return Catalog(
            self.root,
            tuple(self.paths[i] for i in indices),
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
    root = Path(root)
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise UserError(f"{flag}={root}: {found}; pass a folder with one sub-folder per class")
    records: list[tuple[str, str]] = []
    faults: list[Fault] = []
    for path in walk_files(root, flag, tell_skipped):
        class_name, _, rest = path.partition("/")
        if not _is_text(path):
            readable = os.fsencode(path).decode("utf-8", "backslashreplace")
            faults.append(Fault(readable, "unreadable name", "not UTF-8; rename it"))
        elif not path.lower().endswith(IMAGE_SUFFIXES):
            suffix = Path(path).suffix or "none"
            faults.append(Fault(path, "unsupported suffix", f"suffix {suffix}"))
        elif not rest:
            faults.append(Fault(path, "no class folder", "lies directly in the data folder"))
        else:
            records.append((path, class_name))
    if not records:
        wanted = " ".join(IMAGE_SUFFIXES)
        raise UserError(
            f"{flag}={root}: no images in class folders ({len(faults)} other files); "
            f"expected {root}/<class>/<image> with suffix {wanted}"
        )
    records.sort()
    return _make_catalog(root, records, faults)


def read_labels_csv(
    csv_path: str | os.PathLike[str], root: str | os.PathLike[str], flag: str = "--labels_csv"
) -> Catalog:
    """Reads a table with the columns ``file`` (relative to ``root``) and ``label``; more are ignored.

    Raises:
        UserError: table or column missing, an empty or contradictory row, a file that is not there.
    """
    root = Path(root)
    labels: dict[str, str] = {}
    for row, cells in enumerate(read_csv(csv_path, ("file", "label"), flag), start=2):
        path, label = (cell.strip() for cell in cells)
        if not path or not label:
            raise UserError(f"{flag}={csv_path}: row {row} is incomplete; give a file and a label")
        path = Path(path).as_posix()
        if labels.setdefault(path, label) != label:
            raise UserError(
                f"{flag}={csv_path}: row {row} labels {path!r} as {label!r}, "
                f"an earlier row as {labels[path]!r}; keep one"
            )
    missing = [path for path in labels if not (root / path).is_file()]
    if missing:
        raise UserError(
            f"{flag}={csv_path}: {len(missing)} of {len(labels)} files are not in {root}, "
            f"first {missing[0]!r}; check --data_dir or the table"
        )
    if not labels:
        raise UserError(f"{flag}={csv_path}: no rows; give one line per picture")
    return _make_catalog(root, sorted(labels.items()), [])


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


def _make_catalog(root: Path, records: list[tuple[str, str]], faults: list[Fault]) -> Catalog:
    class_names = tuple(sorted({label for _, label in records}))
    position = {name: index for index, name in enumerate(class_names)}
    labels = np.array([position[label] for _, label in records], np.int32)
    return Catalog(root, tuple(p for p, _ in records), labels, class_names, tuple(faults))


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
    """Yields every ordinary file below ``root``, relative and ``/``-separated, sorted by folder.

    Hidden and system entries are passed over; links to folders are followed once. One folder's
    listing at a time is in memory. What is passed over goes to ``tell_skipped``, where given; then a
    folder that cannot be listed goes there too instead of ending the walk.

    Raises:
        UserError: a folder cannot be listed; ``flag`` is named.
    """
    tell = tell_skipped or (lambda path, name, detail: None)

    def walk(folder: str, relative: str, ancestors: frozenset[str]) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if tell_skipped is None:
                raise UserError(f"{flag}: cannot list {folder}: {error.strerror}") from error
            tell(relative, "unreadable", f"folder cannot be listed: {error.strerror}")
            return
        for entry in entries:
            name = relative + entry.name
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES:
                tell(name, "system file", "passed over")
            elif not _is_folder(entry):
                yield name
            elif (real := os.path.realpath(entry.path)) in ancestors:
                tell(name, "symlink loop", f"leads back to {real}; not entered again")
            else:
                yield from walk(entry.path, f"{name}/", ancestors | {real})

    return walk(os.fspath(root), "", frozenset({os.path.realpath(root)}))


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
        with Path(csv_path).open(newline="", encoding="utf-8-sig") as file:
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
