"""Divides the train step on several GPUs into two functions for each replica, which XLA can compile.

XLA cannot compile a step that uses several devices. Without XLA, the optimizer starts about thirty
small kernels for each variable, thousands in a step. Starting them takes longer than computing the
gradients. Between the two functions, one all-reduce sums the gradients of the replicas.
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

    Three things prevent it: layers of ``--sync_bn``, which communicate within the first half; layers
    with a random state, such as dropout, because a compiled function cannot change this state on one
    replica; and loss scaling, whose optimizer skips some steps.
    """
    has_sync_bn = any(getattr(layer, "synchronized", False) for layer in all_layers(network))
    # In Keras, the state of a random generator is among the variables, but not among the weights.
    has_random_state = len(network.variables) > len(network.weights)
    scales_loss = innermost_optimizer(optimizer) is not optimizer
    return not (has_sync_bn or has_random_state or scales_loss)


class TwoHalves:
    """The train step, in two halves, of a trainer that was built in the scope of a strategy.

    The first half computes the loss, the gradients and the metrics of one replica. It also joins the
    gradients and the moving statistics of batch normalization into one vector. One collective operation
    then sums this vector over the replicas. The second half passes the summed gradients to the
    optimizer, which updates the variables of the same replica, and divides the summed statistics by the
    number of replicas. Gradients are clipped after the sum, as on one device.

    Args:
        trainer: the trainer, whose optimizer has been built.
        replicas: the number of replicas, over all workers.
        jit_compile: whether XLA compiles the halves.
    """

    def __init__(self, trainer: Trainer, replicas: int, *, jit_compile: bool) -> None:
        self._trainer, self._replicas, self._jit_compile = trainer, replicas, jit_compile
        self._variables = list(trainer.trainable_variables)
        self._statistics = moving_statistics(trainer.network)
        # Each replica needs a function of its own, because a function captures the variables of the
        # replica for which it is traced.
        self._first_halves: dict[int, Callable[..., Any]] = {}
        self._second_halves: list[Callable[..., Any]] = []

    def step(self, data: Any, train_step: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Trains on one replica's part of a batch; returns the metrics since the start of the epoch.

        Args:
            data: the replica's part of the batch.
            train_step: the train step for one device, which uses ``trainer.optimizer``.
        """
        replica = tf.distribute.get_replica_context()
        number = int(tf.get_static_value(replica.replica_id_in_sync_group))
        if number not in self._first_halves:
            self._first_halves[number] = self._compile(
                lambda data: self._gradients_and_statistics(data, train_step)
            )
        vector, logs = self._first_halves[number](data)
        total = replica.all_reduce(tf.distribute.ReduceOp.SUM, vector)
        replica.merge_call(self._update_replicas, args=(total,))
        return logs

    def _gradients_and_statistics(
        self, data: Any, train_step: Callable[[Any], dict[str, Any]]
    ) -> tuple[tf.Tensor, dict[str, Any]]:
        """The first half: returns one vector of gradients and updated statistics, and the metrics."""
        with _collect_gradients(self._trainer) as collected:
            logs = train_step(data)
        gradients = [
            tf.zeros(variable.shape) if gradient is None else gradient
            for gradient, variable in zip(collected, self._variables, strict=True)
        ]
        values = [*gradients, *map(tf.convert_to_tensor, self._statistics)]
        flat = [tf.reshape(tf.cast(value, tf.float32), [-1]) for value in values]
        return tf.concat(flat, 0), logs

    def _update_replicas(self, strategy: tf.distribute.Strategy, total: Any) -> None:
        """Runs the second half on every replica of this process."""
        local_replicas = len(strategy.extended.worker_devices)
        if not self._second_halves:
            self._second_halves = [self._compile(self._update) for _ in range(local_replicas)]
        # `update` calls the lambda for one replica after the other, on the device of this replica.
        functions = iter(self._second_halves)
        strategy.extended.update(
            self._variables[0].value,
            lambda _, vector: next(functions)(vector),
            args=(total,),
            group=False,
        )

    def _update(self, vector: tf.Tensor) -> None:
        """The second half: updates the variables of one replica with the summed ``vector``."""
        shapes = [tuple(variable.shape) for variable in (*self._variables, *self._statistics)]
        parts = tf.split(vector, [math.prod(shape) for shape in shapes])
        values = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        num_gradients = len(self._variables)
        optimizer = self._trainer.optimizer
        with updating_one_replica(optimizer):
            optimizer.apply(values[:num_gradients], self._variables)
        for variable, value in zip(self._statistics, values[num_gradients:], strict=True):
            variable.assign(value / self._replicas)

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return tf.function(function, jit_compile=self._jit_compile, autograph=False)


class _GradientCollector:
    """Stands in for the optimizer in a train step and appends the gradients to a list."""

    def __init__(self, gradients: list[Any]) -> None:
        self._gradients = gradients

    def scale_loss(self, loss: Any) -> Any:
        return loss

    def apply_gradients(self, pairs: Any) -> None:
        self._gradients += [gradient for gradient, _ in pairs]


@contextlib.contextmanager
def _collect_gradients(trainer: Trainer) -> Iterator[list[Any]]:
    """Yields a list to which a train step in the ``with`` block appends its gradients.

    The train step then updates no trainable variable.
    """
    gradients: list[Any] = []
    optimizer = trainer.optimizer
    trainer.optimizer = _GradientCollector(gradients)
    try:
        yield gradients
    finally:
        trainer.optimizer = optimizer
