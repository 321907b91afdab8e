"""The results of a trial of a search. Nothing here imports TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedtf.runs.history import best_epoch

__all__ = [
    "DIVERGED",
    "DONE",
    "FAILED",
    "OUTCOMES",
    "PRUNED",
    "History",
    "TrialRow",
    "best_row",
    "lowest_loss_row",
]

DONE, PRUNED, DIVERGED, FAILED = "done", "pruned", "diverged", "failed"
OUTCOMES = (DONE, PRUNED, DIVERGED, FAILED)
"""How a trial can end."""

History = Sequence[Mapping[str, float]]
"""The rows of a history.csv, one for each epoch (see ``runs.history.read_history``)."""


@dataclass(frozen=True)
class TrialRow:
    """A trial that has ended.

    Attributes:
        number: the number of the trial in the study, from 0.
        outcome: one of ``OUTCOMES``.
        val_loss: the validation loss of the best epoch. For a pruned trial, it is the loss of the last
            epoch that was reported to Optuna. NaN if there is no such epoch or the loss is not finite.
        val_accuracy: the validation accuracy of the same epoch; NaN if ``val_loss`` is NaN.
        epochs: the number of trained epochs; for a pruned trial, up to the last reported epoch.
        seconds: the time of the training, summed over all processes if the trial was interrupted.
        values: the values of the searched flags, as they were passed to the run.
    """

    number: int
    outcome: str
    val_loss: float
    val_accuracy: float
    epochs: int
    seconds: float
    values: Mapping[str, Any]


def best_row(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The ``done`` trial with the lowest validation loss; None if no trial is done."""
    done = [row for row in rows if row.outcome == DONE]
    return min(done, key=lambda row: (row.val_loss, row.number)) if done else None


def lowest_loss_row(history: History) -> Mapping[str, float] | None:
    """The first row with the lowest finite validation loss; None if no loss is finite.

    Example:
        >>> lowest_loss_row([{"epoch": 1, "val_loss": 0.9}, {"epoch": 2, "val_loss": 0.4}])
        {'epoch': 2, 'val_loss': 0.4}
    """
    finite = [row for row in history if math.isfinite(row["val_loss"])]
    best = best_epoch(finite)
    return next((row for row in finite if row["epoch"] == best), None)
