"""Writes checkpoints and states in a background thread while training continues.

Checkpoint callbacks call ``Saver.checkpoint``, which only copies the weights. ``SaveState`` then calls
``Saver.state``, which copies the state and hands one job to a ``SerialWorker``: it writes the
checkpoints and then, through ``StateFolder``, the state. On a GPU an epoch can be shorter than that:
the ends of epochs that come meanwhile are not written (``callbacks.checkpoints.SavePolicy``).
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

    The checkpoints and the state of one step are one job, the checkpoints first, so a state on disk
    implies that its checkpoints are on disk too. Only one job runs at a time: the next one waits
    for it, and raises its error. If no state follows a checkpoint (``skip_state``), the copied weights
    are kept until the next state; copies of at most two epochs are kept.

    Args:
        folder: where states are written.
        averaged: whether checkpoints hold other weights than states (see ``AveragedWeights``);
            otherwise one copy of the weights is used for both.
    """

    def __init__(self, folder: StateFolder, *, averaged: bool = False) -> None:
        self._folder = folder
        self._averaged = averaged
        self._writer = SerialWorker()
        self._network: keras.Model | None = None
        self._pending: dict[Path, list[np.ndarray]] = {}
        self._weights: list[np.ndarray] | None = None

    @property
    def busy(self) -> bool:
        """Whether files are being written."""
        return self._writer.busy

    def checkpoint(self, network: keras.Model, path: Path) -> None:
        """Copies the current network; the file is written with the next state."""
        if KERAS_2:  # Keras 2.15 can only write the current values.
            save_model(network, path)
            return
        self._network = network
        if self._weights is None:
            others = {
                id(weights): weights for each, weights in self._pending.items() if each != path
            }
            if len(others) > 1:
                self._write(None)
            self._weights = copy_values(all_variables(network))
        self._pending[path] = self._weights

    def state(self, trainer: Trainer, *, epoch: int, step: int, facts: dict[str, Any]) -> None:
        """Copies the state of a compiled trainer and starts to write it.

        Raises:
            DivergedError: a weight of the previous state is not finite; that state was not written.
            UserError, OSError: the previous state or its checkpoints could not be written.
        """
        self.wait()
        shared = None if self._averaged else self._weights
        self._write(capture_state(trainer, epoch=epoch, step=step, facts=facts, weights=shared))
        self.skip_state()

    def skip_state(self) -> None:
        """Says that training goes on without a state of this moment."""
        self._weights = None

    def wait(self) -> None:
        """Waits until everything that was started is on disk; raises as ``state`` does."""
        self._writer.wait()

    def close(self) -> None:
        """Writes the checkpoints that waited for a state, and ends the thread; never raises."""
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
    written: dict[int, Path] = {}
    for path, weights in pending.items():
        first = written.setdefault(id(weights), path)
        if first == path:
            save_model(network, path, weights)
        else:  # a copy of the same network
            with atomic_path(path) as temporary:
                shutil.copyfile(first, temporary)


def _check_finite(state: TrainState) -> None:
    arrays = [each for group in state.arrays.values() for each in group if each.dtype.kind == "f"]
    # min and max are not finite if any element is not, so no boolean copy is needed.
    if not all(np.isfinite([each.min(), each.max()]).all() for each in arrays if each.size):
        raise DivergedError(
            f"epoch {state.epoch + 1}, step {state.step}: a weight is not finite; the last good "
            "state is kept: lower --lr, or train with --precision=float32"
        )
