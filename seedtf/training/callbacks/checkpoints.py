"""Saving the model: whenever it is the best so far, and at the end of every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import keras

__all__ = ["BestCheckpoint", "LastCheckpoint"]

Save = Callable[[keras.Model, Path], None]


class BestCheckpoint(keras.callbacks.Callback):
    """Saves the model whenever ``val_loss`` reaches a new low; an equal value or NaN is none.

    Args:
        path: where the model goes.
        save: writes a model to a path, atomically.
        best: the lowest ``val_loss`` of an interrupted run that goes on here.
        best_epoch: the 1-based epoch it belongs to; 0 for none.

    Attributes:
        best: the lowest ``val_loss`` so far; infinite before there is one.
        best_epoch: its 1-based epoch; 0 before there is one.
    """

    def __init__(
        self, path: Path, save: Save, *, best: float = math.inf, best_epoch: int = 0
    ) -> None:
        super().__init__()
        self._path = path
        self._save = save
        self.best = best
        self.best_epoch = best_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares and saves."""
        value = float((logs or {}).get("val_loss", math.nan))
        if value < self.best:  # never true of NaN
            self.best, self.best_epoch = value, epoch + 1
            self._save(self.model, self._path)


class LastCheckpoint(keras.callbacks.Callback):
    """Saves the model at the end of every epoch, over the one before.

    Args:
        path: where the model goes.
        save: writes a model to a path, atomically.
    """

    def __init__(self, path: Path, save: Save) -> None:
        super().__init__()
        self._path = path
        self._save = save

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Saves."""
        self._save(self.model, self._path)
