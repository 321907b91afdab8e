"""``HistoryLog``, the callback that writes history.csv and timing.csv."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from seedtf.files import write_text
from seedtf.runs.history import HISTORY_COLUMNS, LOG_KEYS, TIMING_COLUMNS, read_history
from seedtf.training.callbacks.epoch_timer import EpochTimer

__all__ = ["HistoryLog"]


class HistoryLog(keras.callbacks.Callback):
    """Appends a line per epoch to history.csv and timing.csv, and flushes them before the next epoch.

    ``history.csv`` holds only what the seed determines (epoch, lr, loss, accuracy, val_loss,
    val_accuracy, augment_strength), so two equal runs write equal files. ``timing.csv`` holds what a
    clock measures: seconds of the epoch with its validation, images per second of training alone,
    seconds spent waiting for data, seconds of validation, and seconds from the end of the previous
    epoch to the start of this one. A number that Keras did not report is NaN. The constructor creates
    the two files.

    Args:
        path_history: history.csv.
        path_timing: timing.csv.
        timer: measures the epoch; must come before this callback in the list.
        completed_epochs: the number of epochs that a resumed run does not repeat. The lines of these
            epochs are kept, and later lines are dropped; with 0, only the headers are left. If a file
            of an older version of seedtf lacks the last columns, its lines get NaN in these columns.
        strength: returns the factor on the augmentation ranges in an epoch, counted from 0. It is
            called at the end of this epoch, before the row of the epoch is added to ``rows``. The
            default returns 1.

    Attributes:
        rows: one dict for each line of history.csv; ``epoch`` is an int, other values are floats.
        timer: the argument ``timer``.
    """

    def __init__(
        self,
        path_history: Path,
        path_timing: Path,
        timer: EpochTimer,
        *,
        completed_epochs: int = 0,
        strength: Callable[[int], float] = lambda epoch: 1.0,
    ) -> None:
        super().__init__()
        self.timer = timer
        self._path_history = path_history
        self._path_timing = path_timing
        self._strength = strength
        _keep_completed_rows(path_timing, TIMING_COLUMNS, completed_epochs)
        _keep_completed_rows(path_history, HISTORY_COLUMNS, completed_epochs)
        self.rows = read_history(path_history)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row: dict[str, float] = {"epoch": epoch + 1}
        for name in LOG_KEYS:
            row[name] = float((logs or {}).get(name, math.nan))
        row["augment_strength"] = float(self._strength(epoch))
        self.rows.append(row)
        timer = self.timer
        timing = (
            *(timer.seconds, timer.images_per_second, timer.data_wait),
            *(timer.validation, timer.between),
        )
        _append(self._path_history, list(row.values()))
        _append(self._path_timing, [epoch + 1, *(round(value, 4) for value in timing)])


def _keep_completed_rows(path: Path, columns: Sequence[str], completed_epochs: int) -> None:
    """Writes the file again with a header and the rows up to the epoch ``completed_epochs``."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if path.exists() else []
    # An interruption may have left the last line incomplete, without a newline.
    complete = [line for line in lines if line.endswith("\n")]
    rows = [line.rstrip("\n").split(",") for line in complete]
    rows = [row + ["nan"] * (len(columns) - len(row)) for row in rows]
    rows = [row for row in rows if int(row[0]) <= completed_epochs]
    write_text(path, "".join(",".join(row) + "\n" for row in [list(columns), *rows]))


def _append(path: Path, values: Sequence[float]) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(",".join(repr(value) for value in values) + "\n")
        file.flush()
        os.fsync(file.fileno())
