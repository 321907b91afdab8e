"""The interface to experiment trackers: ``Tracker``, and the run that it records, ``TrackedRun``."""

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
"""The project or experiment of a run, unless an environment variable of the tracker names another."""

FINISHED, INTERRUPTED = "finished", "interrupted"
"""Values of ``ending`` in ``Tracker.finish``.

The other values are ``failed``, and texts that say why a training ended early.
"""

# These flags say how a process is run, not what it trains, so they are not recorded.
_NOT_TRACKED = {"run_dir", "resume", "continue_from", "dry_run", "show", "tensorboard", "track"}
# Name of the tracker -> (its Python module, its name in messages, the extra that installs it).
_PACKAGES = {
    "mlflow": ("mlflow", "MLflow", "mlflow"),
    "wandb": ("wandb", "Weights & Biases", "wandb"),
    "tensorboard": ("tensorboard", "TensorBoard", "tensorboard"),
    "trackio": ("trackio", "Trackio", "trackio"),
}


@dataclass(frozen=True)
class TrackedRun:
    """A training run, or a search over flags, that trackers record.

    Attributes:
        folder: the run folder, or the folder of the search.
        name: the name under which trackers show the run.
        flags: the flags as JSON values, without empty ones.
        rows: the epochs that were completed before this process began, as rows of history.csv. For a
            search, the trials that have ended, each as a row whose ``epoch`` is the number of the
            trial, from 1.
        parent_search: for a trial of a search, the values that identify the search in the tracker, as
            ``Tracker.start`` returned them for the search; empty for any other run.
        search_space: for a search, the range of each searched flag as text; None for a training run.
    """

    folder: Path
    name: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, float]] = ()
    parent_search: Mapping[str, Any] = field(default_factory=dict)
    search_space: Mapping[str, str] | None = None

    @property
    def last_epoch(self) -> int:
        """The last epoch that was completed before this process began; 0 if there is none."""
        return int(self.rows[-1]["epoch"]) if self.rows else 0


class Tracker(ABC):
    """One run in one tracker. All methods are called from one thread, and may raise any exception.

    Attributes:
        place: the address or folder where the user finds the run; set by ``start``.
    """

    place: str = ""

    @abstractmethod
    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Creates the run in the tracker, or opens the run that ``saved`` identifies.

        Args:
            run: the run.
            saved: the values that ``start`` returned in the previous process of the run, with ``last``
                set to the last epoch that was logged; empty if the tracker has not recorded the run.

        Returns:
            JSON values that identify the run in the tracker, and ``last``, the last epoch that the
            tracker has. The caller then logs every epoch after ``last``: first those in ``run.rows``,
            then those that are trained in this process.
        """

    @abstractmethod
    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch, counted from 1; a value may be NaN."""

    @abstractmethod
    def log_files(self, files: Sequence[Path], prefix: str = "") -> None:
        """Adds files to the run; ``prefix``, such as ``report``, precedes the names of the files."""

    @abstractmethod
    def finish(self, ending: str) -> None:
        """Sends what is left and ends the run.

        Args:
            ending: ``finished``, ``interrupted``, ``failed``, or why training ended early. Empty after
                ``reopen``: the run then keeps its status.
        """

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        """Opens a run that has ended, so that files can be added; takes the arguments of ``start``."""
        self.start(run, saved)


def installed_trackers() -> frozenset[str]:
    """The trackers whose package is installed; ``dvclive`` needs no package."""
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
    """The flags that a tracker records: all that are not empty, except those of ``_NOT_TRACKED``."""
    return {
        name: value
        for name, value in config.as_dict().items()
        if name not in _NOT_TRACKED and value is not None and value != ""
    }


def _is_installed(name: str) -> bool:
    spec = importlib.util.find_spec(_PACKAGES[name][0])
    # A folder with the name of the module, such as the folder wandb with the runs of W&B, has no
    # origin.
    return spec is not None and spec.origin is not None
