"""Lists the runs below a folder, also incomplete runs. No model and no image is read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtf.config.recipes import BEFORE_FLAG
from seedtf.config.train_config import PATH_FLAGS
from seedtf.errors import UserError
from seedtf.model.families import short_name
from seedtf.runs.folder import is_run_locked, read_settings
from seedtf.runs.history import best_epoch, read_history, read_timing
from seedtf.runs.paths import RunPaths

__all__ = ["SORT_KEYS", "RunSummary", "differing_flags", "list_runs"]

SORT_KEYS = ("name", "accuracy", "loss", "epochs", "seconds")

# Paths, and flags that change only the speed, messages or additional files of a run, not its results.
# `check` is not among them, because it can change the split: duplicates are found only if all files are
# opened. `cache` is among them, although with `off` the files are not opened if there are over 20,000.
_NOT_COMPARED = {
    *(set(PATH_FLAGS) - {"data_dir", "fixes", "pseudo_labels"}),
    *("run_dir", "resume", "continue_from", "dry_run"),
    *("cache", "data_service", "placement", "threads", "cluster", "worker_timeout"),
    *("strict", "show", "save_minutes", "time_limit", "tensorboard", "track"),
}


@dataclass(frozen=True)
class RunSummary:
    """A run in the list.

    Attributes:
        name: the run folder, relative to the listed folder.
        model: the network; empty if config.json is damaged.
        data: the data folder; empty if config.json is damaged.
        state: ``finished``, ``training``, ``stopped`` (before its last epoch), or ``damaged``.
        epochs: the number of completed epochs.
        planned_epochs: the value of ``--epochs``.
        best_epoch: the epoch with the lowest validation loss, from 1; None if no loss is finite.
        val_loss: the validation loss of the best epoch; NaN if unknown.
        accuracy: the accuracy in the report. Without a report, it is the validation accuracy of the
            best epoch; NaN if that is unknown.
        interval: the 95 % interval of the accuracy in the report; None without a report.
        seconds: measured seconds of all epochs and of the time between them; NaN if no epoch was
            measured or timing.csv cannot be read.
        page: the page of the report, or without a report the live page, relative to the listed folder;
            empty if neither page exists.
        flags: the flags of the run by name. A run of an earlier release also has those of
            ``BEFORE_FLAG``.
        history: the rows of history.csv.
    """

    name: str
    model: str
    data: str
    state: str
    epochs: int
    planned_epochs: int
    best_epoch: int | None
    val_loss: float
    accuracy: float
    interval: tuple[float, float] | None
    seconds: float
    page: str
    flags: dict[str, Any]
    history: Sequence[dict[str, float]]

    def as_json(self, flags: Sequence[str]) -> dict[str, Any]:
        """The attributes except ``page`` and ``history`` as JSON values; None for an unknown value.

        Args:
            flags: the names of the flags to include.
        """
        values = {
            name: getattr(self, name)
            for name in ("name", "model", "data", "state", "epochs", "planned_epochs")
        }
        return {
            **values,
            "best_epoch": self.best_epoch,
            "val_loss": _none_for_nan(self.val_loss),
            "accuracy": _none_for_nan(self.accuracy),
            "accuracy_interval_95": self.interval and list(self.interval),
            "seconds": _none_for_nan(round(self.seconds, 1)),
            "flags": {name: self.flags.get(name) for name in flags},
        }


def list_runs(folder: str | os.PathLike[str], sort: str = "name") -> list[RunSummary]:
    """The runs in and below ``folder``.

    A folder with a ``config.json`` is a run. Folders inside a run are not searched.

    Args:
        folder: the folder to search, such as ``runs``.
        sort: one of ``SORT_KEYS``. Names are sorted from Z to A, so that the newest run comes first if
            the names begin with a date. Accuracy and epochs are sorted from high to low, loss and
            seconds from low to high. Unknown numbers come last.

    Raises:
        UserError: the folder does not exist or has no runs.

    Example:
        >>> runs = list_runs("runs")
        >>> [run.name for run in runs]
        ['seedlings']
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; pass the folder that holds the runs")
    runs = [_summarize(path, root) for path in _find_run_folders(root)]
    if not runs:
        raise UserError(f"{root}: no runs of seedtf train; pass the folder that holds them")
    if sort == "name":
        return sorted(runs, key=lambda run: run.name, reverse=True)
    ascending = sort in ("loss", "seconds")
    attribute = {"loss": "val_loss"}.get(sort, sort)

    def sort_key(run: RunSummary) -> tuple[bool, float]:
        number = float(getattr(run, attribute))
        return math.isnan(number), number if ascending else -number

    return sorted(sorted(runs, key=lambda run: run.name), key=sort_key)


