"""Keeping the network at the bottom of every cycle of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import keras

__all__ = ["Snapshots", "snapshot_epochs"]

Save = Callable[[keras.Model, Path], None]


def snapshot_epochs(cycle_epochs: float, epochs: int) -> list[int]:
    """The 1-based epochs whose end is kept: the last of each cycle, and the last of all.

    A cycle ends in the epoch during which ``floor(epoch / cycle_epochs)`` rises, as in
    ``schedules.cyclic_decay``. Each is one more file of the size of ``last.keras``.

    Args:
        cycle_epochs: the length of a cycle in epochs, above 0; need not be whole.
        epochs: the length of training.
    """
    ends = range(1, epochs + 1)
    return [each for each in ends if each == epochs or _ends_cycle(each, cycle_epochs)]


def _ends_cycle(epoch: int, length: float) -> bool:
    return math.floor(epoch / length) > math.floor((epoch - 1) / length)


class Snapshots(keras.callbacks.Callback):
    """Saves ``snapshot-<epoch>.keras`` at the end of each of ``snapshot_epochs``, and removes none.

    After Huang et al., Snapshot Ensembles, arXiv 1704.00109: the networks at the bottoms of one cyclic
    run err differently, so that the mean of their answers is better than each. Only the number of the
    epoch decides, so a run that goes on keeps and adds what an uninterrupted one would. A run that
    stops early has the cycles that it finished.

    Args:
        folder: where they go.
        save: writes a model to a path, atomically.
        cycle_epochs: the length of a cycle in epochs.
        epochs: the length of training.
    """

    def __init__(self, folder: Path, save: Save, cycle_epochs: float, epochs: int) -> None:
        super().__init__()
        self._folder = folder
        self._save = save
        self._kept = frozenset(snapshot_epochs(cycle_epochs, epochs))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves where a cycle ends."""
        if epoch + 1 in self._kept:
            self._save(self.model, self._folder / f"snapshot-{epoch + 1:04d}.keras")
