"""Callbacks that set the learning rate and the strength of the augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from seedtf.augment.strength import next_strength
from seedtf.config.train_config import TrainConfig
from seedtf.training.callbacks.position import Position
from seedtf.training.optim.schedules import Schedule

__all__ = ["AugmentStrength", "LearningRate"]


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate from a schedule and adds it to the logs of an epoch as ``lr`` (float).

    The rate depends only on epoch and step, so a second ``fit(initial_epoch=...)`` and a resumed run
    continue the schedule. If the model has ``rates`` (see ``Trainer``), this callback fills them with
    the rates of all steps at the start of an epoch, and each train step sets its own rate.

    Args:
        schedule: learning rate as a function of the epoch (float; training starts at 0.0).
        per_step: whether to evaluate the schedule before every step, at
            ``epoch + step / steps_per_epoch``. If not, it is evaluated once, at the start of the epoch.
        steps_per_epoch: number of training steps in an epoch; None for the number that ``fit`` reports.
        position: the callback that knows the current epoch and step; it must come before this one in
            the list of callbacks. It may be None if every ``fit`` starts at the beginning of an epoch.

    Raises:
        ValueError: at the start of ``fit``, if ``per_step`` needs the number of steps and Keras does
            not know it.

    Example:
        >>> def halving(epoch: float) -> float:
        ...     return 0.1 * 0.5**epoch
        >>> rate = LearningRate(halving, per_step=False, steps_per_epoch=50, position=Position())
        >>> rate.planned(3)
        [0.1, 0.05, 0.025]
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        per_step: bool = True,
        steps_per_epoch: int | None = None,
        position: Position | None = None,
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._per_step = per_step
        self._steps_per_epoch = steps_per_epoch or 1
        self._takes_steps_from_fit = steps_per_epoch is None
        self._position = position or Position()
        self._moves_position = position is None

    def rate(self, epoch: int, step: int) -> float:
        """The rate of a step of an epoch, both counted from 0."""
        return self._schedule(epoch + (step / self._steps_per_epoch if self._per_step else 0.0))

    def planned(self, epochs: int) -> list[float]:
        """The rates to be logged: that of the last step in each of the first ``epochs`` epochs."""
        return [self.rate(epoch, self._steps_per_epoch - 1) for epoch in range(epochs)]

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._takes_steps_from_fit and self._per_step:
            steps = self.params.get("steps")
            if not steps:
                raise ValueError(
                    "The number of steps in an epoch is not known, but the learning rate follows it. "
                    "Pass steps_per_epoch to fit, or per_step=False to the callback."
                )
            self._steps_per_epoch = steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._moves_position:
            self._position.on_epoch_begin(epoch)
        position = self._position
        self.model.optimizer.learning_rate = self.rate(position.epoch, position.step)
        if self._train_step_sets_rate:
            steps = range(self._steps_per_epoch)
            rate_of_steps = [self.rate(position.epoch, step) for step in steps]
            self.model.rates.start_epoch(rate_of_steps, position.step)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._moves_position:
            self._position.on_train_batch_begin(batch)
        # The rate of the first step was set by on_epoch_begin.
        if self._per_step and batch > 0 and not self._train_step_sets_rate:
            position = self._position
            self.model.optimizer.learning_rate = self.rate(position.epoch, position.step)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["lr"] = self.rate(self._position.epoch, self._position.step)

    @property
    def _train_step_sets_rate(self) -> bool:
        return getattr(self.model, "rates", None) is not None


class AugmentStrength(keras.callbacks.Callback):
    """Sets the factor by which every augmentation range is multiplied, at the start of an epoch.

    Args:
        config: the flags. If ``augment_strength`` is a number, this number is the factor. If it is
            ``auto``, the factor of each epoch is computed from the history.
        variable: float32 scalar, which the augmentation multiplies by its ranges.

    Attributes:
        rows: the history that ``auto`` needs; set it to the rows of the log.
    """

    def __init__(self, config: TrainConfig, variable: tf.Variable) -> None:
        super().__init__()
        self._config = config
        self._variable = variable
        self.rows: Sequence[Mapping[str, float]] = ()

    def factor(self, epoch: int) -> float:
        """The factor in ``epoch``, counted from 0; with ``auto`` it depends on the earlier epochs."""
        config = self._config
        if isinstance(config.augment_strength, float):
            return config.augment_strength
        mixed = bool(config.mixup or config.cutmix)
        return next_strength(self.rows[:epoch], config.epochs, mixed=mixed)

    def set(self, epoch: int) -> None:
        """Assigns the factor of ``epoch`` to the variable, which the augmentation of a batch reads."""
        self._variable.assign(self.factor(epoch))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.set(epoch)
