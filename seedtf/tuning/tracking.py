"""Records a search in the trackers of ``--track``, as one parent run of all trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedtf.config.train_config import TrainConfig
from seedtf.training.trackers.group import TrackerGroup
from seedtf.training.trackers.tracker import (
    FINISHED,
    INTERRUPTED,
    TrackedRun,
    check_installed,
    installed_trackers,
    tracked_flags,
)
from seedtf.tuning.space import Dimension
from seedtf.tuning.trial import TrialRow, best_row

__all__ = ["SearchTracking"]


class SearchTracking:
    """The run in each tracker that is the parent of all trials; does nothing without ``--track``.

    Each trial is a run of ``seedtf train`` that finds its parent through the folder of the search. A
    training logs its metrics once an epoch; the parent run logs the metrics of each trial once, with
    n + 1 as the number of the epoch for trial n.

    Args:
        config: the fixed flags.
        space: the searched flags.
        tune_dir: the folder of the search, which exists.
        name: the name of the study.

    Raises:
        UserError: the package of a tracker is not installed.
    """

    def __init__(
        self, config: TrainConfig, space: Sequence[Dimension], tune_dir: Path, name: str
    ) -> None:
        check_installed(config.trackers, installed_trackers() if config.trackers else frozenset())
        self._trackers, self._folder, self._study_name = config.trackers, tune_dir, name
        self._search_space = {dimension.name: str(dimension) for dimension in space}
        self._fixed_flags = {
            flag: value
            for flag, value in tracked_flags(config).items()
            if flag not in self._search_space
        }
        self._group: TrackerGroup | None = None

    def start(self, rows: Sequence[TrialRow]) -> None:
        """Opens the parent run; ``rows`` are the trials that have ended in earlier processes."""
        if not self._trackers:
            return
        past = tuple(_metrics(rows, row) for row in rows)
        flags = {**self._fixed_flags, "search": ", ".join(self._search_space.values())}
        run = TrackedRun(
            self._folder, self._study_name, flags, past, search_space=self._search_space
        )
        self._group = TrackerGroup(self._trackers, run)
        self._group.start()

    def log_trial(self, number: int, rows: Sequence[TrialRow]) -> None:
        """Records trial ``number``, from 0, which has just ended; ``rows`` are all ended trials."""
        if self._group is not None:
            row = next(row for row in rows if row.number == number)
            values = _metrics(rows, row)
            self._group.log_metrics(int(values.pop("epoch")), values)

    def finish(self, files: Sequence[Path], *, interrupted: bool = False) -> None:
        """Ends the parent run; ``files`` are the tables and images of the search."""
        if self._group is not None:
            self._group.finish(INTERRUPTED if interrupted else FINISHED, files)


def _metrics(rows: Sequence[TrialRow], row: TrialRow) -> dict[str, Any]:
    """The metrics of a trial, and the lowest loss of the ``done`` trials up to and including it."""
    best = best_row([other for other in rows if other.number <= row.number])
    return {
        "epoch": row.number + 1,
        "val_loss": row.val_loss,
        "val_accuracy": row.val_accuracy,
        "best_val_loss": best.val_loss if best else math.nan,
        "epochs": float(row.epochs),
        "seconds": row.seconds,
    }
