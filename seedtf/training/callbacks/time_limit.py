"""Stopping when the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras

__all__ = ["TimeLimit"]


class TimeLimit(keras.callbacks.Callback):
    """Stops training once ``minutes`` have passed since its first ``fit`` began.

    It looks before every step and at the end of every epoch. Within an epoch it only says so, in
    ``reason``: ``SaveState`` then saves and leaves the epoch unfinished, so that the run can go on
    exactly there. The first epoch of a run is always finished, so that there is a model.

    Args:
        minutes: the limit, above 0.
        clock: gives seconds that only ever rise.

    Attributes:
        reason: which limit was passed and when; empty while it was not.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._minutes = minutes
        self._clock = clock
        self._end: float | None = None
        self._epoch = 0
        self.reason = ""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts the clock, unless an earlier ``fit`` did."""
        if self._end is None:
            self._end = self._clock() + 60 * self._minutes

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the clock."""
        if self._epoch > 0:
            self._look(f"before step {batch + 1} of epoch {self._epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the clock."""
        self._look(f"at the end of epoch {epoch + 1}")
        if self.reason:
            self.model.stop_training = True

    def _look(self, when: str) -> None:
        if self._end is not None and self._clock() >= self._end and not self.reason:
            self.reason = f"the time limit of {self._minutes:g} min was reached {when}"
