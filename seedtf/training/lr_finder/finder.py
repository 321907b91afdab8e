"""The learning-rate finder: trains a few steps at rising rates, then restores everything."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from seedtf.compat.keras import (
    all_variables,
    build_optimizer,
    metrics_variables,
    optimizer_variables,
)
from seedtf.errors import UserError
from seedtf.model.batch_norm import finalize_layers
from seedtf.report import is_silent
from seedtf.training.state import copy_values
from seedtf.training.trainer import Trainer

__all__ = ["LRSuggestion", "LRSweep", "lr_at", "smooth_losses", "suggest_lr", "sweep_lr"]

# The decay of the running average of the losses. The average spans about ten steps, a tenth of a sweep
# of the default length.
_DECAY = 0.9
# The loss counts as diverged if it is more than this many times the lowest loss (Howard & Gugger 2020,
# arXiv 2002.04688).
_DIVERGED_FACTOR = 4.0
# The first steps are left out, because the running average of few losses is noisy.
_SKIPPED_STEPS = 5
# The slope is taken over a tenth of the sweep, because between neighbouring steps it is mostly noise.
_SLOPE_FRACTION = 0.1
# If the loss falls by less than this fraction of its first value, the fall can be chance.
_MIN_FALL = 0.02


@dataclass(frozen=True)
class LRSweep:
    """The losses of a sweep over rising learning rates; each list has one value for each step.

    Attributes:
        lrs: the learning rate of each step.
        losses: the training loss of the batch of each step, before the update.
        smoothed: the bias-corrected exponential average of ``losses``.
        stop_reason: why the sweep ended before its last planned step; empty if it did not end early.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    stop_reason: str = ""


@dataclass(frozen=True)
class LRSuggestion:
    """Two learning rates that are read off the curve of losses.

    Attributes:
        steepest: the rate where the curve of the smoothed loss over the logarithm of the rate falls
            most steeply.
        tenth: a tenth of the rate at which the smoothed loss is lowest.
    """

    steepest: float
    tenth: float

    @property
    def lr(self) -> float:
        """The lower of the two rates.

        A rate that is too low only slows a training, but a rate that is too high ruins it.
        """
        return min(self.steepest, self.tenth)


def lr_at(step: int, steps: int, start: float, end: float) -> float:
    """Returns the rate of a step, counted from 0: ``start · (end / start) ** (step / (steps − 1))``.

    The rate rises exponentially, so that every power of ten gets the same number of steps (Howard &
    Gugger 2020, arXiv 2002.04688). In Smith 2017 (arXiv 1506.01186) it rises linearly.

    Example:
        >>> [round(lr_at(step, 3, 0.001, 0.1), 6) for step in range(3)]
        [0.001, 0.01, 0.1]
    """
    return float(start * (end / start) ** (step / (steps - 1)))


def smooth_losses(losses: Sequence[float], decay: float = _DECAY) -> list[float]:
    """Returns the bias-corrected exponential average after each loss.

    Each loss changes the average ``a`` to ``decay · a + (1 − decay) · loss``. The result after n losses
    is ``a / (1 − decay**n)``; without this correction (Kingma & Ba 2015, arXiv 1412.6980) the first
    averages would be near 0.

    Example:
        >>> smooth_losses([2.0, 4.0], decay=0.5)
        [2.0, 3.3333333333333335]
    """
    average, averages = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = decay * average + (1.0 - decay) * loss
        averages.append(average / (1.0 - decay**count))
    return averages


def suggest_lr(lrs: Sequence[float], smoothed: Sequence[float]) -> LRSuggestion | None:
    """Reads two rates off a curve of smoothed losses.

    The first five steps are left out. The slope is computed at every step up to the step with the
    lowest loss. Each slope spans a tenth of all steps: half of them lie before its step, half after it.

    Args:
        lrs: rates whose logarithms are equally spaced.
        smoothed: the smoothed loss at each rate.

    Returns:
        The two rates; None if the loss never fell by 2 % or more.
    """
    first = min(_SKIPPED_STEPS, len(smoothed) - 1)
    if first < 1:
        return None
    curve = np.asarray(smoothed[first:])
    lowest = int(curve.argmin())
    if curve[lowest] > (1.0 - _MIN_FALL) * curve[0]:
        return None
    half_span = max(1, round(_SLOPE_FRACTION * len(smoothed) / 2))
    steps = np.arange(lowest + 1)
    before, after = np.maximum(steps - half_span, 0), np.minimum(steps + half_span, len(curve) - 1)
    slopes = (curve[after] - curve[before]) / (after - before)
    return LRSuggestion(lrs[first + int(slopes.argmin())], lrs[first + lowest] / 10.0)


