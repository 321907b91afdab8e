"""The learning-rate range test: a short training at ever higher rates, after which all is as before."""

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
from seedtf.training.state import copy_values
from seedtf.training.trainer import Trainer

__all__ = ["RangeTest", "Suggestion", "find_rate", "rate_at", "smooth", "suggest_rate"]

# the weight of what was before in the average loss; a tenth of a usual test is what it looks back on
_MEMORY = 0.9
# a loss so many times its lowest is on its way to infinity (Howard & Gugger 2020, arXiv 2002.04688)
_DIVERGED = 4.0
# before so many steps the average is one of a few losses and jumps
_SKIPPED = 5
# the slope is taken over a tenth of the test, for from step to step it is mostly noise
_SLOPE_SHARE = 0.1
# a smaller fall of the loss, relative to where it began, can be chance
_LEAST_FALL = 0.02


@dataclass(frozen=True)
class RangeTest:
    """What was measured; lists of one value for each step with a finite loss.

    Attributes:
        rates: the learning rate of each step, rising.
        losses: the training loss of each batch, before its update.
        smoothed: the bias-corrected exponential average of the losses.
        ended: why the test ended before its last step, else empty.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    ended: str = ""


@dataclass(frozen=True)
class Suggestion:
    """Rates read off a curve.

    Attributes:
        steepest: where the smoothed loss falls fastest for a relative change of the rate.
        tenth: a tenth of the rate at which the smoothed loss is lowest.
        rate: the one to take.
    """

    steepest: float
    tenth: float

    @property
    def rate(self) -> float:
        """The lower of the two: too low a rate delays a training, too high a one ruins it."""
        return min(self.steepest, self.tenth)


def rate_at(step: int, steps: int, start: float, end: float) -> float:
    """The rate of a step counted from 0: ``start · (end / start) ** (step / (steps − 1))``.

    Smith 2017 (arXiv 1506.01186) raises the rate linearly; exponentially every power of ten gets as
    many steps (Howard & Gugger 2020, arXiv 2002.04688).
    """
    return float(start * (end / start) ** (step / (steps - 1)))


def smooth(losses: Sequence[float], memory: float = _MEMORY) -> list[float]:
    """Bias-corrected exponential averages: ``a ← memory · a + (1 − memory) · loss``, over 1 − memory^n.

    Without the correction (Kingma & Ba 2015, arXiv 1412.6980) the first averages would lie near 0.
    """
    average, found = 0.0, []
    for number, loss in enumerate(losses, 1):
        average = memory * average + (1.0 - memory) * loss
        found.append(average / (1.0 - memory**number))
    return found


def suggest_rate(rates: Sequence[float], smoothed: Sequence[float]) -> Suggestion | None:
    """Reads a curve over rates whose logarithms are equally spaced; None where the loss never fell.

    The first five steps are left out. The slope at a step is taken over a tenth of all steps, half of
    it to each side.
    """
    first = min(_SKIPPED, len(smoothed) - 1)
    if first < 1:
        return None
    curve = np.asarray(smoothed[first:])
    lowest = int(curve.argmin())
    if curve[lowest] > (1.0 - _LEAST_FALL) * curve[0]:
        return None
    side = max(1, round(_SLOPE_SHARE * len(smoothed) / 2))
    here = np.arange(lowest + 1)
    before, after = np.maximum(here - side, 0), np.minimum(here + side, len(curve) - 1)
    slopes = (curve[after] - curve[before]) / (after - before)
    return Suggestion(rates[first + int(slopes.argmin())], rates[first + lowest] / 10.0)


def find_rate(trainer: Trainer, batches: Any, *, start: float, end: float, steps: int) -> RangeTest:
    """Trains ``steps`` steps from rate ``start`` to ``end`` and puts back everything that it changed.

    That is every variable of the network (moving statistics and random states of layers too), of the
    optimizer, of the metrics and of the moving average, the learning rate, and the random states of
    Python and NumPy; also after an error. The test ends early where the smoothed loss exceeds four
    times its lowest, or a loss is no number.

    Args:
        trainer: compiled.
        batches: at least ``steps`` training batches, as ``fit`` takes them.
        start, end: the first and the last rate, 0 < start < end.
        steps: 2 or more.

    Raises:
        ValueError: rates or steps out of range.
        UserError: the very first loss is no number.
    """
    if not 0.0 < start < end or steps < 2:
        raise ValueError(f"0 < start < end and 2 steps needed. Received: {start}, {end}, {steps}")
    with (
        _put_back(trainer),
        tqdm(total=steps, desc="range test", unit="step", disable=None, leave=False) as bar,
    ):
        course = _LRSweep(steps, start, end, bar)
        trainer.fit(batches, steps_per_epoch=steps, callbacks=[course], shuffle=False, verbose=0)
    if not course.losses:
        raise UserError(f"--start_lr={start:g}: {course.ended}; look at the data with seedtf check")
    rates = [rate_at(step, steps, start, end) for step in range(len(course.losses))]
    return RangeTest(rates, course.losses, smooth(course.losses), course.ended)


class _LRSweep(keras.callbacks.Callback):
    """Sets the rate before each step and looks at that step's own loss after it."""

    def __init__(self, steps: int, start: float, end: float, bar: tqdm) -> None:
        super().__init__()
        self._steps, self._start, self._end = steps, start, end
        self._bar = bar
        self._lowest = math.inf
        self.losses: list[float] = []
        self.ended = ""

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the rate; Keras reports the mean since the last reset, so that comes at every step."""
        self.model.reset_metrics()
        rate = rate_at(batch, self._steps, self._start, self._end)
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the loss and ends the test where it runs away."""
        self._bar.update()
        # with several replicas a step may report an array of one
        loss = float(np.mean((logs or {})["loss"]))
        rate = rate_at(batch, self._steps, self._start, self._end)
        if not math.isfinite(loss):
            self._end_at(f"the loss was {loss} at a rate of {rate:.2e}")
            return
        self.losses.append(loss)
        smoothed = smooth(self.losses)[-1]
        self._lowest = min(self._lowest, smoothed)
        if smoothed > _DIVERGED * self._lowest:
            self._end_at(f"the loss was {_DIVERGED:g} times its lowest at a rate of {rate:.2e}")

    def _end_at(self, why: str) -> None:
        self.ended = why
        self.model.stop_training = True


@contextlib.contextmanager
def _put_back(trainer: Trainer) -> Iterator[None]:
    """Inside, a compiled trainer may be trained; afterwards it is what it was."""
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
    rate = float(optimizer.learning_rate)
    python, numpy = random.getstate(), np.random.get_state()
    history, stopping = getattr(trainer, "history", None), trainer.stop_training
    try:
        yield
    finally:
        trainer.reset_metrics()  # what was created meanwhile
        for variable, value in zip(variables, values, strict=True):
            variable.assign(tf.convert_to_tensor(value))
        optimizer.learning_rate = rate
        finalize_layers(trainer.network)
        random.setstate(python)
        np.random.set_state(numpy)
        trainer.history, trainer.stop_training = history, stopping
