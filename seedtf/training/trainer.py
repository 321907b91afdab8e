"""``Trainer``: the network in training, with what is done to a batch on the device before the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["Prepare", "Trainer"]

Prepare = Callable[[Any], Any]


class Trainer(keras.Model):
    """Trains a network that stays as it is: only ``network`` is ever saved.

    Attributes:
        network: what is trained; float32 ``[B, S, S, 3]`` in 0–255 -> probabilities ``[B, K]``.
        prepare: what the step does to a batch first, or None.
    """

    def __init__(self, network: keras.Model, prepare: Prepare | None = None) -> None:
        """Wraps a network.

        Args:
            network: a built model.
            prepare: turns a training batch of the pipeline into ``(images, labels)``; compiled into
                the train step. None when the pipeline gives these already. Validation batches are
                never prepared.
        """
        super().__init__(name="trainer")
        self.network = network
        self.prepare = prepare
        self.build(network.input_shape)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """The network's answer."""
        return self.network(images, training=training)

    def compile_for(self, optimizer: keras.optimizers.Optimizer, *, jit_compile: bool) -> None:
        """Prepares training with the loss and the metric of every run: cross-entropy, accuracy."""
        self.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=jit_compile,
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update; returns the metrics so far."""
        return super().train_step(data if self.prepare is None else self.prepare(data))