def sweep_lr(trainer: Trainer, batches: Any, *, start: float, end: float, steps: int) -> LRSweep:
    """Trains ``steps`` steps at rates from ``start`` to ``end``, then undoes what training changed.

    Training changes the learning rate, the random states of Python and NumPy, and the variables of four
    objects: the network (weights, moving statistics, random states of layers), the optimizer, the
    metrics and the moving average. All of these are restored, also after an error.

    The sweep ends early if the smoothed loss exceeds four times its lowest value, or if a loss is not
    finite.

    Args:
        trainer: a compiled trainer.
        batches: at least ``steps`` training batches, as ``fit`` takes them.
        start, end: the first and the last rate, 0 < start < end.
        steps: the number of steps, 2 or more.

    Raises:
        ValueError: ``start``, ``end`` or ``steps`` is out of range.
        UserError: the loss of the first step is not finite.
    """
    if not 0.0 < start < end or steps < 2:
        raise ValueError(f"0 < start < end and 2 steps needed. Received: {start}, {end}, {steps}")
    disable = is_silent() or None  # None shows the bar on a terminal only
    with (
        _restore_afterwards(trainer),
        tqdm(total=steps, desc="lr_find", unit="step", disable=disable, leave=False) as bar,
    ):
        sweep = _SweepCallback(steps, start, end, bar)
        trainer.fit(batches, steps_per_epoch=steps, callbacks=[sweep], shuffle=False, verbose=0)
    if not sweep.losses:
        raise UserError(
            f"--start_lr={start:g}: {sweep.stop_reason}; check the data with seedtf check"
        )
    lrs = [lr_at(step, steps, start, end) for step in range(len(sweep.losses))]
    return LRSweep(lrs, sweep.losses, smooth_losses(sweep.losses), sweep.stop_reason)


class _SweepCallback(keras.callbacks.Callback):
    """Sets the rate before each step and records the loss of that step alone."""

    def __init__(self, steps: int, start: float, end: float, bar: tqdm) -> None:
        super().__init__()
        self._steps, self._start, self._end = steps, start, end
        self._bar = bar
        self._lowest = math.inf
        self.losses: list[float] = []
        self.stop_reason = ""

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Keras reports the mean loss since the last reset; after a reset it is the loss of this step.
        self.model.reset_metrics()
        self.model.optimizer.learning_rate = lr_at(batch, self._steps, self._start, self._end)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._bar.update()
        # With several replicas, the loss of a step may be an array of one value.
        loss = float(np.mean((logs or {})["loss"]))
        lr = lr_at(batch, self._steps, self._start, self._end)
        if not math.isfinite(loss):
            self._stop(f"the loss was {loss} at a rate of {lr:.2e}")
            return
        self.losses.append(loss)
        smoothed = smooth_losses(self.losses)[-1]
        self._lowest = min(self._lowest, smoothed)
        if smoothed > _DIVERGED_FACTOR * self._lowest:
            self._stop(
                f"the loss was over {_DIVERGED_FACTOR:g} times its lowest value at a rate of {lr:.2e}"
            )

    def _stop(self, reason: str) -> None:
        self.stop_reason = reason
        self.model.stop_training = True


@contextlib.contextmanager
def _restore_afterwards(trainer: Trainer) -> Iterator[None]:
    """Restores a compiled trainer after the ``with`` block, in which it may be trained."""
    optimizer = trainer.optimizer
    if not getattr(optimizer, "built", False):
        with trainer.distribute_strategy.scope():
            build_optimizer(optimizer, trainer.trainable_variables)
    variables = [
        *all_variables(trainer.network),
        *optimizer_variables(optimizer),
        *(trainer.average.variables if trainer.average else ()),
        *metrics_variables(trainer),
    ]
    values = copy_values(variables)
    lr = float(optimizer.learning_rate)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    history, stop_training = getattr(trainer, "history", None), trainer.stop_training
    try:
        yield
    finally:
        # Metrics that `fit` has created within the block are not in `variables`, so they are reset.
        trainer.reset_metrics()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(tf.convert_to_tensor(value))
        optimizer.learning_rate = lr
        finalize_layers(trainer.network)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        trainer.history, trainer.stop_training = history, stop_training
