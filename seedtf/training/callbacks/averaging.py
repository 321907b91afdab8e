"""Callbacks that put averaged weights into the network while it is validated and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.keras import all_variables, innermost_optimizer
from seedtf.training.callbacks.position import Position
from seedtf.training.optim.ema import MovingAverage

__all__ = ["AveragedWeights", "EmaWeights"]

_MAX_BATCHES = 100
"""Batch statistics of the averaged weights are computed from at most this many training batches."""


class EmaWeights(keras.callbacks.Callback):
    """Puts the exponential moving average into the network while it is validated and saved.

    So ``best.keras`` and ``last.keras`` hold the weights that were validated. In the list of callbacks,
    this callback must come after the checkpoints and before ``SaveState``: a state holds the trained
    weights and, separately, the average.

    Keras's own ``use_ema=True`` with ``SwapEMAWeights`` is not used, for two reasons. It averages the
    trainable variables only, not the moving statistics of batch normalization. It also keeps no float32
    average of weights that are stored in 16 bits.

    Args:
        average: the moving average of the network's weights.
    """

    def __init__(self, average: MovingAverage) -> None:
        super().__init__()
        self._average = average
        self._is_swapped = False

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._swap()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._is_swapped:
            self._swap()

    def _swap(self) -> None:
        self._average.swap()
        self._is_swapped = not self._is_swapped


class AveragedWeights(keras.callbacks.Callback):
    """Puts the average of stochastic weight averaging into the network for validation and saving.

    So ``best.keras`` and ``last.keras`` hold the weights that were validated: the trained weights until
    averaging starts, and the average after that. The moving statistics of batch normalization belong to
    the weights with which they were computed. So for the averaged weights, the statistics are computed
    again, from training batches of the epoch (Izmailov et al. 2018, algorithm 1).

    In the list of callbacks, this callback must come after the checkpoints and before ``SaveState``: a
    state holds the trained weights in the network, and the average among the variables of the
    optimizer.

    Args:
        epoch_batches: called with an epoch, from 0; returns its training batches, which are images
            float32 ``[B, S, S, 3]`` and labels.
        position: the current epoch and step; must come before this callback in the list.
    """

    def __init__(
        self, epoch_batches: Callable[[int], Iterable[tuple[Any, Any]]], position: Position
    ) -> None:
        super().__init__()
        self._epoch_batches = epoch_batches
        self._position = position
        self._trained_values: list[np.ndarray] = []
        self._forward: Callable[[Any], Any] | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._forward = None  # to trace it again, because layers may have been frozen or unfrozen

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        optimizer = innermost_optimizer(self.model.optimizer)
        if int(optimizer.iterations) <= int(optimizer.get_config()["start_averaging"]):
            return  # averaging has not started
        network = self.model.network
        self._trained_values = [np.array(variable.numpy()) for variable in all_variables(network)]
        optimizer.assign_average_vars(network.trainable_variables)
        layers = [layer for layer in network.layers if _updates_statistics(layer)]
        if layers:
            self._recompute_statistics(network, layers)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._trained_values:
            variables = all_variables(self.model.network)
            for variable, value in zip(variables, self._trained_values, strict=True):
                variable.assign(value)
            self._trained_values = []

    def _recompute_statistics(self, network: keras.Model, layers: list[Any]) -> None:
        statistics = [(layer.moving_mean, layer.moving_variance) for layer in layers]
        for variable in (variable for pair in statistics for variable in pair):
            variable.assign(tf.zeros_like(variable))
        if self._forward is None:
            self._forward = tf.function(lambda images: network(images, training=True))
        steps = 0
        for images, _ in self._epoch_batches(self._position.epoch):
            self._forward(images)
            steps += 1
            if steps == _MAX_BATCHES:
                break
        for layer, pair in zip(layers, statistics, strict=True):
            # Bias correction, because the moving averages started at zero.
            correction = 1.0 - layer.momentum**steps
            for variable in pair:
                variable.assign(variable / correction)


def _updates_statistics(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
