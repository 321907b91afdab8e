"""One line per epoch on the console; on a terminal it lives."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Mapping
from typing import TextIO

import keras
import numpy as np

from seedtf.report import format_duration
from seedtf.runs.history import best_epoch, strength_varies
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.position import Position

__all__ = ["ConsoleLine"]

REDRAW_SECONDS = 0.1
BAR = 20  # characters


class ConsoleLine(keras.callbacks.Callback):
    """Prints one line at the end of each epoch, marked ``best`` when ``val_loss`` is the lowest so far.

    On a terminal the line is drawn over and over while the epoch runs, ten times a second at most, with
    a bar for the steps. Anywhere else exactly one plain line per epoch is written. Once the strength of
    the augmentation has changed within the run, the line names it.

    Args:
        log: the history of the run; must stand before this callback in the list.
        position: must stand before this callback in the list.
        epochs: how many epochs are planned in all.
        steps_per_epoch: training steps in one epoch.
        stream: where to write; standard output by default.
    """

    async_safe = True

    def __init__(
        self,
        log: HistoryLog,
        position: Position,
        *,
        epochs: int,
        steps_per_epoch: int,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._position = position
        self._log = log
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._stream = sys.stdout if stream is None else stream
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._step = 0
        self._drawn = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begins a new line."""
        self._step = 0
        self._drawn = self._log.timer.clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Draws the line anew where it is time; may come from several threads and out of order."""
        if not self._live:
            return
        with self._lock:
            now = self._log.timer.clock()
            step = self._position.step_of(batch)
            if now - self._drawn >= REDRAW_SECONDS and step >= self._step:
                self._drawn, self._step = now, step + 1
                self._draw(self._progress(logs or {}), end="")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the line that stays."""
        self._draw(self._summary(self._log.rows[-1]), end="\n")

    def _progress(self, logs: Mapping[str, float]) -> str:
        done = min(BAR * self._step // self._steps, BAR)
        numbers = [
            f"{short} {float(np.mean(logs[name])):.4f}"  # among several workers an array of one
            for name, short in (("loss", "loss"), ("accuracy", "acc"))
            if name in logs
        ]
        bar = f"[{'=' * done}{' ' * (BAR - done)}] {self._step}/{self._steps}"
        speed = f"{self._log.timer.images_per_second:,.0f} img/s"
        return "  ".join([self._name(self._position.epoch + 1), bar, *numbers, speed])

    def _summary(self, row: Mapping[str, float]) -> str:
        epoch, timer = int(row["epoch"]), self._log.timer
        mark = "best" if best_epoch(self._log.rows) == epoch else "    "
        varies = strength_varies(self._log.rows)
        return "  ".join(
            [
                self._name(epoch),
                f"loss {row['loss']:.4f} acc {row['accuracy']:.4f}",
                f"val_loss {row['val_loss']:.4f} val_acc {row['val_accuracy']:.4f} {mark}",
                f"lr {row['lr']:.2e}",
                *([f"strength {row['augment_strength']:.2f}"] if varies else []),
                f"{timer.images_per_second:,.0f} img/s",
                f"data wait {timer.data_wait_share:.0%}",
                f"left {format_duration(timer.remaining(self._epochs - epoch))}",
            ]
        )

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch:{len(str(self._epochs))}d}/{self._epochs}"

    def _draw(self, line: str, *, end: str) -> None:
        if self._live:
            # one column stays free: some terminals wrap when the last one is written
            width = shutil.get_terminal_size().columns - 1
            line = "\r" + (line if end else line[:width]).ljust(width)
        self._stream.write(line + end)
        self._stream.flush()
