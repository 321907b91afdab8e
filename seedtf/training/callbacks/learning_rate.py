"""The callback that sets the optimizer's learning rate."""

from __future__ import annotations

import keras

from seedtf.training.optim.schedules import Schedule

__all__ = ["LearningRate"]


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate from a schedule and puts it into the epoch's logs as ``lr`` (float).

    The position comes from Keras's own epoch number, so ``fit(initial_epoch=...)`` goes on where an
    earlier ``fit`` ended.

    Args:
        schedule: learning rate as a function of the epoch (float, 0.0 is the start of training).
        per_step: evaluate at ``epoch + step / steps_per_epoch`` before every step instead of once, at
            the start of the epoch.
        steps_per_epoch: training steps in one epoch.

    Attributes:
        first_step: the step within its epoch that the next ``fit`` begins at; 0 unless resumed.
    """

    def __init__(self, schedule: Schedule, *, per_step: bool, steps_per_epoch: int) -> None:
        super().__init__()
        self._schedule = schedule
        self._per_step = per_step
        self._steps_per_epoch = steps_per_epoch
        self._epoch = 0
        self._value = 0.0
        self.first_step = 0

    def planned(self, epochs: int) -> list[float]:
        """What ``lr`` will be in the logs of each of ``epochs`` epochs: the last rate set in each."""
        last = (self._steps_per_epoch - 1) / self._steps_per_epoch if self._per_step else 0.0
        return [self._schedule(epoch + last) for epoch in range(epochs)]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Sets the rate of the epoch, or of its first step."""
        self._epoch = epoch
        start = self.first_step / self._steps_per_epoch if self._per_step else 0.0
        self._set(epoch + start)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Sets the rate of the step."""
        if self._per_step and batch > 0:
            self._set(self._epoch + (self.first_step + batch) / self._steps_per_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds ``lr`` to the logs: the rate that was set last."""
        if logs is not None:
            logs["lr"] = self._value

    def _set(self, epoch: float) -> None:
        self._value = self._schedule(epoch)
        self.model.optimizer.learning_rate = self._value
