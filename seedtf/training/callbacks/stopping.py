"""Callbacks that end training early: no improvement, no time left, or a loss that is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from seedtf.errors import DivergedError
from seedtf.runs.history import best_epoch
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.position import Position

__all__ = ["Patience", "StopOnNaN", "TimeLimit"]

BatchFiles = Callable[[int, int], Sequence[str]]
"""Returns the paths of the images in a batch; called with (epoch, step), both from 0."""


class Patience(keras.callbacks.Callback):
    """Stops training after ``epochs`` epochs without a new minimum of ``val_loss``.

    Args:
        epochs: the number of epochs without a new minimum after which training stops, at least 1.
        log: has the history of the run; must come before this callback in the list. In a resumed run,
            the history contains the earlier epochs, so ``reason`` may be set before the first step.

    Attributes:
        reason: why training has to stop; empty if it does not.
    """

    def __init__(self, epochs: int, log: HistoryLog) -> None:
        super().__init__()
        self._epochs = epochs
        self._log = log
        self.reason = ""
        self._check()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check()
        if self.reason:
            self.model.stop_training = True

    def _check(self) -> None:
        rows = self._log.rows
        best = best_epoch(rows) or 0
        if len(rows) - best >= self._epochs:
            no_minimum = f"no new low of val_loss since epoch {best}"
            self.reason = no_minimum if best else "val_loss was never a finite number"


class TimeLimit(keras.callbacks.Callback):
    """Stops training when ``minutes`` have passed since its first ``fit`` started.

    The clock is read at the end of every epoch and, after the first epoch, before every call of the
    train function. Within an epoch this callback only sets ``reason``. ``SaveState`` then saves the
    state and ends the ``fit``, so that the run can be resumed at this step. The first epoch of a run is
    always finished, so that there is a model.

    Args:
        minutes: the limit, above 0.
        position: the current epoch and step; must come before this callback in the list.
        clock: a monotonic clock in seconds.

    Attributes:
        reason: the limit that was reached, and when; empty before that.
    """

    def __init__(
        self, minutes: float, position: Position, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._minutes = minutes
        self._position = position
        self._clock = clock
        self._deadline: float | None = None
        self.reason = ""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._deadline is None:  # the time counts from the first fit
            self._deadline = self._clock() + 60 * self._minutes

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        epoch, step = self._position.epoch, self._position.step
        if epoch > 0:
            self._check(f"before step {step + 1} of epoch {epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(f"at the end of epoch {epoch + 1}")
        if self.reason:
            self.model.stop_training = True

    def _check(self, when: str) -> None:
        if self._deadline is not None and self._clock() >= self._deadline and not self.reason:
            self.reason = f"the time limit of {self._minutes:g} min was reached {when}"


class StopOnNaN(keras.callbacks.Callback):
    """Raises ``DivergedError`` as soon as the training loss is NaN or infinite.

    Keras reports the mean loss since the start of the epoch; after one loss that is not finite, the
    mean is not finite either. On a GPU, ``EachStep`` calls this callback from a thread. The error then
    reaches the training loop one or two calls of the train function later, but names the step whose
    loss is not finite.

    Args:
        position: the current epoch and step; must come before this callback in the list.
        rate: returns the learning rate of a step; called with (epoch, step), both from 0.
        batch_files: returns the paths of the images in a batch; called with (epoch, step), both from 0.
    """

    async_safe = True  # Keras 3 may call `on_train_batch_end` from a thread

    def __init__(
        self,
        position: Position,
        rate: Callable[[int, int], float],
        batch_files: BatchFiles = lambda epoch, step: [],
    ) -> None:
        super().__init__()
        self._position = position
        self._rate = rate
        self._batch_files = batch_files

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._check(self._position.step_of(batch), logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # The loss of the last step may not have been known when that step ended.
        self._check(self._position.step, logs)

    def _check(self, step: int, logs: dict[str, float] | None) -> None:
        # With several workers, the loss of a step is an array of one value.
        loss = float(np.mean((logs or {}).get("loss", 0.0)))
        if math.isfinite(loss):
            return
        epoch = self._position.epoch
        files = list(self._batch_files(epoch, step))
        batch_text = f"; batch: {', '.join(files[:3])}" if files else ""
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        raise DivergedError(
            f"epoch {epoch + 1}, step {step + 1}: the loss became {loss} at a learning rate of "
            f"{self._rate(epoch, step):.3g}{batch_text}{more}; lower --lr, or train with "
            "--precision=float32"
        )
