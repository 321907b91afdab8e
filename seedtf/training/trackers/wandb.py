"""Records a run in Weights & Biases (W&B): its history, its images, and its files as an artifact."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedtf.training.trackers.tracker import PROJECT, TrackedRun, Tracker, is_image

__all__ = ["WandbTracker"]

# Less than the 45 s that `TrackerGroup` waits, so that its warning contains W&B's own error.
_START_SECONDS = 30


class WandbTracker(Tracker):
    """A run of W&B, in the account of ``wandb login``.

    ``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_NAME``, … have their usual effect. With
    ``WANDB_MODE=offline`` the files are in the run folder, unless ``WANDB_DIR`` is set.
    """

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        # Online, the server knows which epochs it has. Offline, the file of a killed process may lack
        # its last epochs. So offline, a new file gets all epochs, and the old one is marked as
        # replaced.
        values = self._open(run, saved)
        if self._run.offline and saved:
            _mark_as_replaced(Path(saved.get("folder", "")))
        return values

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        self._open(run, saved)

    def _open(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        id_of_user = "" if run.parent_search else os.environ.get("WANDB_RUN_ID", "")
        run_id = saved.get("id") or id_of_user or secrets.token_hex(4)
        project = saved.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT
        group = saved.get("group") or _group(run)
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            name=None if "WANDB_NAME" in os.environ else run.name,
            id=run_id,
            resume="allow",
            group=group or None,
            job_type=_job_type(run),
            config=dict(run.flags),
            allow_val_change=True,  # some flags may change when a run is resumed
            dir=None if "WANDB_DIR" in os.environ else str(run.folder),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_START_SECONDS,
                login_timeout=_START_SECONDS,
            ),
        )
        # With this variable, the processes of trials would use the W&B service of the search. A killed
        # trial would then block the service.
        os.environ.pop("WANDB_SERVICE", None)
        last = 0 if self._run.offline else max(self._run.starting_step - 1, 0)
        folder = str(Path(self._run.dir).parent)
        self.place = folder if self._run.offline else self._run.url or folder
        identity = {"id": run_id, "project": project, "group": group, "folder": folder}
        return {**identity, "last": last}

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"epoch": epoch, **metrics}, step=epoch, commit=True)

    def log_files(self, files: Sequence[Path], prefix: str = "") -> None:
        section = prefix or "images"
        # Images go to the summary, because the history accepts only one row for each epoch.
        for path in filter(is_image, files):
            self._run.summary[f"{section}/{path.stem}"] = self._wandb.Image(str(path))
        kind = prefix.replace("/", "-") or "run"
        artifact = self._wandb.Artifact(f"{kind}-{self._run.id}", type=kind)
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self, ending: str) -> None:
        self._run.finish(exit_code=1 if ending == "failed" else 0)


def _mark_as_replaced(folder: Path) -> None:
    """Renames the offline files of an interrupted process, so that ``wandb sync`` ignores them."""
    if folder.name.startswith("offline-run-") and folder.is_dir():
        for file in folder.glob("*.wandb"):
            file.rename(file.with_suffix(".wandb.replaced"))
        folder.rename(folder.with_name(folder.name.replace("offline-run", "replaced", 1)))


def _group(run: TrackedRun) -> str:
    """The group that joins a search and its trials, because W&B runs have no parent run."""
    if "WANDB_RUN_GROUP" in os.environ:
        return ""  # W&B reads the variable itself
    if run.search_space is not None:
        return f"{run.name}-{secrets.token_hex(3)}"
    return str(run.parent_search.get("group", ""))


def _job_type(run: TrackedRun) -> str:
    return "search" if run.search_space is not None else "trial" if run.parent_search else "train"
