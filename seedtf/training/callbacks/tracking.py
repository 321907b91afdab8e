"""``Track``, the callback of ``--track``: records each epoch and the end of a run in its trackers."""

from __future__ import annotations

import keras

from seedtf.config.train_config import TrainConfig
from seedtf.runs.paths import RunPaths
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.trackers.group import TrackerGroup
from seedtf.training.trackers.tracker import TrackedRun, tracked_flags

__all__ = ["Track"]


class Track(keras.callbacks.Callback):
    """Logs the metrics, the learning rate and the duration of each epoch in the trackers of a run.

    Call ``finish`` after the last ``fit``, because Keras does not call it.

    Args:
        config: the flags; ``track`` names at least one tracker.
        paths: the run folder.
        log: has the history of the run; must come before this callback in the list.
    """

    def __init__(self, config: TrainConfig, paths: RunPaths, log: HistoryLog) -> None:
        super().__init__()
        self._config, self._paths, self._log = config, paths, log
        self._group: TrackerGroup | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._group is None:  # a training may consist of several fit calls
            root = self._paths.root
            run = TrackedRun(
                root, root.resolve().name, tracked_flags(self._config), tuple(self._log.rows)
            )
            self._group = TrackerGroup(self._config.trackers, run)
            self._group.start()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row, timer = self._log.rows[-1], self._log.timer
        metrics = {name: value for name, value in row.items() if name != "epoch"}
        metrics |= {"seconds": timer.seconds, "images_per_second": timer.images_per_second}
        if self._group is not None:
            self._group.log_metrics(int(row["epoch"]), metrics)

    def finish(self, ending: str) -> None:
        """Sends files of the run (figures, tables, flags, versions) and ends the run in every tracker.

        Args:
            ending: how training ended; see ``TrackerGroup.finish``.
        """
        if self._group is not None:
            paths = self._paths
            files = (
                *(paths.curves, paths.planned_lr, paths.augmented),
                *(paths.flags, paths.config, paths.env, paths.classes),
                *(paths.history, paths.timing, paths.split_summary, paths.data_report),
            )
            self._group.finish(ending, files)
