"""The files in the folder of ``seedtf folds``: their paths, and how they are read and written.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seedtf.data.table_text import read_csv
from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines, write_text
from seedtf.runs.folder import read_settings
from seedtf.runs.paths import RunPaths

__all__ = [
    "GROUPS",
    "TABLE_FLAGS",
    "TEST_FOLD",
    "FoldRow",
    "FoldsPaths",
    "check_folds",
    "is_folds",
    "read_folds",
    "table_digest",
]

GROUPS = "groups"
"""The value of ``--folds`` that makes a fold of every group."""

TEST_FOLD = "test"
"""The fold, in ``folds.csv``, of test images, which no run trains or validates on."""

TABLE_FLAGS = ("fixes", "pseudo_labels")
"""The flags that name a table which must not change until the last fold is trained.

So ``folds.json`` has a hash of each table.
"""


def check_folds(folds: str) -> None:
    """Raises UserError unless ``folds`` is a value of ``--folds``: 2 to 200, or ``GROUPS``."""
    if folds != GROUPS and not (folds.isdecimal() and 2 <= int(folds) <= 200):
        raise UserError(f"--folds={folds}: pass a number from 2 to 200, or groups")


def table_digest(flags: Mapping[str, Any], name: str) -> str:
    """A hash of the table that a flag of ``TABLE_FLAGS`` names; empty if the flag is not set.

    Raises:
        UserError: the table cannot be read.
    """
    path = flags[name]
    if not path:
        return ""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise UserError(f"--{name}={path}: {error.strerror}; restore the table") from None


@dataclass(frozen=True)
class FoldRow:
    """One image: its path, its class, its fold (from 0, or ``test``), and its group (may be empty)."""

    file: str
    label: str
    fold: str
    group: str


@dataclass(frozen=True)
class FoldsPaths:
    """The paths of the files of a cross-validation; they need not exist.

    Attributes:
        root: the folder.

    Example:
        >>> FoldsPaths(Path("runs/oak")).fold(2).best.as_posix()
        'runs/oak/fold-2/checkpoints/best.keras'
    """

    root: Path

    @property
    def settings(self) -> Path:
        """The number of folds, the flags, and hashes of the tables that they name; JSON."""
        return self.root / "folds.json"

    @property
    def table(self) -> Path:
        """The fold of each image: file, label, fold, group. If it exists, the images are divided."""
        return self.root / "folds.csv"

    @property
    def classes(self) -> Path:
        """Class names, as in a run."""
        return RunPaths(self.root).classes

    @property
    def predictions(self) -> Path:
        """The probabilities of each image, predicted by the run that did not train on it."""
        return self.root / "oof.csv"

    @property
    def claims(self) -> Path:
        """Folder of the files that mark folds as taken by a process, or as finished."""
        return self.root / "claims"

    def fold(self, number: int) -> RunPaths:
        """The run whose validation images are those of a fold, counted from 0."""
        return RunPaths(self.root / f"fold-{number}")

    def split(self, number: int) -> Path:
        """The split of a fold's run: file, label, split."""
        return self.root / "splits" / f"fold-{number}.csv"

    def flags(self, number: int) -> Path:
        """The flags of a fold's run."""
        return self.root / "logs" / f"fold-{number}.txt"

    def log(self, name: str) -> Path:
        """The output of the process of a task, such as ``fold-0`` or ``divide``."""
        return self.root / "logs" / f"{name}.log"

    def done(self, name: str) -> Path:
        """The file that marks a fold, the division or the report as finished; JSON."""
        return self.claims / f"{name}.done"

    def read_settings(self) -> dict[str, Any]:
        """Reads ``folds.json``: the number of ``folds``, and the ``flags`` with the hashes.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            settings = json.loads(self.settings.read_text(encoding="utf-8"))
            return {"folds": int(settings["folds"]), "flags": dict(settings["flags"])}
        except OSError:
            raise UserError(
                f"{self.root}: not a folder of seedtf folds (no {self.settings.name})"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.settings}: damaged ({error}); restore it") from None

    def write_settings(self, folds: int, flags: dict[str, Any]) -> None:
        """Writes ``folds.json``; ``flags`` are those of training, ``--folds``, and the hashes."""
        text = json.dumps({"folds": folds, "flags": flags}, indent=2) + "\n"
        write_text(self.settings, text)

    def read_table(self) -> list[FoldRow]:
        """Reads the rows of ``folds.csv``.

        Raises:
            UserError: the table is missing or damaged.
        """
        rows = read_csv(self.table, ("file", "label", "fold", "group"))
        return [FoldRow(*row) for row in rows]

    def read_predictions(self, class_names: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
        """Reads ``oof.csv``: label and float64 ``[K]`` probabilities, by absolute path of the image.

        Raises:
            UserError: the table or config.json of the first fold is missing or damaged, or the table
                lacks a class.
        """
        root = read_settings(self.fold(0).root)["resolved"]["data_root"]
        columns = [f"p:{name}" for name in class_names]
        rows = read_csv(self.predictions, ("path", "true", *columns))
        try:
            return {
                os.path.join(root, path): (label, np.array(values, np.float64))
                for path, label, *values in rows
            }
        except ValueError as error:
            raise UserError(
                f"{self.predictions}: damaged ({error}); run seedtf evaluate {self.root} again"
            ) from None

    def write_table(self, rows: Iterable[FoldRow]) -> None:
        """Writes ``folds.csv``."""
        lines = [csv_line(row.file, row.label, row.fold, row.group) for row in rows]
        write_lines(self.table, [csv_line("file", "label", "fold", "group"), *lines])


def is_folds(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of ``seedtf folds``."""
    return FoldsPaths(Path(path)).settings.is_file()


def read_folds(path: str | os.PathLike[str]) -> list[RunPaths]:
    """The runs of all folds of a finished cross-validation.

    Raises:
        UserError: folds.json cannot be read, or a fold is not finished.
    """
    paths = FoldsPaths(Path(path))
    count = paths.read_settings()["folds"]
    missing = [n for n in range(count) if not paths.done(f"fold-{n}").is_file()]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {count} folds are not trained yet, first {missing[0]}; repeat "
            "the command of seedtf folds to continue"
        )
    return [paths.fold(number) for number in range(count)]
