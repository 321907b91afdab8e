"""The trackers of one run: each in a thread of its own, so that none delays or ends the training."""

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
# How long training waits for a tracker: when it begins, when it ends, and when a signal ends it.
_START_SECONDS, _END_SECONDS, _STOP_SECONDS = 45, 120, 20


class TrackerGroup:
    """Tells several trackers of one run. A tracker that fails is left out after one warning line.

    What identifies the run in each tracker is kept in ``trackers.json`` in the folder of the run, so
    that a resumed run goes on in the same run of the tracker. Epochs that a tracker already has are not
    logged again, and those of the run that it does not have are added when it starts.

    Args:
        names: the trackers, such as ``mlflow``.
        run: the run that they record; each gets the part of ``study`` that is its own.
        make: returns the tracker of a name; for tests.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: TrackedRun,
        make: Callable[[str], Tracker] = lambda name: _CLASSES[name](),
    ) -> None:
        self._file, self._lock = RunPaths(run.folder).trackers, threading.Lock()
        self._saved = _read_saved(self._file)
        study = _read_saved(RunPaths(run.folder.parent).trackers)
        self._channels = []
        for name in names:
            own = replace(run, study=study.get(name, {}))
            self._channels.append(_Channel(name, make(name), own, self._saved, self._save))

    def start(self) -> None:
        """Opens all trackers, and waits until they are open, or for 45 s."""
        for channel in self._channels:
            channel.submit(channel.start)
        self._wait(_START_SECONDS)

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch, counted from 1, in the background."""
        for channel in self._channels:
            channel.log_metrics(epoch, metrics)

    def finish(self, ending: str, files: Sequence[Path] = ()) -> None:
        """Sends the files that exist, unless the run will be resumed, and ends the run everywhere.

        Args:
            ending: ``finished``, ``interrupted``, ``failed``, or why it ended early.
            files: images and other files of the run.
        """
        found = [path for path in files if path.is_file()]
        for channel in self._channels:
            if found and ending != INTERRUPTED:
                channel.submit(functools.partial(channel.tracker.log_files, found))
            channel.submit(functools.partial(channel.tracker.finish, ending))
        self._wait(_STOP_SECONDS if ending == INTERRUPTED else _END_SECONDS)

    def attach(self, files: Sequence[Path], folder: str) -> None:
        """Adds files to a run that has ended, and waits until they are sent."""
        for channel in self._channels:
            channel.submit(functools.partial(channel.attach, files, folder))
        self._wait(_END_SECONDS)

    def _wait(self, seconds: float) -> None:
        for channel in self._channels:
            channel.wait(seconds)

    def _save(self, name: str, values: Mapping[str, Any]) -> None:
        with self._lock:
            self._saved[name] = dict(values)
            write_text(self._file, json.dumps(self._saved, indent=1) + "\n")


class _Channel:
    """One tracker, the thread that calls it, and what is still to be told."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        run: TrackedRun,
        saved: Mapping[str, dict[str, Any]],
        save: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.name, self.tracker, self._run, self._save = name, tracker, run, save
        self._values: dict[str, Any] = saved.get(name, {})
        self._jobs: queue.SimpleQueue[Callable[[], None] | threading.Event] = queue.SimpleQueue()
        self._failed = False
        # A daemon: a server that does not answer must not keep the process from ending.
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

    def attach(self, files: Sequence[Path], folder: str) -> None:
        self.tracker.reopen(self._run, self._values)
        self.tracker.log_files(files, folder)
        self.tracker.finish("")

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def wait(self, seconds: float) -> None:
        """Waits until all jobs so far are done; gives the tracker up after ``seconds``."""
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
            except BaseException as error:  # whatever a tracker raises, the training goes on
                self._give_up(f"failed ({first_line(error)})")

    def _give_up(self, cause: str) -> None:
        if not self._failed:
            self._failed = True
            with contextlib.suppress(Exception):  # the output may be closed
                text = f"--track={self.name}: {cause}; going on without it"
                warn(text, after_progress=sys.stdout.isatty())


def attach_files(folder: Path, files: Sequence[Path], name: str) -> None:
    """Adds files to the run in ``folder`` in every tracker that recorded it; a failure is one line.

    Args:
        folder: a run folder; nothing happens if the run was not tracked.
        files: files that exist.
        name: what they are together, such as ``report``.
    """
    names = [each for each in _read_saved(RunPaths(folder).trackers) if each in _CLASSES]
    if names:
        TrackerGroup(names, TrackedRun(folder, folder.resolve().name)).attach(files, name)


def _read_saved(file: Path) -> dict[str, dict[str, Any]]:
    """The content of ``trackers.json``; empty if there is none, or if it is damaged."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}
