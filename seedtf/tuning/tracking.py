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
    """Records a search in each tracker, as a run that is the parent of the runs of all trials.

    Each trial is a run of ``seedtf train``, which finds its parent through the folder of the search.
    The run of a trial has metrics for each epoch. The parent run has metrics for each trial; the
    metrics of trial n are logged as those of epoch n + 1. Without ``--track``, all methods do nothing.

    Args:
        config: the flags that are the same in all trials.
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
        """Opens the parent run.

        Args:
            rows: the trials that ended in earlier processes.
        """
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
        """Records a trial that has just ended.

        Args:
            number: the number of the trial, from 0.
            rows: all trials that have ended.
        """
        if self._group is not None:
            row = next(row for row in rows if row.number == number)
            values = _metrics(rows, row)
            self._group.log_metrics(int(values.pop("epoch")), values)

    def finish(self, files: Sequence[Path], *, interrupted: bool = False) -> None:
        """Ends the parent run.

        Args:
            files: the tables and images of the search, which the trackers also store.
            interrupted: whether the search was stopped before its end.
        """
        if self._group is not None:
            self._group.finish(INTERRUPTED if interrupted else FINISHED, files)


def _metrics(rows: Sequence[TrialRow], row: TrialRow) -> dict[str, Any]:
    """The metrics of a trial, and the lowest loss of the ``done`` trials up to this number."""
    best = best_row([other for other in rows if other.number <= row.number])
    return {
        "epoch": row.number + 1,
        "val_loss": row.val_loss,
        "val_accuracy": row.val_accuracy,
        "best_val_loss": best.val_loss if best else math.nan,
        "epochs": float(row.epochs),
        "seconds": row.seconds,
    }
