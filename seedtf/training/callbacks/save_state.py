"""Saving the exact-resume state, and ending the run there when a signal asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import keras

from seedtf.errors import StoppedError

__all__ = ["LimitReachedError", "SaveState"]


class LimitReachedError(Exception):
    """Ends a ``fit`` within an epoch whose state was saved; never shown to the user."""


class Stop(Protocol):
    """Whatever knows of a signal; ``name`` is empty while none came."""

    name: str


class SaveState(keras.callbacks.Callback):
    """Saves at the end of every epoch and, if asked, every so many minutes within one.

    Stands last in the list, so that the history and the checkpoints of an epoch come before the state
    that says it is complete. It looks before a step, not after: that needs no result of the step, so
    the device is not waited for.

    Attributes:
        first_step: the step within its epoch that the next ``fit`` begins at.

    Args:
        save: called with (model, epochs completed, steps done of the next one).
        stop: the signals to look for.
        limit: says whether a limit of the run is reached; then the epoch is left where it is.
        minutes: time between states within an epoch; 0 for none.
        run_dir: named in the message of a stop.
        clock: gives seconds that only ever rise.
    """

    def __init__(
        self,
        save: Callable[[keras.Model, int, int], None],
        stop: Stop,
        limit: Callable[[], str],
        *,
        minutes: float,
        run_dir: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._save = save
        self._stop = stop
        self._limit = limit
        self._seconds = 60 * minutes
        self._run_dir = run_dir
        self._clock = clock
        self._saved = clock()
        self._epoch = 0
        self.first_step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves within the epoch when a signal came or the time is due."""
        due = self._seconds and self._clock() - self._saved >= self._seconds
        step = self.first_step + batch
        if self._stop.name or self._limit() or (due and step):
            self._save_at(self._epoch, step)
        if self._limit():
            raise LimitReachedError

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the finished epoch."""
        self._save_at(epoch + 1, 0)

    def _save_at(self, epoch: int, step: int) -> None:
        self._save(self.model, epoch, step)
        self._saved = self._clock()
        if self._stop.name:
            where = f"step {step} of epoch {epoch + 1}" if step else f"the end of epoch {epoch}"
            raise StoppedError(
                f"{self._stop.name}: saved at {where}; go on with --resume={self._run_dir}"
            )
