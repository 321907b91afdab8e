"""Measures the time of each epoch, for timing.csv, the console line and the live page."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import keras

__all__ = ["EpochTimer"]


class EpochTimer(keras.callbacks.Callback):
    """Measures an epoch: its duration, images per second, and the seconds spent waiting for data.

    Images per second are measured from the start of the epoch to the end of its last step. Validation
    and the writing of files do not count.

    Args:
        images_per_step: number of images in a training batch, over all devices.
        take_data_wait: returns the seconds that training has waited for data since this function was
            last called.
        clock: a monotonic clock in seconds.

    Attributes:
        seconds: duration of the last finished epoch, including its validation.
        data_wait: seconds of the last finished epoch that were spent waiting for training data.
        validation: duration of the last validation in seconds.
        between: seconds from the end of the previous epoch to the start of this epoch; 0 for the first
            epoch. In this time, ``on_epoch_end`` of the other callbacks runs, which copies weights for
            checkpoints, for example.

    Example:
        >>> readings = iter([0.0, 2.0, 3.0])  # start of the epoch, end of a step, end of the epoch
        >>> timer = EpochTimer(32, clock=lambda: next(readings))
        >>> timer.on_epoch_begin(0)
        >>> timer.on_train_batch_end(9)  # the tenth step
        >>> timer.on_epoch_end(0)
        >>> timer.images_per_second, timer.seconds
        (160.0, 3.0)
    """

    async_safe = True  # Keras 3 may call `on_train_batch_end` from a thread

    def __init__(
        self,
        images_per_step: int,
        *,
        take_data_wait: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self.seconds = 0.0
        self.data_wait = 0.0
        self.validation = 0.0
        self.between = 0.0
        self._clock = clock
        self._take_data_wait = take_data_wait
        self._images_per_step = images_per_step
        self._lock = threading.Lock()
        self._epoch_start = self._last_step = self._validation_start = 0.0
        self._epoch_end: float | None = None
        self._steps = 0
        self._durations: list[float] = []
        self._throughputs: list[float] = []

    @property
    def images_per_second(self) -> float:
        """Training throughput of the current epoch so far; between two epochs, of the last epoch."""
        elapsed = self._last_step - self._epoch_start
        return self._steps * self._images_per_step / elapsed if elapsed > 0 else 0.0

    @property
    def data_wait_fraction(self) -> float:
        """The fraction of the last epoch's training time that was spent waiting for data, in [0, 1].

        Read it only between two epochs, because ``data_wait`` is set at the end of an epoch.
        """
        elapsed = self._last_step - self._epoch_start
        return min(self.data_wait / elapsed, 1.0) if elapsed > 0 else 0.0

    def remaining(self, epochs: int) -> float:
        """Estimated seconds of ``epochs`` more epochs, from the median of the last five epochs.

        The first epoch also includes tracing and compiling, so it counts only if it is the only one.
        """
        recent = _without_first(self._durations)[-5:]
        return epochs * statistics.median(recent) if recent else 0.0

    @property
    def median_seconds(self) -> float:
        """Median seconds of all epochs but the first; the first epoch counts if it is the only one."""
        return statistics.median(_without_first(self._durations)) if self._durations else 0.0

    @property
    def median_images_per_second(self) -> float:
        """Median training throughput over the same epochs as ``median_seconds``."""
        return statistics.median(_without_first(self._throughputs)) if self._throughputs else 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._take_data_wait()  # discards the seconds of waiting between two epochs
        self._epoch_start = self._last_step = self._clock()
        self.between = 0.0 if self._epoch_end is None else self._epoch_start - self._epoch_end
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        with self._lock:  # Keras 3 may call this method from several threads and out of order
            self._steps = max(self._steps, batch + 1)
            self._last_step = max(self._last_step, self._clock())

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._validation_start = self._clock()

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self.validation = self._clock() - self._validation_start

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch_end = self._clock()
        self.seconds = self._epoch_end - self._epoch_start
        self.data_wait = self._take_data_wait()
        self._durations.append(self.seconds)
        self._throughputs.append(self.images_per_second)


def _without_first(values: list[float]) -> list[float]:
    """All values but the first, which includes tracing and compiling; a single value is kept."""
    return values[1:] or values
