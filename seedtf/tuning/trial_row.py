"""What is known of a trial that has ended, and the best of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TrialRow", "best_row"]


@dataclass(frozen=True)
class TrialRow:
    """A trial that has ended.

    Attributes:
        number: from 0, within the study.
        outcome: done, pruned, diverged or failed.
        val_loss, val_accuracy: of its best epoch; of the last one where it was pruned; NaN where there
            is none.
        epochs: epochs trained.
        seconds: time its processes ran.
        values: the searched flags as the run got them.
    """

    number: int
    outcome: str
    val_loss: float
    val_accuracy: float
    epochs: int
    seconds: float
    values: Mapping[str, Any]


def best_row(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The one with the lowest validation loss of those trained to their end; None before one is."""
    done = [row for row in rows if row.outcome == "done"]
    return min(done, key=lambda row: (row.val_loss, row.number)) if done else None
