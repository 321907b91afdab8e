"""Every file name of a run folder, once; nobody outside ``runs/`` spells one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RUNS", "RunPaths"]

RUNS = Path("runs")
"""Folder of runs that were not given a name, below the working directory."""

_SNAPSHOT = re.compile(r"snapshot-(\d+)\.keras")


@dataclass(frozen=True)
class RunPaths:
    """Where everything of one run lies; a path need not exist.

    Attributes:
        root: the run folder.

    Example:
        >>> RunPaths(Path("runs/oak")).best.as_posix()
        'runs/oak/checkpoints/best.keras'
    """

    root: Path

    @classmethod
    def of(cls, root: str | os.PathLike[str]) -> RunPaths:
        """The paths of the run folder ``root``."""
        return cls(Path(root))

    # what the user asked for, and on what
    @property
    def config(self) -> Path:
        """Every flag and, under ``resolved``, what each ``auto`` became; JSON."""
        return self.root / "config.json"

    @property
    def flags(self) -> Path:
        """The run as an absl flagfile."""
        return self.root / "flags.txt"

    @property
    def env(self) -> Path:
        """Versions and device; JSON."""
        return self.root / "env.json"

    @property
    def classes(self) -> Path:
        """Class names, one per line, in the order of the model's outputs."""
        return self.root / "classes.txt"

    @property
    def split(self) -> Path:
        """Which image trains and which one validates: file, label, split."""
        return self.root / "split.csv"

    @property
    def data_report(self) -> Path:
        """Files left out, and why."""
        return self.root / "data_report.csv"

    # what training wrote
    @property
    def history(self) -> Path:
        """Metrics per epoch: what the seed decides."""
        return self.root / "history.csv"

    @property
    def timing(self) -> Path:
        """Seconds and images per second per epoch: what the clock says."""
        return self.root / "timing.csv"

    @property
    def curves(self) -> Path:
        """Loss, accuracy and learning rate over the epochs."""
        return self.root / "curves.png"

    @property
    def planned_lr(self) -> Path:
        """The learning-rate schedule, drawn before training."""
        return self.root / "lr.png"

    @property
    def live_page(self) -> Path:
        """The page that reloads itself while training runs."""
        return self.root / "live.html"

    @property
    def augmented(self) -> Path:
        """A sample of augmented training images."""
        return self.root / "augmented.png"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard events."""
        return self.root / "tensorboard"

    @property
    def state(self) -> Path:
        """Folder of the states that ``--resume`` continues from, and of the run's lock."""
        return self.root / "state"

    @property
    def checkpoints(self) -> Path:
        """Folder of the ``.keras`` files."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """The model of the epoch with the lowest validation loss."""
        return self.checkpoints / "best.keras"

    @property
    def last(self) -> Path:
        """The model of the last epoch."""
        return self.checkpoints / "last.keras"

    def snapshot(self, epoch: int) -> Path:
        """The model at the bottom of the learning-rate cycle that ends with ``epoch``, from 1."""
        return self.checkpoints / f"snapshot-{epoch:04d}.keras"

    def snapshots(self) -> list[Path]:
        """The snapshots that exist, in the order of their epochs."""
        found = {
            int(match[1]): path
            for path in self.checkpoints.glob("snapshot-*.keras")
            if (match := _SNAPSHOT.fullmatch(path.name))
        }
        return [found[epoch] for epoch in sorted(found)]

    # what came after training
    @property
    def report(self) -> Path:
        """Folder of the evaluation's page, tables and figures."""
        return self.root / "report"

    @property
    def export(self) -> Path:
        """Folder of numbered SavedModels."""
        return self.root / "export"
