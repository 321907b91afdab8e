"""Ending a training that has gone numerically wrong."""

from __future__ import annotations

import math

import keras
import numpy as np

from seedtf.errors import UserError

__all__ = ["StopOnNaN"]


class StopOnNaN(keras.callbacks.Callback):
    """Raises ``UserError`` as soon as the training loss is NaN or infinite.

    Keras reports the mean since the start of the epoch, which stays so once a single step was. It hands
    that mean over as a plain number (Keras 3 from a thread), so looking at each step costs no wait; the
    error reaches the training loop a step or two later.
    """

    async_safe = True

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss."""
        self._check(logs, f"step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Looks at the loss of the whole epoch."""
        self._check(logs, "its end")

    def _check(self, logs: dict[str, float] | None, when: str) -> None:
        # among several workers a step reports an array of one
        loss = float(np.mean((logs or {}).get("loss", 0.0)))
        if math.isfinite(loss):
            return
        rate = float(self.model.optimizer.learning_rate)
        raise UserError(
            f"the loss became {loss} in epoch {self._epoch + 1} at {when}, at a learning rate of"
            f" {rate:.3g}: lower --lr, or train with --precision=float32"
        )
