"""What a tracker is told: a run with its flags, the metrics of each epoch, files, and the end."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError

__all__ = [
    "FINISHED",
    "INTERRUPTED",
    "PROJECT",
    "TrackedRun",
    "Tracker",
    "check_installed",
    "installed_trackers",
    "is_image",
    "tracked_flags",
]

PROJECT = "seedtf"
"""The project or experiment of a run, unless a variable of the tracker names another one."""

FINISHED, INTERRUPTED = "finished", "interrupted"
"""Two of the endings of a run; every other one but ``failed`` is why it ended early."""

# They say how a process is run, not what it trains.
_NOT_TRACKED = {"run_dir", "resume", "continue_from", "dry_run", "show", "tensorboard", "track"}
# Name of the tracker: its package, how that is written, and the extra that installs it.
_PACKAGES = {
    "mlflow": ("mlflow", "MLflow", "mlflow"),
    "wandb": ("wandb", "Weights & Biases", "wandb"),
    "tensorboard": ("tensorboard", "TensorBoard", "tensorboard"),
    "trackio": ("trackio", "Trackio", "trackio"),
}


@dataclass(frozen=True)
class TrackedRun:
    """A run, or a search over flags, as a tracker is told of it.

    Attributes:
        folder: the run folder, or the folder of the search.
        name: how the tracker shows it.
        flags: the flags as JSON values, without those that are empty.
        rows: the epochs that were completed before this process began, as rows of history.csv; of a
            search, its trials, whose numbers count from 1.
        study: what identifies the search that this run is a trial of, in this tracker; empty for a
            run on its own.
        searched: of a search, its flags and their ranges as text; None for a run.
    """

    folder: Path
    name: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, float]] = ()
    study: Mapping[str, Any] = field(default_factory=dict)
    searched: Mapping[str, str] | None = None

    @property
    def done(self) -> int:
        """The last epoch that was completed before this process began; 0 for none."""
        return int(self.rows[-1]["epoch"]) if self.rows else 0


class Tracker(ABC):
    """One run in one tracker. All methods are called from the same thread, and may raise anything.

    Attributes:
        place: where the run can be seen, known after ``start``.
    """

    place: str = ""

    @abstractmethod
    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Creates the run in the tracker, or opens the one that ``saved`` identifies.

        Args:
            run: the run.
            saved: what ``start`` returned when the run began, and ``last``, the last epoch that was
                logged; empty for a new run.

        Returns:
            JSON values that identify the run in the tracker, and ``last``: the last epoch that the
            tracker keeps. Later ones are logged, also those of ``run.rows``.
        """

    @abstractmethod
    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch, counted from 1; a value may be NaN."""

    @abstractmethod
    def log_files(self, files: Sequence[Path], folder: str = "") -> None:
        """Keeps files of the run, under the name ``folder`` if it is not empty."""

    @abstractmethod
    def finish(self, ending: str) -> None:
        """Ends the run and sends what is left; an empty ``ending`` leaves its state as it is."""

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        """Opens a run that has ended, to add files."""
        self.start(run, saved)


def installed_trackers() -> frozenset[str]:
    """The trackers whose package can be imported; DVCLive's files need none."""
    return frozenset({"dvclive", *(name for name in _PACKAGES if _is_installed(name))})


def check_installed(names: Iterable[str], installed: frozenset[str]) -> None:
    """Raises UserError for the first of ``names`` that is not installed, with the remedy."""
    for name in names:
        if name not in installed:
            _, title, extra = _PACKAGES[name]
            raise UserError(
                f"--track={name}: {title} is not installed; run: pip install 'seedtf[{extra}]'"
            )


def is_image(path: Path) -> bool:
    """Whether a tracker shows this file as an image."""
    return path.suffix == ".png"


def tracked_flags(config: TrainConfig) -> dict[str, Any]:
    """The flags that a tracker records: those that are not empty."""
    return {
        name: value
        for name, value in config.as_dict().items()
        if name not in _NOT_TRACKED and value is not None and value != ""
    }


def _is_installed(name: str) -> bool:
    spec = importlib.util.find_spec(_PACKAGES[name][0])
    # A folder named like the package, such as W&B's folder of runs, has no origin.
    return spec is not None and spec.origin is not None
