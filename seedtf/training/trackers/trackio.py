"""Records a run in Trackio: in a local SQLite file, or where Trackio's own variables send it."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedtf.files import numbered_names
from seedtf.training.trackers.tracker import PROJECT, TrackedRun, Tracker, is_image

__all__ = ["TrackioTracker"]


class TrackioTracker(Tracker):
    """A run of Trackio, recorded where the variables ``TRACKIO_DIR``, ``TRACKIO_SPACE_ID``, … say."""

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import trackio

        name = saved.get("name") or _free_name(trackio, run.name)
        group = (
            saved.get("group") or run.parent_search.get("name", "") or _group_of_search(run, name)
        )
        with contextlib.redirect_stdout(io.StringIO()):  # Trackio prints how to open its page
            self._run = trackio.init(
                project=PROJECT,
                name=name,
                group=group or None,
                config=dict(run.flags),
                resume="must" if saved else "never",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        self._trackio = trackio
        self._last_epoch = _last_logged(self._run, saved)
        self.place = f"run {name}; trackio show --project {PROJECT}"
        return {"name": name, "group": group, "last": self._last_epoch}

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._last_epoch = epoch
        self._run.log(dict(metrics), step=epoch)

    def log_files(self, files: Sequence[Path], prefix: str = "") -> None:
        section = prefix or "images"
        images = {
            f"{section}/{path.stem}": self._trackio.Image(str(path))
            for path in files
            if is_image(path)
        }
        if images:
            self._run.log(images, step=self._last_epoch)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{prefix or 'run'}-{self._run.name}")
        artifact = self._trackio.Artifact(name, type=prefix or "run")
        for path in files:
            artifact.add_file(path)
        self._run.log_artifact(artifact)

    def finish(self, ending: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


def _free_name(trackio: Any, name: str) -> str:
    """``name``, or the first of ``name-2``, ``name-3``, … that no run of the project has.

    Names must be unique, because Trackio uses the name to find the run that is resumed.
    """
    try:
        taken = {run.name for run in trackio.Api().runs(PROJECT)}
    except ValueError:  # the project does not exist yet
        taken = set()
    return next(free for free in map(str, numbered_names(name)) if free not in taken)


def _group_of_search(run: TrackedRun, name: str) -> str:
    return name if run.search_space is not None else ""


def _last_logged(run: Any, saved: Mapping[str, Any]) -> int:
    """The last epoch that Trackio has; 0 for a new run.

    For a local store, this epoch is read from the store. For a server, it is the last one that was
    sent.
    """
    if not saved or {"TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"} & os.environ.keys():
        return int(saved.get("last", 0))
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs(PROJECT, run.name, run_id=run.id)
    return max((int(row["step"]) for row in logs if "val_loss" in row), default=0)
