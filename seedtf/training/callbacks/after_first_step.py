"""Work that can wait until training is under way."""

from __future__ import annotations

from collections.abc import Callable

import keras

from seedtf.training.background import LatestOnlyWorker

__all__ = ["AfterFirstStep"]


class AfterFirstStep(keras.callbacks.Callback):
    """Does a piece of work once, in a thread, as soon as the first step is done.

    Before that the step is traced, by the one thread that Python runs at a time.

    Args:
        job: the work; what it raises is raised by ``wait``.
    """

    def __init__(self, job: Callable[[], None]) -> None:
        super().__init__()
        self._job: Callable[[], None] | None = job
        self._painter = LatestOnlyWorker()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Begins before the second step."""
        if batch > 0:
            self._begin()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Begins after an epoch of one step."""
        self._begin()

    def wait(self) -> None:
        """Returns when the work is done, if it was begun."""
        self._painter.wait()

    def _begin(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            self._painter.submit(job)
