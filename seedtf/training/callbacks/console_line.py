"""Prints one line per epoch and, on a terminal, a progress bar while the epoch runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

import keras
import numpy as np
from tqdm import tqdm

from seedtf.report import format_duration, is_silent
from seedtf.runs.history import best_epoch, strength_varies
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.position import Position

__all__ = ["ConsoleLine"]


class ConsoleLine(keras.callbacks.Callback):
    """Prints one line at the end of each epoch, with ``best`` if ``val_loss`` is the lowest so far.

    On a terminal, a tqdm bar counts the steps while the epoch runs, and the line then replaces the bar.
    If the output is not a terminal, there is no bar. Inside ``report.silent()`` nothing is printed. If
    the strength of the augmentation has changed within the run, the line contains the strength.

    Args:
        log: has the history of the run; must come before this callback in the list.
        position: the current epoch and step; must come before this callback in the list.
        epochs: number of planned epochs of the whole run.
        steps_per_epoch: number of training steps in an epoch.
        stream: where to write; standard output by default.
    """

    async_safe = True  # Keras 3 may call `on_train_batch_end` from a thread

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
        self._log = log
        self._position = position
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._stream = sys.stdout if stream is None else stream
        self._bar: tqdm | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._stream.isatty() and not is_silent():
            self._bar = tqdm(
                desc=self._label(epoch + 1),
                initial=self._position.step,
                total=self._steps_per_epoch,
                bar_format="{desc}  [{bar:20}] {n_fmt}/{total_fmt}{postfix}",
                ascii=" =",
                miniters=1,  # redraw as often as tqdm's default of ten times a second allows
                dynamic_ncols=True,
                leave=False,
                file=self._stream,
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        bar = self._bar
        if bar is None:
            return
        completed_steps = self._position.step_of(batch) + 1
        with tqdm.get_lock():  # Keras 3 may call this method from several threads and out of order
            if completed_steps > bar.n:
                bar.set_postfix_str(self._running_values(logs or {}), refresh=False)
                bar.update(completed_steps - bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.close()
        if not is_silent():
            self._stream.write(self._summary(self._log.rows[-1]) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Removes the bar, if there is one; call it also when training ends within an epoch."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _running_values(self, logs: Mapping[str, float]) -> str:
        values = [
            f"{short} {float(np.mean(logs[name])):.4f}"  # with several workers, an array of one value
            for name, short in (("loss", "loss"), ("accuracy", "acc"))
            if name in logs
        ]
        return "  ".join([*values, f"{self._log.timer.images_per_second:,.0f} img/s"])

    def _summary(self, row: Mapping[str, float]) -> str:
        epoch, timer = int(row["epoch"]), self._log.timer
        best = "best" if best_epoch(self._log.rows) == epoch else "    "
        varies = strength_varies(self._log.rows)
        return "  ".join(
            [
                self._label(epoch),
                f"loss {row['loss']:.4f} acc {row['accuracy']:.4f}",
                f"val_loss {row['val_loss']:.4f} val_acc {row['val_accuracy']:.4f} {best}",
                f"lr {row['lr']:.2e}",
                *([f"strength {row['augment_strength']:.2f}"] if varies else []),
                f"{timer.images_per_second:,.0f} img/s",
                f"data wait {timer.data_wait_fraction:.0%}",
                f"left {format_duration(timer.remaining(self._epochs - epoch))}",
            ]
        )

    def _label(self, epoch: int) -> str:
        return f"epoch {epoch:{len(str(self._epochs))}d}/{self._epochs}"
