"""Records a run in several trackers, each in a thread of its own, so that training does not wait."""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedtf.errors import first_line
from seedtf.files import write_text
from seedtf.report import report, warn
from seedtf.runs.paths import RunPaths
from seedtf.training.trackers.dvclive import DvcliveTracker
from seedtf.training.trackers.mlflow import MlflowTracker
from seedtf.training.trackers.tensorboard import TensorBoardTracker
from seedtf.training.trackers.tracker import INTERRUPTED, TrackedRun, Tracker
from seedtf.training.trackers.trackio import TrackioTracker
from seedtf.training.trackers.wandb import WandbTracker

__all__ = ["TrackerGroup", "attach_files"]

_CLASSES: dict[str, type[Tracker]] = {
    "dvclive": DvcliveTracker,
    "mlflow": MlflowTracker,
    "tensorboard": TensorBoardTracker,
    "trackio": TrackioTracker,
    "wandb": WandbTracker,
}
# How long to wait for a tracker: when training starts, when training ends, and when a signal ends it.
_START_SECONDS, _END_SECONDS, _STOP_SECONDS = 45, 120, 20


class TrackerGroup:
    """Records one run in several trackers. A tracker that fails is left out after one warning line.

    The file ``trackers.json`` in the folder of the run keeps the values that identify the run in each
    tracker. So if the run is resumed, it is still one run in the tracker. When a tracker starts, it
    gets the completed epochs that it does not have yet.

    Args:
        names: the names of the trackers, such as ``mlflow``.
        run: the run to record. If the run is a trial of a search, this class sets ``parent_search`` for
            each tracker.
        make_tracker: creates the tracker with the given name; tests pass another function.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: TrackedRun,
        make_tracker: Callable[[str], Tracker] = lambda name: _CLASSES[name](),
    ) -> None:
        self._file, self._lock = RunPaths(run.folder).trackers, threading.Lock()
        self._saved = _read_saved(self._file)
        # If the run is a trial of a search, the search has saved its own values one folder above.
        saved_by_search = _read_saved(RunPaths(run.folder.parent).trackers)
        self._threads = []
        for name in names:
            tracked_run = replace(run, parent_search=saved_by_search.get(name, {}))
            self._threads.append(
                _TrackerThread(name, make_tracker(name), tracked_run, self._saved, self._save)
            )

    def start(self) -> None:
        """Starts all trackers, and waits at most 45 s for each."""
        for thread in self._threads:
            thread.submit(thread.start)
        self._wait(_START_SECONDS)

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch, counted from 1, without waiting for the trackers."""
        for thread in self._threads:
            thread.log_metrics(epoch, metrics)

    def finish(self, ending: str, files: Sequence[Path] = ()) -> None:
        """Sends ``files`` and ends the run in all trackers.

        Files that do not exist are left out. No files are sent if the run was interrupted, because it
        can be resumed.

        Args:
            ending: ``finished``, ``interrupted``, ``failed``, or why training ended early.
            files: images and other files of the run.
        """
        found = [path for path in files if path.is_file()]
        for thread in self._threads:
            if found and ending != INTERRUPTED:
                thread.submit(functools.partial(thread.tracker.log_files, found))
            thread.submit(functools.partial(thread.tracker.finish, ending))
        self._wait(_STOP_SECONDS if ending == INTERRUPTED else _END_SECONDS)

    def attach(self, files: Sequence[Path], prefix: str) -> None:
        """Adds files to a run that has ended; waits at most 120 s for each tracker.

        ``prefix`` is passed to ``Tracker.log_files``.
        """
        for thread in self._threads:
            thread.submit(functools.partial(thread.attach, files, prefix))
        self._wait(_END_SECONDS)

    def _wait(self, seconds: float) -> None:
        for thread in self._threads:
            thread.wait(seconds)

    def _save(self, name: str, values: Mapping[str, Any]) -> None:
        with self._lock:
            self._saved[name] = dict(values)
            write_text(self._file, json.dumps(self._saved, indent=1) + "\n")


class _TrackerThread:
    """A tracker, the thread that calls it, and the queue of calls that are still to be made."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        run: TrackedRun,
        saved: Mapping[str, dict[str, Any]],
        save: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.name, self.tracker, self._run, self._save = name, tracker, run, save
        # The values that identify the run in the tracker, and the last epoch that was logged.
        self._values: dict[str, Any] = saved.get(name, {})
        self._jobs: queue.SimpleQueue[Callable[[], None] | threading.Event] = queue.SimpleQueue()
        self._failed = False
        # A daemon thread, because a server that does not answer must not keep the process alive.
        threading.Thread(target=self._work, name=f"track-{name}", daemon=True).start()

    def start(self) -> None:
        self._values = self.tracker.start(self._run, self._values)
        self._save(self.name, self._values)
        report("track", f"{self.name}: {self.tracker.place}")
        for row in self._run.rows:
            metrics = {name: value for name, value in row.items() if name != "epoch"}
            self._log(int(row["epoch"]), metrics)

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.submit(lambda: self._log(epoch, metrics))

    def attach(self, files: Sequence[Path], prefix: str) -> None:
        self.tracker.reopen(self._run, self._values)
        self.tracker.log_files(files, prefix)
        self.tracker.finish("")

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def wait(self, seconds: float) -> None:
        """Waits until all jobs so far are done; after ``seconds`` the tracker counts as failed."""
        done = threading.Event()
        self._jobs.put(done)
        if not self._failed and not done.wait(seconds):
            self._give_up(f"has not answered for {seconds:g} s")

    def _log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch > self._values.get("last", 0):
            self.tracker.log_metrics(epoch, metrics)
            self._values["last"] = epoch
            self._save(self.name, self._values)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if isinstance(job, threading.Event):
                job.set()
                continue
            if self._failed:
                continue
            try:
                job()
            except BaseException as error:  # training continues, whatever a tracker raises
                self._give_up(f"failed ({first_line(error)})")

    def _give_up(self, cause: str) -> None:
        """Warns once that the tracker is left out; its later jobs are not run."""
        if not self._failed:
            self._failed = True
            with contextlib.suppress(Exception):  # the output may be closed
                text = f"--track={self.name}: {cause}; going on without it"
                warn(text, after_progress=sys.stdout.isatty())


def attach_files(run_dir: Path, files: Sequence[Path], prefix: str) -> None:
    """Adds files to a run that has ended, in every tracker that recorded it.

    If a tracker fails, one warning line is printed.

    Args:
        run_dir: the folder of the run. If the run was not tracked, nothing happens.
        files: files that exist.
        prefix: precedes the names of these files in the trackers, such as ``report``.
    """
    names = [name for name in _read_saved(RunPaths(run_dir).trackers) if name in _CLASSES]
    if names:
        TrackerGroup(names, TrackedRun(run_dir, run_dir.resolve().name)).attach(files, prefix)


def _read_saved(file: Path) -> dict[str, dict[str, Any]]:
    """The content of ``trackers.json``; empty if there is none, or if it is damaged."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}
