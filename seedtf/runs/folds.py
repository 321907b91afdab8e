"""The paths of the files in the folder of ``seedtf folds``; reads and writes its tables and settings.

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
"""The value of ``--folds`` that makes each group of images a fold."""

TEST_FOLD = "test"
"""The fold of the test images in ``folds.csv``; no run trains or validates on these images."""

TABLE_FLAGS = ("fixes", "pseudo_labels")
"""The flags whose table must not change until the last fold is trained.

``folds.json`` has a hash of each table, so that a change is found.
"""


def check_folds(folds: str) -> None:
    """Raises UserError unless ``folds``, a value of ``--folds``, is 2 to 200 or ``GROUPS``."""
    if folds != GROUPS and not (folds.isdecimal() and 2 <= int(folds) <= 200):
        raise UserError(f"--folds={folds}: pass a number from 2 to 200, or groups")


def table_digest(flags: Mapping[str, Any], name: str) -> str:
    """A hash of the table that a flag of ``TABLE_FLAGS`` names; empty if the flag is not set.

    Args:
        flags: the values of the flags by name.
        name: a flag of ``TABLE_FLAGS``.

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
    """A row of ``folds.csv``.

    Attributes:
        file: the path of the image.
        label: its class.
        fold: the number of its fold, from 0, or ``TEST_FOLD``.
        group: the group that the image belongs to; empty without groups.
    """

    file: str
    label: str
    fold: str
    group: str


@dataclass(frozen=True)
class FoldsPaths:
    """The paths of the files of a cross-validation; the files need not exist.

    Attributes:
        root: the folder of ``seedtf folds``.

    Example:
        >>> FoldsPaths(Path("runs/oak")).fold(2).best.as_posix()
        'runs/oak/fold-2/checkpoints/best.keras'
    """

    root: Path

    @property
    def settings(self) -> Path:
        """The number of folds, the flags, and the hashes of the tables of ``TABLE_FLAGS``; JSON."""
        return self.root / "folds.json"

    @property
    def table(self) -> Path:
        """Table with the columns file, label, fold and group; written when the images are divided."""
        return self.root / "folds.csv"

    @property
    def classes(self) -> Path:
        """Class names, one per line, in the order of the outputs of the models."""
        return RunPaths(self.root).classes

    @property
    def predictions(self) -> Path:
        """The probabilities of each image, predicted by the run that did not train on it."""
        return self.root / "oof.csv"

    @property
    def claims(self) -> Path:
        """Folder of the files that say which folds a process is training, and which are finished."""
        return self.root / "claims"

    def fold(self, number: int) -> RunPaths:
        """The run that validates on the images of fold ``number``, from 0, and trains on the others."""
        return RunPaths(self.root / f"fold-{number}")

    def split(self, number: int) -> Path:
        """The split of the run of a fold: a table with the columns file, label and split."""
        return self.root / "splits" / f"fold-{number}.csv"

    def flags(self, number: int) -> Path:
        """The flags of the run of a fold, as a flagfile."""
        return self.root / "logs" / f"fold-{number}.txt"

    def log(self, name: str) -> Path:
        """The console output of the process that did a task, such as ``fold-0`` or ``divide``."""
        return self.root / "logs" / f"{name}.log"

    def done(self, name: str) -> Path:
        """The file whose existence says that a task is finished; JSON.

        A task is the division of the images, a fold such as ``fold-0``, or the report.
        """
        return self.claims / f"{name}.done"

    def read_settings(self) -> dict[str, Any]:
        """The content of ``folds.json``: ``folds``, the number of folds, and ``flags``.

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
        """Writes ``folds.json``.

        Args:
            folds: the number of folds.
            flags: the flags of training, ``--folds``, and the hash of each table of ``TABLE_FLAGS``.
        """
        text = json.dumps({"folds": folds, "flags": flags}, indent=2) + "\n"
        write_text(self.settings, text)

    def read_table(self) -> list[FoldRow]:
        """The rows of ``folds.csv``.

        Raises:
            UserError: the table is missing or damaged.
        """
        rows = read_csv(self.table, ("file", "label", "fold", "group"))
        return [FoldRow(*row) for row in rows]

    def read_predictions(self, class_names: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
        """The content of ``oof.csv``, by the absolute path of each image.

        Returns:
            The label of each image, and its probabilities of the K classes, float64 ``[K]``.

        Raises:
            UserError: ``oof.csv`` is missing, damaged or lacks a class; or config.json of the first
                fold is missing or damaged.
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
    """Whether ``path`` is a folder that ``seedtf folds`` wrote."""
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
