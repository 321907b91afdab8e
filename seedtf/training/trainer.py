"""``Trainer``: a ``keras.Model`` that trains another network, with preprocessing in the train step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import KERAS_2
from seedtf.training.optim.ema import MovingAverage
from seedtf.training.optim.losses import CrossEntropy, accuracy_metric
from seedtf.training.optim.step_rates import StepRates

__all__ = ["LazyMetric", "Prepare", "Trainer"]

Prepare = Callable[[Any], Any]
"""Turns a batch of the pipeline into the images and labels of the train step; see ``Trainer``."""

_METRIC_NAMES = ("accuracy", "loss")


class LazyMetric:
    """A metric whose value stays on the device until ``numpy`` is called.

    After every step, before any callback, Keras converts each metric to a number if possible, which
    waits for the device. This class cannot be converted, so Keras does not wait.

    Args:
        value: a scalar tensor.
    """

    def __init__(self, value: tf.Tensor) -> None:
        self._value = value

    def numpy(self) -> Any:
        """Waits for the device and returns the value."""
        return self._value.numpy()


class Trainer(keras.Model):
    """Trains ``network`` without changing its structure; only ``network`` is saved.

    Attributes:
        network: the model that is trained, from images float32 ``[B, S, S, 3]`` in 0–255 to
            probabilities ``[B, K]``.
        prepare: preprocesses a training batch in the train step; None if nothing is to be done.
        average: the exponential moving average of the weights, which the train step updates; None if
            no average is kept.
        rates: the learning rates of an epoch, from which each train step sets its own rate; None if a
            callback sets the rates.
        steps_per_call: the largest number of steps in a call of the train function. If it is above 1,
            the function takes elements of ``device_chunks``, and returns for each metric its values
            after each step, float32 ``[steps_per_call]``.
        lazy_metrics: whether train and test functions return each metric as a ``LazyMetric``.
        pad_validation_to: shorter validation batches are filled up to this number of images, so that
            XLA compiles the network for one shape only; 0 if they are not filled up.
    """

    def __init__(self, network: keras.Model, prepare: Prepare | None = None) -> None:
        """Wraps a network.

        Args:
            network: a built model.
            prepare: turns a training batch of the pipeline into ``(images, labels)`` or ``(images,
                labels, weights)``. It is part of the train step, and is not applied to validation
                batches. None if the pipeline itself yields these tuples.
        """
        super().__init__(name="trainer")
        self.network = network
        self.prepare = prepare
        self.average: MovingAverage | None = None
        self.rates: StepRates | None = None
        self.steps_per_call = 1
        self.lazy_metrics = False
        self.pad_validation_to = 0
        self._compiled_call: Callable[[Any], Any] | None = None
        self.train_function: Any = None
        self.test_function: Any = None
        self.build(network.input_shape)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Calls the network; the images may have another size than its input."""
        if self.pad_validation_to and training is False:
            return self._call_padded(images)
        if images.shape[1:] == self.network.input_shape[1:]:
            return self.network(images, training=training)
        # `network(images)` would check the input and refuse another size.
        return self.network.call(images, training=training)

    def compile_for(self, optimizer: keras.optimizers.Optimizer, *, jit_compile: bool) -> None:
        """Compiles with the loss and the metric of every run: cross-entropy and accuracy."""
        self.compile(
            optimizer=optimizer,
            loss=CrossEntropy(),
            metrics=[accuracy_metric()],
            jit_compile=jit_compile,
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one batch; returns the metrics since the start of the epoch."""
        if self.rates is not None:
            self.rates.set_next(self.optimizer)
        logs = super().train_step(data if self.prepare is None else self.prepare(data))
        if self.average is not None:
            self.average.update()
        return logs

    def train_steps(self, data: Any) -> dict[str, Any]:
        """Trains on all batches of an element of ``device_chunks``.

        Returns:
            For each metric, its values after each step, float32 ``[steps_per_call]``.
        """
        batches, num_batches = data
        max_steps = self.steps_per_call

        def run_one(step: tf.Tensor, logs: dict[str, Any]) -> tuple[tf.Tensor, dict[str, Any]]:
            batch = tf.nest.map_structure(lambda values: values[step], batches)
            metrics = self.train_step(batch)
            return step + 1, {name: logs[name].write(step, metrics[name]) for name in _METRIC_NAMES}

        empty = {
            name: tf.TensorArray(tf.float32, max_steps, element_shape=[]) for name in _METRIC_NAMES
        }
        _, logs = tf.while_loop(
            lambda step, _: step < num_batches,
            run_one,
            (tf.constant(0), empty),
            parallel_iterations=1,
            maximum_iterations=max_steps,
        )
        return {name: values.stack() for name, values in logs.items()}

    def make_train_function(self, force: bool = False) -> Callable[[Any], Any] | None:
        """Makes ``train_function``, which takes an iterator over batches and runs one or more steps.

        Keras's own function returns an ``Optional``. To see whether it has a value, Keras copies a byte
        from the device, which waits for all steps that are queued there. So the host would wait at
        every step, and then the device would wait while the host prepares the next step.
        """
        if KERAS_2 or self.run_eagerly:
            return super().make_train_function(force)
        if self.train_function is None or force:
            steps = self.train_step if self.steps_per_call == 1 else self.train_steps
            self.train_function = self._compile_step(steps, self.jit_compile)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Callable[[Any], Any] | None:
        """Makes ``test_function``, which takes an iterator over batches and runs one step.

        Like ``train_function``, it does not let the host wait for the device.
        """
        if KERAS_2 or self.run_eagerly:
            return super().make_test_function(force)
        if self.test_function is None or force:
            # With `pad_validation_to`, only the network is compiled, in `_call_padded`.
            jit_compile = self.jit_compile and not self.pad_validation_to
            self.test_function = self._compile_step(self.test_step, jit_compile)
        return self.test_function

    def run_step(self, step: Callable[[Any], Any], data: Any) -> Any:
        """Runs a step on a batch; ``DistributedTrainer`` runs it on several devices."""
        return step(data)

    def _compile_step(self, step: Callable[[Any], Any], jit_compile: bool) -> Callable[[Any], Any]:
        """Returns a function that takes an iterator and runs ``step`` on its next batch."""

        @functools.wraps(step)  # graphs, profiles and XLA's modules then have the name of the step
        def run(data: Any) -> Any:
            return self.run_step(step, data)

        on_batch = tf.function(run, jit_compile=jit_compile, autograph=False, reduce_retracing=True)
        on_next = tf.function(
            lambda batches: on_batch(batches.get_next()), autograph=False, reduce_retracing=True
        )

        def run_next(batches: Any) -> Any:
            # `train_on_batch` of Keras passes a Python generator, which a graph cannot take.
            return on_next(batches) if hasattr(batches, "get_next") else on_batch(next(batches))

        if not self.lazy_metrics:
            return run_next
        return lambda batches: {
            name: LazyMetric(value) for name, value in run_next(batches).items()
        }

    def _call_padded(self, images: Any) -> Any:
        """The predictions of ``images``, computed in a batch of ``pad_validation_to`` images."""
        if self._compiled_call is None:

            def network(images: tf.Tensor) -> tf.Tensor:
                return self.network(images, training=False)

            self._compiled_call = tf.function(network, jit_compile=True, autograph=False)
        num_images, size = tf.shape(images)[0], self.pad_validation_to
        padded = tf.pad(images, [[0, size - num_images], [0, 0], [0, 0], [0, 0]])
        padded = tf.ensure_shape(padded, [size, *images.shape[1:]])
        return self._compiled_call(padded)[:num_images]
