"""The one clock of training, read by the log, the console line and the live page."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import keras

__all__ = ["EpochTimer"]


class EpochTimer(keras.callbacks.Callback):
    """Measures an epoch: seconds, images per second, seconds spent waiting for data.

    Throughput counts training alone, up to the moment the last step's result was there; validation and
    the files written between epochs are left out.

    Args:
        images_per_step: images in a training batch, over all devices.
        data_wait: gives the seconds that training waited for data since it was last called.
        clock: gives seconds that only ever rise.

    Attributes:
        clock: the clock given.
        seconds: the last whole epoch with its validation.
        data_wait: seconds of it spent waiting for training data.
        validation: seconds of it spent judging the validation images.
        between: seconds from the end of the epoch before to its begin: copies for checkpoints, curves;
            0 in the first.
    """

    async_safe = True

    def __init__(
        self,
        images_per_step: int,
        *,
        data_wait: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = 0.0
        self.data_wait = 0.0
        self.validation = 0.0
        self.between = 0.0
        self._read_data_wait = data_wait
        self._images_per_step = images_per_step
        self._lock = threading.Lock()
        self._began = self._stepped = self._judging = 0.0
        self._ended: float | None = None
        self._steps = 0
        self._epochs: list[float] = []
        self._speeds: list[float] = []

    @property
    def images_per_second(self) -> float:
        """Training throughput of the current epoch up to its latest step, or of the last one."""
        elapsed = self._stepped - self._began
        return self._steps * self._images_per_step / elapsed if elapsed > 0 else 0.0

    @property
    def data_wait_share(self) -> float:
        """The part of the last epoch's training time spent waiting for data, in 0-1."""
        elapsed = self._stepped - self._began
        return min(self.data_wait / elapsed, 1.0) if elapsed > 0 else 0.0

    def remaining(self, epochs: int) -> float:
        """Seconds that ``epochs`` more epochs should take: the median of the last five as the measure.

        The first epoch, which also compiles, counts only while there is no other.
        """
        known = _steady(self._epochs)[-5:]
        return epochs * statistics.median(known) if known else 0.0

    @property
    def median_seconds(self) -> float:
        """Median of the whole epochs so far, the first left out as soon as there is another."""
        return statistics.median(_steady(self._epochs)) if self._epochs else 0.0

    @property
    def median_images_per_second(self) -> float:
        """Median training throughput of the epochs so far, the first left out likewise."""
        return statistics.median(_steady(self._speeds)) if self._speeds else 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock; whatever was waited for between epochs does not count."""
        self._read_data_wait()
        self._began = self._stepped = self.clock()
        self.between = 0.0 if self._ended is None else self._began - self._ended
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Counts the steps done; may come from several threads and out of order."""
        with self._lock:
            self._steps = max(self._steps, batch + 1)
            self._stepped = max(self._stepped, self.clock())

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts the clock of validation."""
        self._judging = self.clock()

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Stops it."""
        self.validation = self.clock() - self._judging

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stops the clock."""
        self._ended = self.clock()
        self.seconds = self._ended - self._began
        self.data_wait = self._read_data_wait()
        self._epochs.append(self.seconds)
        self._speeds.append(self.images_per_second)


def _steady(values: list[float]) -> list[float]:
    """Without the first, whose epoch also traces and compiles, unless it is the only one."""
    return values[1:] or values
