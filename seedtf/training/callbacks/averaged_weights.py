"""Validating and saving the averaged weights of stochastic weight averaging."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.keras import all_variables, innermost_optimizer

__all__ = ["AveragedWeights"]

_MOST_BATCHES = 100
"""Training batches of which averaged weights get their batch statistics, at most."""


class AveragedWeights(keras.callbacks.Callback):
    """Puts the averaged weights into the network while it is validated and saved.

    So ``best.keras`` and ``last.keras`` hold what was validated: the weights as trained until the
    average begins, the average from then on. The statistics of batch normalisation belong to the
    weights they were gathered with; averaged weights get their own from the epoch's training batches
    (Izmailov et al. 2018, algorithm 1), each layer's momentum deciding how many of them count.

    Stands behind the checkpoints and before ``SaveState``, because a state holds the weights as
    trained and the average as the optimizer's.

    Args:
        batches: the training batches of an epoch counted from 0: images float32 ``[B, S, S, 3]``
            and labels.
    """

    def __init__(self, batches: Callable[[int], Iterable[tuple[Any, Any]]]) -> None:
        super().__init__()
        self._batches = batches
        self._epoch = 0
        self._trained: list[np.ndarray] = []
        self._forward: Callable[[Any], Any] | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Forgets the function that was traced before layers were frozen or freed."""
        self._forward = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Keeps the weights as trained and puts in the average, once there is one."""
        optimizer = innermost_optimizer(self.model.optimizer)
        if int(optimizer.iterations) <= int(optimizer.get_config()["start_averaging"]):
            return
        network = self.model.network
        self._trained = [np.array(each.numpy()) for each in all_variables(network)]
        optimizer.assign_average_vars(network.trainable_variables)
        layers = [each for each in network.layers if _gathers_statistics(each)]
        if layers:
            self._gather_statistics(network, layers)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Puts back the weights as trained."""
        if self._trained:
            variables = all_variables(self.model.network)
            for variable, value in zip(variables, self._trained, strict=True):
                variable.assign(value)
            self._trained = []

    def _gather_statistics(self, network: keras.Model, layers: list[Any]) -> None:
        for layer in layers:
            for each in (layer.moving_mean, layer.moving_variance):
                each.assign(tf.zeros_like(each))
        if self._forward is None:
            self._forward = tf.function(lambda images: network(images, training=True))
        steps = 0
        for images, _ in self._batches(self._epoch):
            self._forward(images)
            steps += 1
            if steps == _MOST_BATCHES:
                break
        for layer in layers:
            # begun at zero, a moving average is short of the share that the zero still has
            share = 1.0 - layer.momentum**steps
            for each in (layer.moving_mean, layer.moving_variance):
                each.assign(each / share)


def _gathers_statistics(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
