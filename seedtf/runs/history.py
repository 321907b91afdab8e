"""Reads ``history.csv`` and ``timing.csv``, the tables with a row for each epoch of a run."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = [
    "HISTORY_COLUMNS",
    "LOG_KEYS",
    "TIMING_COLUMNS",
    "best_epoch",
    "read_history",
    "read_timing",
    "strength_varies",
]

LOG_KEYS = ("lr", "loss", "accuracy", "val_loss", "val_accuracy")
HISTORY_COLUMNS = ("epoch", *LOG_KEYS, "augment_strength")
TIMING_COLUMNS = ("epoch", "seconds", "images_per_second", "data_wait", "validation", "between")
"""The columns of timing.csv.

``seconds`` is the time of an epoch, ``data_wait`` the part of it in which training waited for batches,
and ``validation`` the part in which the validation images were evaluated. ``between`` is the time
between the previous epoch and this one, in which files are saved, for example. All times are seconds.
"""


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a history.csv, with ``epoch`` as int and the other columns as float.

    A column that a file of an older release lacks, such as ``augment_strength``, is NaN. A last line
    without a line end is left out, because it is still being written.

    Raises:
        OSError: there is no such file.
        ValueError, KeyError, TypeError: the file is damaged.
    """
    return [
        {
            name: int(row[name]) if name == "epoch" else float(row.get(name) or "nan")
            for name in HISTORY_COLUMNS
        }
        for row in _read_rows(path)
    ]


def read_timing(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a timing.csv, with every column as float.

    A last line without a line end is left out, because it is still being written.
    """
    return [{name: float(value) for name, value in row.items()} for row in _read_rows(path)]


def best_epoch(rows: Sequence[Mapping[str, float]]) -> int | None:
    """The number of the first epoch with the lowest finite ``val_loss``; None if no epoch has one.

    Example:
        >>> best_epoch([{"epoch": 1, "val_loss": 0.9}, {"epoch": 2, "val_loss": 0.4}])
        2
    """
    finite = [row for row in rows if math.isfinite(row["val_loss"])]
    return int(min(finite, key=lambda row: row["val_loss"])["epoch"]) if finite else None


def strength_varies(rows: Sequence[Mapping[str, float]]) -> bool:
    """Whether ``augment_strength`` is not the same in all epochs that have a value for it."""
    strengths = {row.get("augment_strength", math.nan) for row in rows}
    return len({strength for strength in strengths if not math.isnan(strength)}) > 1


def _read_rows(path: str | os.PathLike[str]) -> Iterator[dict[str, str]]:
    text = Path(path).read_bytes().decode("utf-8")
    complete = text[: text.rfind("\n") + 1]
    return csv.DictReader(io.StringIO(complete, newline=""))
