"""Keras 3 under a distribution strategy: the private names that training on several devices needs.

Each docstring states the function's purpose, the versions it was tried with and the test that fails
when Keras changes. Keras is imported inside the functions, so that importing this module is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["OneReplicaBuild", "run_on_replicas", "updating_one_replica"]


def run_on_replicas(strategy: Any, step: Callable[[Any], Any], data: Any) -> Any:
    """Runs a step on every replica of this process, and returns the mean of the results.

    ``fit`` of Keras combines the results in the same way.

    Args:
        strategy: a ``tf.distribute.Strategy``.
        step: takes one replica's part of a batch and returns its metrics.
        data: a distributed batch.

    Tried with Keras 3.15.1; tested by
    ``test_all_workers_end_with_the_weights_of_one_process``.
    """
    from keras.src.backend.tensorflow.trainer import reduce_per_replica

    return reduce_per_replica(strategy.run(step, args=(data,)), strategy, reduction="auto")


@contextmanager
def updating_one_replica(optimizer: Any) -> Iterator[None]:
    """Inside the ``with`` block, ``optimizer.apply`` changes the variables of one replica only.

    Keras's optimizers for TensorFlow sum the gradients of all replicas and update all replicas.
    TensorFlow refuses that inside ``strategy.extended.update``, which calls a function for one replica
    after the other. So the block replaces two methods by those of the optimizer class that is common to
    all backends. The common methods neither sum gradients nor update other replicas.

    Args:
        optimizer: a built optimizer of Keras 3 without loss scaling.

    Tried with Keras 3.15.1; tested by ``test_two_halves_train_as_the_whole_step_does``.
    """
    from keras.src.backend.tensorflow.optimizer import TFOptimizer
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    names = ("_backend_update_step", "_apply_weight_decay")
    replaced = [
        name for name in names if getattr(type(optimizer), name) is getattr(TFOptimizer, name)
    ]
    for name in replaced:
        object.__setattr__(optimizer, name, getattr(BaseOptimizer, name).__get__(optimizer))
    try:
        yield
    finally:
        for name in replaced:
            object.__delattr__(optimizer, name)


class OneReplicaBuild:
    """A mixin for ``keras.Model`` that creates the variables of metrics from one replica's batch.

    Under a distribution strategy, Keras 3 creates the variables of metrics from a distributed batch,
    whose values are ``PerReplica`` objects. Metrics do not accept such objects (keras-team/keras issue
    20585). Keras also creates the variables again before every validation; this class does so once.

    Tried with Keras 3.15.1; ``test_keras_still_needs_the_workarounds`` fails when Keras has fixed
    the issue.
    """

    _metrics_built = False

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)  # type: ignore[misc]
        self._metrics_built = False

    def prepare_one_replica(self, batch: Any) -> Any:
        """The inputs of the loss and the metrics, from one replica's part of a batch.

        A subclass overrides this method if its train step changes the batch first.
        """
        return batch

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if self._metrics_built:
            return
        import keras

        strategy = self.distribute_strategy  # type: ignore[attr-defined]
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            first_replica = keras.tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
            data_batch = self.prepare_one_replica(first_replica)
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)  # type: ignore[attr-defined]
        self._metrics_built = True
