"""Validating and saving the moving average in place of the weights as trained."""

from __future__ import annotations

import keras

from seedtf.training.optim.ema import MovingAverage

__all__ = ["EmaWeights"]


class EmaWeights(keras.callbacks.Callback):
    """Puts the average into the network while it is validated and saved, then the weights back.

    So ``best.keras`` and ``last.keras`` hold what was validated. Stands behind the checkpoints and
    before ``SaveState``, because a state holds the weights as trained and the average apart.

    Args:
        average: follows the network.
    """

    def __init__(self, average: MovingAverage) -> None:
        super().__init__()
        self._average = average
        self._swapped = False

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Puts the average in."""
        self._swap()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Puts the weights as trained back."""
        if self._swapped:
            self._swap()

    def _swap(self) -> None:
        self._average.swap()
        self._swapped = not self._swapped
