"""Stopping when validation no longer improves."""

from __future__ import annotations

import math

import keras

__all__ = ["Patience"]


class Patience(keras.callbacks.Callback):
    """Stops training once ``val_loss`` has not reached a new low for ``epochs`` epochs.

    Args:
        epochs: how many epochs without a new low to allow, at least 1.
        best: the lowest ``val_loss`` of an interrupted run that goes on here.
        best_epoch: the 1-based epoch it belongs to; 0 for none.
        completed_epochs: epochs that run has completed; patience may be at its end already.

    Attributes:
        reason: why training was stopped; empty while it was not.
    """

    def __init__(
        self, epochs: int, *, best: float = math.inf, best_epoch: int = 0, completed_epochs: int = 0
    ) -> None:
        super().__init__()
        self._epochs = epochs
        self._best = best
        self._best_epoch = best_epoch
        self.reason = ""
        self._look(completed_epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares, and stops training when patience is at its end."""
        value = float((logs or {}).get("val_loss", math.nan))
        if value < self._best:
            self._best, self._best_epoch = value, epoch + 1
        self._look(epoch + 1)
        if self.reason:
            self.model.stop_training = True

    def _look(self, completed_epochs: int) -> None:
        if completed_epochs - self._best_epoch >= self._epochs:
            self.reason = f"no new low of val_loss since epoch {self._best_epoch}"
