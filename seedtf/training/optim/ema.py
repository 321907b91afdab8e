"""``MovingAverage``: an exponential moving average of all weights and batch statistics.

Keras's ``use_ema=True`` with ``SwapEMAWeights`` averages trainable weights only. This class also
averages the moving statistics of batch normalization, and keeps the average of float16 and bfloat16
variables in float32.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import all_variables

__all__ = ["MovingAverage", "ema_decay"]

# An update reads and writes every weight, and more updates would hardly change the average. So the
# average is updated 50 to 75 times within its horizon, or at every step if the horizon has fewer than
# 100 steps.
_UPDATES_PER_HORIZON = 50


def ema_decay(horizon: float, steps: int) -> tuple[float, int]:
    """Returns the decay of one update, and the number of steps between two updates.

    Args:
        horizon: the fraction of all ``steps`` that the average spans, above 0.
        steps: number of steps of the whole training.

    Returns:
        ``(decay, interval)``: the average is updated once in ``interval`` steps, with
        ``decay = exp(−interval / (horizon · steps))``. So the weight of the earlier values in the
        average falls to 1/e within ``horizon · steps`` steps.

    Example:
        >>> decay, interval = ema_decay(0.1, 10_000)
        >>> round(decay, 4), interval
        (0.9802, 20)
    """
    length = max(horizon * steps, 1.0)
    interval = max(1, int(length / _UPDATES_PER_HORIZON))
    return math.exp(-interval / length), interval


class MovingAverage:
    """Averages the weights of a network and its moving statistics of batch normalization.

    The n-th update, counted from 0, uses the decay ``min(decay, (1 + n) / (10 + n))``, as
    ``tf.train.ExponentialMovingAverage`` does. The first updates thus have a small decay, and the
    random initial weights soon lose their influence.

    Attributes:
        variables: the average of each floating-point variable of the network, and after them the number
            of steps that ``update`` has counted. A saved state holds these variables.
    """

    def __init__(self, network: keras.Model, horizon: float, steps: int) -> None:
        """Starts the average from the current weights.

        Args:
            network: a built model.
            horizon: the fraction of all steps that the average spans, above 0.
            steps: number of steps of the whole training.
        """
        self._decay, self._interval = ema_decay(horizon, steps)
        self._sources = [variable for variable in all_variables(network) if _is_float(variable)]
        # The averages are float32, because in 16 bits a small change would be rounded away.
        self._averages = [tf.Variable(_value(source), trainable=False) for source in self._sources]
        self._num_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables = [*self._averages, self._num_steps]

    def update(self) -> None:
        """Counts a training step and updates the average if it is due. Call it in the train step."""
        self._num_steps.assign_add(1)
        tf.cond(self._num_steps % self._interval == 0, self._update_averages, lambda: None)

    def swap(self) -> None:
        """Exchanges the network's weights and the average; a second call undoes the exchange.

        The average of a float16 or bfloat16 variable is rounded to 16 bits by the exchange.
        """
        for source, average in zip(self._sources, self._averages, strict=True):
            weights = _value(source)
            source.assign(tf.cast(average, source.dtype))
            average.assign(weights)

    def _update_averages(self) -> None:
        num_updates = tf.cast(self._num_steps // self._interval - 1, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + num_updates) / (10.0 + num_updates))
        for source, average in zip(self._sources, self._averages, strict=True):
            average.assign(average + (_value(source) - average) * (1.0 - decay))


def _value(variable: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def _is_float(variable: Any) -> bool:
    return tf.as_dtype(variable.dtype).is_floating
