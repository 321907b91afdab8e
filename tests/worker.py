"""Runs one process of a distributed run; the arguments are CPUS WEIGHTS ARGUMENT….

The process splits the CPU into CPUS logical devices and runs ``seedtf ARGUMENT…``. After training it
writes its copy of the network's variables to the file WEIGHTS. If PROBE is in the environment, it also
writes the results of ``fault_of_keras`` and ``statistics_of_replicas`` to a file with the name of
WEIGHTS and the suffix ``.json``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from figures import replace_figures

from seedtf.commands.main import main as run_command_line
from seedtf.model.batch_norm import FusedBatchNormalization, moving_statistics
from seedtf.training.distributed.devices import DistributedTrainer
from seedtf.training.session import Session
from seedtf.training.trainer import Trainer

original_train = Session.train


def main(arguments: list[str]) -> int:
    cpus, weights, *command = arguments
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(cpus),
    )

    def train_and_write(session: Session) -> str:
        stopped = original_train(session)
        np.savez(weights, *(variable.numpy() for variable in session.network.variables))
        if "PROBE" in os.environ:
            probes = {name: fault_of_keras(session, name) for name in ("metrics", "logs")}
            probes["statistics"] = statistics_of_replicas(session)
            Path(weights).with_suffix(".json").write_text(json.dumps(probes))
        return stopped

    Session.train = train_and_write
    replace_figures()
    return run_command_line(command)


def small_network() -> keras.Model:
    """A network with batch normalization for 11 classes; it is traced faster than the tiny network."""
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(FusedBatchNormalization()(inputs))
    return keras.Model(inputs, keras.layers.Dense(11, activation="softmax")(pooled))


def fault_of_keras(session: Session, part: str) -> str:
    """The error that Keras raises in a step without seedtf's workaround; empty if it raises none.

    ``part`` is ``metrics`` or ``logs``, the part of Keras that needs the workaround.
    """
    method = "_maybe_symbolic_build" if part == "metrics" else "train_step"
    methods: dict[str, Any] = {method: getattr(Trainer, method)}
    with session.devices.scope():
        trainer = type("WithoutWorkaround", (DistributedTrainer,), methods)(small_network())
        trainer.compile(loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    try:
        batches = session.devices.distribute(lambda: session.batches.train_on_host(16, 0))
        trainer.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[-2000:]
    return ""


def statistics_of_replicas(session: Session) -> list[list[float]]:
    """Moving statistics after two steps in which each replica normalized its own part of a batch."""
    with session.devices.scope():
        network = small_network()
    trainer = session.devices.make_trainer(network)
    with session.devices.scope():
        trainer.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    batches = session.devices.distribute(lambda: session.batches.train_on_host(16, 0))
    trainer.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0)
    return [variable.numpy().tolist() for variable in moving_statistics(network)]
