"""Ending a training that has gone numerically wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np

from seedtf.errors import DivergedError

__all__ = ["StopOnNaN"]

BatchFiles = Callable[[int, int], Sequence[str]]


class StopOnNaN(keras.callbacks.Callback):
    """Raises ``DivergedError`` as soon as the training loss is NaN or infinite.

    Keras reports the mean since the start of the epoch, which stays so once a single step was. It hands
    that mean over as a plain number (Keras 3 from a thread), so looking at each step costs no wait; the
    error reaches the training loop a step or two later.

    Args:
        batch_files: the names of the images in a batch, by epoch and step counted from 0.

    Attributes:
        first_step: the step within its epoch that the next ``fit`` begins at; 0 unless resumed.
    """

    async_safe = True

    def __init__(self, batch_files: BatchFiles = lambda epoch, step: []) -> None:
        super().__init__()
        self._batch_files = batch_files
        self._epoch = self._step = 0
        self.first_step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss of the whole epoch, in case the last step's look came too late."""
        self._look(self._step, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss."""
        self._step = self.first_step + batch
        self._look(self._step, logs)

    def _look(self, step: int, logs: dict[str, float] | None) -> None:
        # among several workers a step reports an array of one
        loss = float(np.mean((logs or {}).get("loss", 0.0)))
        if math.isfinite(loss):
            return
        files = list(self._batch_files(self._epoch, step))
        batch_text = f"; batch: {', '.join(files[:3])}" if files else ""
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        rate = float(self.model.optimizer.learning_rate)
        raise DivergedError(
            f"epoch {self._epoch + 1}, step {step + 1}: the loss became {loss} at a learning rate of "
            f"{rate:.3g}{batch_text}{more}; lower --lr, or train with --precision=float32"
        )
