"""Weights & Biases: a run with its history, its images and an artifact."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedtf.training.trackers.tracker import PROJECT, TrackedRun, Tracker, is_image

__all__ = ["WandbTracker"]

_START_SECONDS = 30


class WandbTracker(Tracker):
    """``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_NAME``, … apply, and the login.

    The files of ``WANDB_MODE=offline`` lie in the run folder unless ``WANDB_DIR`` is set.
    """

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        # Online the server knows what it has. Offline a killed process leaves a file that may lack its
        # last epochs, so the new file gets all of them and replaces it.
        values = self._open(run, saved)
        if self._run.offline and saved:
            _set_aside(Path(saved.get("folder", "")))
        return values

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        self._open(run, saved)

    def _open(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        given = "" if run.study else os.environ.get("WANDB_RUN_ID", "")
        identity = saved.get("id") or given or secrets.token_hex(4)
        project = saved.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT
        group = saved.get("group") or _group(run)
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            name=None if "WANDB_NAME" in os.environ else run.name,
            id=identity,
            resume="allow",
            group=group or None,
            job_type=_job_type(run),
            config=dict(run.flags),
            allow_val_change=True,  # a resumed run may change some
            dir=None if "WANDB_DIR" in os.environ else str(run.folder),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_START_SECONDS,
                login_timeout=_START_SECONDS,
            ),
        )
        # A trial of a search would share the service of this process, and block it if it is killed.
        os.environ.pop("WANDB_SERVICE", None)
        last = 0 if self._run.offline else max(self._run.starting_step - 1, 0)
        folder = str(Path(self._run.dir).parent)
        self.place = folder if self._run.offline else self._run.url or folder
        found = {"id": identity, "project": project, "group": group, "folder": folder}
        return {**found, "last": last}

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"epoch": epoch, **metrics}, step=epoch, commit=True)

    def log_files(self, files: Sequence[Path], folder: str = "") -> None:
        prefix = folder or "images"
        # In the summary, because the history has one row for each epoch, and takes no second one.
        for path in filter(is_image, files):
            self._run.summary[f"{prefix}/{path.stem}"] = self._wandb.Image(str(path))
        kind = folder.replace("/", "-") or "run"
        artifact = self._wandb.Artifact(f"{kind}-{self._run.id}", type=kind)
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self, ending: str) -> None:
        self._run.finish(exit_code=1 if ending == "failed" else 0)


def _set_aside(folder: Path) -> None:
    """Renames the files of an interrupted process, so that ``wandb sync`` does not find them."""
    if folder.name.startswith("offline-run-") and folder.is_dir():
        for file in folder.glob("*.wandb"):
            file.rename(file.with_suffix(".wandb.replaced"))
        folder.rename(folder.with_name(folder.name.replace("offline-run", "replaced", 1)))


def _group(run: TrackedRun) -> str:
    """The group of a search and its trials; W&B has no parent of runs."""
    if "WANDB_RUN_GROUP" in os.environ:
        return ""  # W&B reads it
    if run.searched is not None:
        return f"{run.name}-{secrets.token_hex(3)}"
    return str(run.study.get("group", ""))


def _job_type(run: TrackedRun) -> str:
    return "search" if run.searched is not None else "trial" if run.study else "train"
