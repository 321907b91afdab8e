"""A train step of several GPUs as two compiled functions of each replica, with one all-reduce between.

XLA cannot compile a step that uses several devices. Without XLA, the optimizer alone is some thirty
small kernels for each variable, thousands in a step, and starting them takes longer than the gradients.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from seedtf.compat.keras import all_layers, innermost_optimizer
from seedtf.compat.keras_distribute import updating_one_replica
from seedtf.model.batch_norm import moving_statistics

if TYPE_CHECKING:
    from seedtf.training.trainer import Trainer

__all__ = ["TwoHalves", "can_be_halved"]


def can_be_halved(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether a step can be compiled in two halves.

    It cannot with ``--sync_bn``, whose layers communicate within the first half; where layers draw
    random numbers, because TensorFlow lets no compiled function change their state on one replica; and
    with loss scaling, whose optimizer skips steps.
    """
    synchronized = any(getattr(layer, "synchronized", False) for layer in all_layers(network))
    draws = len(network.variables) > len(network.weights)
    return not synchronized and not draws and innermost_optimizer(optimizer) is optimizer


class TwoHalves:
    """The train step of a trainer that was built in the scope of a strategy.

    The first half computes the loss, the gradients and the metrics of a replica. Gradients and the
    moving statistics of batch normalization then are one vector, whose sum over the replicas is one
    collective operation. The second half gives the sum to the optimizer, on each replica's own
    variables. Clipping sees the whole gradient, as on one device.

    Args:
        trainer: with a built optimizer.
        replicas: their number, over all workers.
        jit_compile: whether XLA compiles the halves.
    """

    def __init__(self, trainer: Trainer, replicas: int, *, jit_compile: bool) -> None:
        self._trainer, self._replicas, self._jit_compile = trainer, replicas, jit_compile
        self._variables = list(trainer.trainable_variables)
        self._statistics = moving_statistics(trainer.network)
        # One function for each replica, because each captures its own copies of the variables.
        self._first: dict[int, Callable[..., Any]] = {}
        self._second: list[Callable[..., Any]] = []

    def step(self, data: Any, train_step: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Trains on one replica's part of a batch; returns the metrics so far.

        Args:
            data: the part.
            train_step: the step of one device, which uses ``trainer.optimizer``.
        """
        replica = tf.distribute.get_replica_context()
        number = int(tf.get_static_value(replica.replica_id_in_sync_group))
        if number not in self._first:
            self._first[number] = self._function(lambda data: self._reduce_inputs(data, train_step))
        vector, logs = self._first[number](data)
        total = replica.all_reduce(tf.distribute.ReduceOp.SUM, vector)
        replica.merge_call(self._update_replicas, args=(total,))
        return logs

    def _reduce_inputs(
        self, data: Any, train_step: Callable[[Any], dict[str, Any]]
    ) -> tuple[tf.Tensor, dict[str, Any]]:
        """The vector of gradients and updated statistics, and the metrics so far."""
        with _gradients_kept(self._trainer) as kept:
            logs = train_step(data)
        gradients = [
            tf.zeros(variable.shape) if gradient is None else gradient
            for gradient, variable in zip(kept, self._variables, strict=True)
        ]
        values = [*gradients, *map(tf.convert_to_tensor, self._statistics)]
        return tf.concat([tf.reshape(tf.cast(each, tf.float32), [-1]) for each in values], 0), logs

    def _update_replicas(self, strategy: tf.distribute.Strategy, total: Any) -> None:
        replicas = len(strategy.extended.worker_devices)
        if not self._second:
            self._second = [self._function(self._update) for _ in range(replicas)]
        # `update` calls the function for one replica after the other, on its device, with its values.
        functions = iter(self._second)
        strategy.extended.update(
            self._variables[0].value,
            lambda _, vector: next(functions)(vector),
            args=(total,),
            group=False,
        )

    def _update(self, vector: tf.Tensor) -> None:
        shapes = [tuple(each.shape) for each in (*self._variables, *self._statistics)]
        parts = tf.split(vector, [math.prod(shape) for shape in shapes])
        values = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        count = len(self._variables)
        optimizer = self._trainer.optimizer
        with updating_one_replica(optimizer):
            optimizer.apply(values[:count], self._variables)
        for variable, value in zip(self._statistics, values[count:], strict=True):
            variable.assign(value / self._replicas)

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return tf.function(function, jit_compile=self._jit_compile, autograph=False)


class _KeepGradients:
    """Takes the place of an optimizer in a train step and keeps the gradients."""

    def __init__(self, gradients: list[Any]) -> None:
        self._gradients = gradients

    def scale_loss(self, loss: Any) -> Any:
        return loss

    def apply_gradients(self, pairs: Any) -> None:
        self._gradients += [gradient for gradient, _ in pairs]


@contextlib.contextmanager
def _gradients_kept(trainer: Trainer) -> Iterator[list[Any]]:
    gradients: list[Any] = []
    optimizer = trainer.optimizer
    trainer.optimizer = _KeepGradients(gradients)
    try:
        yield gradients
    finally:
        trainer.optimizer = optimizer
