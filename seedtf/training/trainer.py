"""``Trainer``: a model that trains the network, with preprocessing inside the train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from seedtf.training.optim.ema import MovingAverage
from seedtf.training.optim.losses import CrossEntropy, accuracy_metric

__all__ = ["Prepare", "Trainer"]

Prepare = Callable[[Any], Any]


class Trainer(keras.Model):
    """Trains ``network`` without changing its structure; only ``network`` is ever saved.

    Attributes:
        network: the trained model; float32 ``[B, S, S, 3]`` in 0–255 -> probabilities ``[B, K]``.
        prepare: the preprocessing of a training batch inside the train step, or None.
        average: the exponential moving average that is updated at every step, or None.
    """

    def __init__(self, network: keras.Model, prepare: Prepare | None = None) -> None:
        """Wraps a network.

        Args:
            network: a built model.
            prepare: turns a training batch of the pipeline into ``(images, labels)`` or ``(images,
                labels, weights)``; compiled into the train step. None if the pipeline already
                yields these. It is never applied to validation batches.
        """
        super().__init__(name="trainer")
        self.network = network
        self.prepare = prepare
        self.average: MovingAverage | None = None
        self.build(network.input_shape)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Calls the network; the images may have another size than the network's input."""
        if images.shape[1:] == self.network.input_shape[1:]:
            return self.network(images, training=training)
        # Called as a layer, a functional model refuses another size.
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
        """Runs one update; returns the metrics so far."""
        logs = super().train_step(data if self.prepare is None else self.prepare(data))
        if self.average is not None:
            self.average.update()
        return logs
