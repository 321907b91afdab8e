"""``Position``: the current epoch and step of a training, for all other callbacks."""

from __future__ import annotations

import keras

__all__ = ["Position"]


class Position(keras.callbacks.Callback):
    """Keeps the current epoch and step, both counted from 0, for the other callbacks to read.

    Keras counts the batches of a ``fit`` from 0, even if the ``fit`` continues an interrupted epoch
    at a later step. This callback must be first in the list, so that the others read the new position.

    Args:
        resumed_epoch: the epoch in which a resumed run continues.
        resumed_step: the step of this epoch at which the run continues; other epochs start at step 0.

    Attributes:
        epoch: the current epoch.
        step: the current step of ``epoch``; between two steps, the last one that was trained.

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
        """The step of the epoch that ``fit`` counts as ``batch``; the two differ in a resumed epoch."""
        return self._first_step + batch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch
        self._first_step = self._resumed_step if epoch == self._resumed_epoch else 0
        self.step = self._first_step

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.step = self.step_of(batch)
