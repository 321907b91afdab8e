"""Trains one network twice on two logical CPU devices: with whole steps, and with steps in two halves.

``seedtf/training/distributed/halves.py`` divides a train step into two halves, because XLA cannot
compile the whole step on several devices. This script writes one line with a JSON object:

- ``difference``: the largest difference between the final variables of the two trainings.
- ``losses``: the loss of each epoch, first with whole steps, then with halves.
- ``equal``: whether, in both trainings, the two replicas ended with equal variables.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.keras import build_optimizer
from seedtf.model.network import build_network
from seedtf.training.distributed.devices import DistributedTrainer
from seedtf.training.optim.optimizers import make_optimizer

DEVICES, STEPS = 2, 3


def train(
    strategy: tf.distribute.Strategy, jit_halves: bool | None
) -> tuple[list[np.ndarray], list[float], bool]:
    """Returns the final variables, the loss of each epoch, and whether the two replicas agree.

    If ``jit_halves`` is None, the steps are whole. If it is a bool, the steps are in two halves, and it
    says whether XLA compiles them.
    """
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
        trainer = DistributedTrainer(network)
        trainer.jit_halves = jit_halves
        optimizer = make_optimizer(
            "adamw", 1e-2, averaged_from=0, steps_per_epoch=STEPS, weight_decay=0.05
        )
        trainer.compile_for(optimizer, jit_compile=False)
        build_optimizer(optimizer, trainer.trainable_variables)
    draw = np.random.default_rng(0)
    images = draw.uniform(0, 255, (24, 16, 16, 3)).astype(np.float32)
    labels = (np.arange(24) % 3).astype(np.int32)

    def make_batches(context: Any) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4).repeat()

    batches = strategy.distribute_datasets_from_function(make_batches)
    history = trainer.fit(batches, steps_per_epoch=STEPS, epochs=2, verbose=0, shuffle=False)
    assert (trainer._halves is not None) is (jit_halves is not None)
    copies = [
        [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        for variable in network.variables
    ]
    replicas_agree = all(np.array_equal(first, second) for first, second in copies)
    return [first for first, _ in copies], history.history["loss"], replicas_agree


def main(_: list[str]) -> None:
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * DEVICES,
    )
    # Both trainings use one strategy: a second one would reuse the numbers of the first one's
    # collective operations.
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(DEVICES)])
    whole, whole_losses, whole_equal = train(strategy, None)
    halved, halved_losses, halved_equal = train(strategy, False)
    result = {
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(whole, halved, strict=True)),
        "losses": [whole_losses, halved_losses],
        "equal": whole_equal and halved_equal,
    }
    sys.stdout.write(json.dumps(result) + "\n")
