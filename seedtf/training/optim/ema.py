"""``MovingAverage``: an exponential moving average of all weights and batch statistics."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import all_variables

__all__ = ["MovingAverage", "ema_decay"]

# a fiftieth of the horizon between two updates costs a fiftieth of the memory traffic at most
_UPDATES_IN_HORIZON = 50


def ema_decay(horizon: float, steps: int) -> tuple[float, int]:
    """The decay of one update and the steps from one to the next.

    Args:
        horizon: the share of all ``steps`` that the average spans, above 0.
        steps: of the whole training.

    Returns:
        ``(exp(−every / (horizon · steps)), every)``: after so many steps as the horizon has, what was
        before counts for 1/e.
    """
    length = max(horizon * steps, 1.0)
    every = max(1, int(length / _UPDATES_IN_HORIZON))
    return math.exp(-every / length), every


class MovingAverage:
    """Averages what a network has learnt, its moving statistics of batch normalisation included.

    The n-th update, counted from 0, uses the decay ``min(decay, (1 + n) / (10 + n))``, as
    ``tf.train.ExponentialMovingAverage`` does, so that the random first weights are soon forgotten.

    Attributes:
        variables: the average, one for each floating-point variable of the network, then the number of
            steps seen; what a saved state holds.
    """

    def __init__(self, network: keras.Model, horizon: float, steps: int) -> None:
        """Begins with the weights as they are.

        Args:
            network: what is averaged; built.
            horizon: the share of all steps that the average spans, above 0.
            steps: of the whole training.
        """
        self._decay, self._every = ema_decay(horizon, steps)
        self._sources = [each for each in all_variables(network) if _is_float(each)]
        # float32, for a small step would be lost in 16 bits
        self._averages = [tf.Variable(_value(each), trainable=False) for each in self._sources]
        self._seen = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables = [*self._averages, self._seen]

    def update(self) -> None:
        """Counts a step of training, and takes the weights in when it is time; part of the step."""
        self._seen.assign_add(1)
        tf.cond(self._seen % self._every == 0, self._take_in, lambda: None)

    def swap(self) -> None:
        """Puts the average into the network and keeps its weights instead; again, and all is back."""
        for source, average in zip(self._sources, self._averages, strict=True):
            kept = _value(source)
            source.assign(tf.cast(average, source.dtype))
            average.assign(kept)

    def _take_in(self) -> None:
        number = tf.cast(self._seen // self._every - 1, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + number) / (10.0 + number))
        for source, average in zip(self._sources, self._averages, strict=True):
            average.assign(average + (_value(source) - average) * (1.0 - decay))


def _value(variable: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def _is_float(variable: Any) -> bool:
    return tf.as_dtype(variable.dtype).is_floating