def differing_flags(runs: Sequence[RunSummary]) -> list[str]:
    """The flags that do not have the same value in all runs, in the order of the flags.

    Flags that cannot change the results, such as ``--threads``, are not compared. Of the flags that
    name paths, only ``--data_dir``, ``--fixes`` and ``--pseudo_labels`` are compared.
    """
    names = dict.fromkeys(name for run in runs for name in run.flags)
    return [
        name
        for name in names
        if name not in _NOT_COMPARED
        and len({json.dumps(run.flags.get(name)) for run in runs if run.flags}) > 1
    ]


def _find_run_folders(root: Path) -> list[Path]:
    found = []
    for folder, subfolders, files in os.walk(root):
        if RunPaths(Path(folder)).config.name in files:
            found.append(Path(folder))
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return found


def _summarize(folder: Path, root: Path) -> RunSummary:
    paths = RunPaths(folder)
    try:
        settings = read_settings(folder)
    except UserError:
        settings = {}
    flags = {name: value for name, value in settings.items() if name != "resolved"}
    if flags:
        flags |= {name: value for name, value in BEFORE_FLAG.items() if name not in flags}
    try:
        history = read_history(paths.history)
    except (OSError, ValueError, KeyError, TypeError):
        history = []
    best = best_epoch(history)
    row = next((row for row in history if row["epoch"] == best), {})
    report_accuracy = _report_accuracy(paths)
    planned = flags.get("epochs")
    planned = planned if isinstance(planned, int) else len(history)
    return RunSummary(
        name=folder.relative_to(root).as_posix() if folder != root else folder.resolve().name,
        model=short_name(str(flags.get("model") or "")),
        data=str(flags.get("data_dir", "")),
        state=_state(folder, settings, len(history), planned),
        epochs=len(history),
        planned_epochs=planned,
        best_epoch=best,
        val_loss=row.get("val_loss", math.nan),
        accuracy=report_accuracy[0] if report_accuracy else row.get("val_accuracy", math.nan),
        interval=report_accuracy[1] if report_accuracy else None,
        seconds=_seconds(paths),
        page=_page(paths, root),
        flags=flags,
        history=history,
    )


def _state(folder: Path, settings: dict[str, Any], epochs: int, planned: int) -> str:
    if not settings:
        return "damaged"
    try:
        if is_run_locked(folder):
            return "training"
    except OSError:  # the user lacks the permission to read the folder
        return "damaged"
    return "finished" if epochs >= planned else "stopped"


def _report_accuracy(paths: RunPaths) -> tuple[float, tuple[float, float]] | None:
    """The accuracy and its interval in the report on the validation images; None without a report."""
    try:
        values = json.loads(paths.report.report_json.read_text(encoding="utf-8"))
        low, high = values["accuracy_interval_95"]
        return float(values["accuracy"]), (float(low), float(high))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _page(paths: RunPaths, root: Path) -> str:
    pages = (paths.report.page, paths.live_page)
    return next((page.relative_to(root).as_posix() for page in pages if page.is_file()), "")


def _seconds(paths: RunPaths) -> float:
    try:
        rows = read_timing(paths.timing)
        seconds = [row["seconds"] for row in rows]
        # Older releases did not measure this time. Their rows have no value, or NaN after a resume.
        between = [row.get("between", math.nan) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan
    if not rows:
        return math.nan
    return sum(seconds) + sum(value for value in between if not math.isnan(value))


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
