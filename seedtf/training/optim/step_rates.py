"""``StepRates``: a table of the learning rates of an epoch's steps, on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

__all__ = ["StepRates"]


class StepRates:
    """Lets each train step set its own learning rate from a table.

    If the host set the rate before each step, each copy to a GPU would wait until all steps that are
    queued on the GPU are done. So the rates of a whole epoch are copied at once. This class counts the
    steps itself, because an optimizer with loss scaling does not count the steps that it skips.

    Args:
        steps: number of training steps in an epoch.

    Example:
        >>> rates, optimizer = StepRates(3), tf.keras.optimizers.SGD()
        >>> rates.start_epoch([0.3, 0.2, 0.1], step=1)
        >>> rates.set_next(optimizer)
        >>> round(float(optimizer.learning_rate), 6)
        0.2
    """

    def __init__(self, steps: int) -> None:
        self._table = tf.Variable(tf.zeros([steps]), trainable=False)
        # int64, because TensorFlow keeps int32 variables in the memory of the host.
        self._step = tf.Variable(0, trainable=False, dtype=tf.int64)

    def start_epoch(self, rates: Sequence[float], step: int = 0) -> None:
        """Starts an epoch at ``step``, from 0; ``rates`` has one rate for every step of the epoch."""
        self._table.assign(rates)
        self._step.assign(step)

    def set_next(self, optimizer: Any) -> None:
        """Gives the optimizer the rate of the next step. Call it in the train step."""
        # A dry run may time more steps than the table has rates; these steps get the last rate.
        last = self._table.shape[0] - 1
        optimizer.learning_rate = tf.gather(self._table, tf.minimum(self._step, last))
        self._step.assign_add(1)
