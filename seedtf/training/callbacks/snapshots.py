"""Keeping the network at the bottom of every cycle of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import keras

__all__ = ["Snapshots", "snapshot_epochs"]

Save = Callable[[keras.Model, Path], None]


def snapshot_epochs(cycle_epochs: float, epochs: int, *, per_step: bool) -> list[int]:
    """The 1-based epochs whose end is kept: those in which a cycle is at its lowest rate.

    Where a cycle ends within an epoch, a rate set at every step has risen again when that epoch ends,
    so the epoch before is kept; a rate set once an epoch is still that of the cycle's end. A cycle
    that the end of training cuts short leaves none. Each is one more file of the size of
    ``last.keras``.

    Args:
        cycle_epochs: the length of a cycle in epochs, above 0; need not be whole.
        epochs: the length of training.
        per_step: whether the rate is set at every step.
    """
    # to nine places, so that 30 × 0.1 is 3
    ends = (round(n * cycle_epochs, 9) for n in range(1, math.floor(epochs / cycle_epochs) + 2))
    whole = math.floor if per_step else math.ceil
    return sorted({whole(end) for end in ends if end <= epochs} - {0})


class Snapshots(keras.callbacks.Callback):
    """Saves ``snapshot-<epoch>.keras`` at the end of each of ``snapshot_epochs``, and removes none.

    After Huang et al., Snapshot Ensembles, arXiv 1704.00109: the networks at the bottoms of one cyclic
    run err differently, so that the mean of their answers is better than each. Only the number of the
    epoch decides, so a run that goes on keeps and adds what an uninterrupted one would. A run that
    stops early has the cycles that it finished.

    Args:
        path_of: the path of the snapshot of a 1-based epoch.
        save: writes a model to a path, atomically.
        epochs: from ``snapshot_epochs``.
    """

    def __init__(self, path_of: Callable[[int], Path], save: Save, epochs: Iterable[int]) -> None:
        super().__init__()
        self._path_of = path_of
        self._save = save
        self._kept = frozenset(epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves where a cycle ends."""
        if epoch + 1 in self._kept:
            self._save(self.model, self._path_of(epoch + 1))
