"""Writes checkpoints and states in a background thread while training continues.

Checkpoint callbacks call ``Saver.save_checkpoint``, which copies the weights. The callback
``SaveState`` then calls ``Saver.save_state``, which copies the state and submits one job to a
``SerialWorker``. The job writes the checkpoints first, and then the state, through ``StateFolder``. On
a GPU an epoch may take less time than this job. The state and the last model of an epoch that ends
while an earlier job still runs are not saved (``callbacks.checkpoints.SavePolicy``).
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from seedtf.compat.keras import KERAS_2, all_variables
from seedtf.errors import DivergedError
from seedtf.files import atomic_path
from seedtf.model.network import save_model
from seedtf.training.background import SerialWorker
from seedtf.training.state import StateFolder, TrainState, capture_state, copy_values
from seedtf.training.trainer import Trainer

__all__ = ["Saver"]


class Saver:
    """Copies variables between two steps and writes the copies while training continues.

    A job first writes the pending checkpoints and then the state. So if a state is on disk, the
    checkpoints of the same step are on disk, too. Only one job runs at a time: ``save_state`` waits for
    the previous job, and raises the error of that job. If an epoch has a checkpoint but no state
    (``skip_state``), the copied weights wait in memory for the next state. At most two copies of the
    weights wait: before a third copy is made, the two are written without a state.

    Args:
        folder: the folder of states.
        averaged: whether checkpoints hold averaged weights, while states hold the trained weights (see
            ``AveragedWeights``). If not, a checkpoint and a state are written from the same copy.
    """

    def __init__(self, folder: StateFolder, *, averaged: bool = False) -> None:
        self._folder = folder
        self._averaged = averaged
        self._writer = SerialWorker()
        self._network: keras.Model | None = None
        self._pending: dict[Path, list[np.ndarray]] = {}
        self._copied_weights: list[np.ndarray] | None = None

    @property
    def busy(self) -> bool:
        """Whether files are being written."""
        return self._writer.busy

    def save_checkpoint(self, network: keras.Model, path: Path) -> None:
        """Copies the weights of the network; the file ``path`` is written with the next state."""
        if KERAS_2:  # Keras 2.15 cannot write copied values, so the file is written now
            save_model(network, path)
            return
        self._network = network
        if self._copied_weights is None:
            copy_ids = {id(weights) for other, weights in self._pending.items() if other != path}
            if len(copy_ids) > 1:  # two copies are pending: write them before a third copy is made
                self._write(None)
            self._copied_weights = copy_values(all_variables(network))
        self._pending[path] = self._copied_weights

    def save_state(self, trainer: Trainer, *, epoch: int, step: int, facts: dict[str, Any]) -> None:
        """Copies the state of a compiled trainer and starts to write it after the checkpoints.

        Raises:
            DivergedError: a value of the previous state is not finite; that state was not written.
            UserError, OSError: the previous state or its checkpoints could not be written.
        """
        self.wait()
        shared = None if self._averaged else self._copied_weights
        self._write(capture_state(trainer, epoch=epoch, step=step, facts=facts, weights=shared))
        self._copied_weights = None  # training goes on and changes the weights

    def skip_state(self) -> None:
        """Makes the next ``save_checkpoint`` copy the weights again.

        Call it at the end of an epoch whose state is not saved, because the next epoch changes the
        weights.
        """
        self._copied_weights = None

    def wait(self) -> None:
        """Waits until the running job has written its files; raises the errors of ``save_state``."""
        self._writer.wait()

    def close(self) -> None:
        """Writes the checkpoints that wait for a state, and ends the thread; never raises.

        If the last job failed, these checkpoints are not written.
        """
        with contextlib.suppress(Exception):
            self.wait()
            self._write(None)
        self._writer.close()

    def _write(self, state: TrainState | None) -> None:
        network, pending = self._network, self._pending
        self._pending = {}

        def write() -> None:
            if state is not None:
                _check_finite(state)
            if network is not None:
                _write_checkpoints(network, pending)
            if state is not None:
                self._folder.write(state)

        self._writer.submit(write)


def _write_checkpoints(network: keras.Model, pending: dict[Path, list[np.ndarray]]) -> None:
    first_paths: dict[int, Path] = {}  # by the id of the list of weights
    for path, weights in pending.items():
        first = first_paths.setdefault(id(weights), path)
        if first == path:
            save_model(network, path, weights)
        else:  # a file with the same weights was written already
            with atomic_path(path) as temporary:
                shutil.copyfile(first, temporary)


def _check_finite(state: TrainState) -> None:
    arrays = [
        array for group in state.arrays.values() for array in group if array.dtype.kind == "f"
    ]
    # If an element of an array is not finite, its minimum or its maximum is not finite. np.isfinite of
    # the whole array would need a boolean array of the same size.
    if not all(np.isfinite([array.min(), array.max()]).all() for array in arrays if array.size):
        raise DivergedError(
            f"epoch {state.epoch + 1}, step {state.step}: a value of the state is not finite; the "
            "last good state is kept: lower --lr, or train with --precision=float32"
        )
