"""``Position``: the current epoch and step of a training, for all other callbacks."""

from __future__ import annotations

import keras

__all__ = ["Position"]


class Position(keras.callbacks.Callback):
    """Keeps the current epoch and step, both counted from 0, for the other callbacks to read.

    Keras counts the batches of a ``fit`` from 0, even if the ``fit`` continues an interrupted epoch
    at a later step. Must be first in the list of callbacks.

    Args:
        resumed_epoch: the epoch that a resumed run starts in.
        resumed_step: the step within that epoch at which it starts; every other epoch starts at 0.

    Attributes:
        epoch: the current epoch.
        step: the step of ``epoch`` that is being trained, or that was trained last.

    Example:
        >>> position = Position(resumed_epoch=3, resumed_step=10)
        >>> position.on_epoch_begin(3)
        >>> position.on_train_batch_begin(2)
        >>> position.epoch, position.step
        (3, 12)
    """

    def __init__(self, resumed_epoch: int = 0, resumed_step: int = 0) -> None:
        super().__init__()
        self._resumed_epoch, self._resumed_step = resumed_epoch, resumed_step
        self.epoch = self.step = self._first_step = 0

    def step_of(self, batch: int) -> int:
        """The step within the epoch; Keras counts ``batch`` from 0 also if the epoch was resumed."""
        return self._first_step + batch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch
        self._first_step = self._resumed_step if epoch == self._resumed_epoch else 0
        self.step = self._first_step

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.step = self.step_of(batch)
