"""The names of the files in a run folder.

Other modules define the names of the state files (``training.state``), of the lock file (``files``) and
of the files in the folders of exports and trackers.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AUGMENTED", "DATA_REPORT", "PARITY", "RUNS", "RUNS_PAGE", "ReportPaths", "RunPaths"]

RUNS = Path("runs")
"""The folder in the working directory that contains the runs started without ``--run_dir``."""

DATA_REPORT = "data_report.csv"
"""Table of the files that were left out, with the reasons; ``seedtf check`` writes one, too."""

AUGMENTED = "augmented.png"
"""Sample of augmented images; ``seedtf preview`` writes one, too."""

PARITY = "parity.json"
"""The comparison of an export with the evaluation.

Each version of the export has this file, and so has the folder that contains the versions.
"""

RUNS_PAGE = "index.html"
"""The page that ``seedtf runs`` writes into the folder of the listed runs."""

_SNAPSHOT = re.compile(r"snapshot-(\d+)\.keras")


@dataclass(frozen=True)
class RunPaths:
    """The paths of the files of a run; the files need not exist.

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

    # Files that describe the flags, the data and the machine of the run
    @property
    def config(self) -> Path:
        """All flags and, under ``resolved``, the values that were chosen for the run; JSON."""
        return self.root / "config.json"

    @property
    def flags(self) -> Path:
        """The flags of the run as an absl flagfile."""
        return self.root / "flags.txt"

    @property
    def env(self) -> Path:
        """Versions of packages, the device, and the licence of the initial weights; JSON."""
        return self.root / "env.json"

    @property
    def preset(self) -> Path:
        """The configuration of the backbone, if it is a preset of KerasHub; JSON."""
        return self.root / "preset.json"

    @property
    def classes(self) -> Path:
        """Class names, one per line, in the order of the model's outputs."""
        return self.root / "classes.txt"

    @property
    def split(self) -> Path:
        """Table with the columns file, label and split, which is ``train``, ``val`` or ``test``."""
        return self.root / "split.csv"

    @property
    def split_summary(self) -> Path:
        """Number and fraction of the images of each class in training, validation and test."""
        return self.root / "split_summary.csv"

    @property
    def data_report(self) -> Path:
        """The files that were left out, with the reasons."""
        return self.root / DATA_REPORT

    # Files that training writes
    @property
    def history(self) -> Path:
        """The learning rate, losses and accuracies of each epoch.

        The same flags and data give the same bytes, because the table has no measured times.
        """
        return self.root / "history.csv"

    @property
    def timing(self) -> Path:
        """Measured seconds and images per second of each epoch."""
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
        return self.root / AUGMENTED

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard events."""
        return self.root / "tensorboard"

    @property
    def dvclive(self) -> Path:
        """Folder of the files of DVCLive."""
        return self.root / "dvclive"

    @property
    def trackers(self) -> Path:
        """The identifier of the run in each tracker; JSON.

        The folder of ``seedtf tune`` also has this file.
        """
        return self.root / "trackers.json"

    @property
    def state(self) -> Path:
        """Folder of the saved states, from which ``--resume`` continues, and of the run's lock."""
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
        """The model that ``--snapshots`` saves when a learning-rate cycle ends.

        Args:
            epoch: the last epoch of the cycle, from 1.
        """
        return self.checkpoints / f"snapshot-{epoch:04d}.keras"

    def snapshots(self) -> list[Path]:
        """The snapshots that exist, in the order of their epochs."""
        found = {
            int(match[1]): path
            for path in self.checkpoints.glob("snapshot-*.keras")
            if (match := _SNAPSHOT.fullmatch(path.name))
        }
        return [found[epoch] for epoch in sorted(found)]

    # Files that other commands write after the training
    @property
    def report(self) -> ReportPaths:
        """The report of the best model on the validation images."""
        return self.report_paths()

    def report_paths(
        self,
        data_dir: str = "",
        *,
        checkpoint: str = "",
        tta: int = 1,
        snapshots: bool = False,
        fixes: bool = False,
    ) -> ReportPaths:
        """The folder of a report: ``report``, with a suffix for each argument that is not its default.

        The suffixes keep a report on other images, or of other models, from replacing ``report``, from
        which an export takes the temperature of the best model.

        Args:
            data_dir: folder of the evaluated images; empty for the validation images.
            checkpoint: name of the checkpoint that is evaluated; empty for the best model.
            tta: number of views of each image whose predictions are averaged, 1 or 8.
            snapshots: whether the mean of all snapshots is evaluated instead of the best model.
            fixes: whether ``--fixes`` changed the labels.
        """
        suffixes = (
            f"-{Path(data_dir).resolve().name}" if data_dir else "",
            f"-{checkpoint}" if checkpoint else "",
            "-snapshots" if snapshots else "",
            "-tta8" if tta == 8 else "",
            "-fixes" if fixes else "",
        )
        return ReportPaths(self.root / f"report{''.join(suffixes)}")

    @property
    def export(self) -> Path:
        """Folder of numbered SavedModels."""
        return self.root / "export"


@dataclass(frozen=True)
class ReportPaths:
    """The files of one evaluation.

    Attributes:
        root: the folder of the report.

    Example:
        >>> RunPaths(Path("runs/oak")).report.page.as_posix()
        'runs/oak/report/index.html'
    """

    root: Path

    @property
    def page(self) -> Path:
        """The report as a page to look at."""
        return self.root / "index.html"

    @property
    def report_json(self) -> Path:
        """The numbers of the report, for programs; JSON."""
        return self.root / "report.json"

    @property
    def predictions(self) -> Path:
        """Every image with its label, top classes, loss and margin."""
        return self.root / "predictions_val.csv"

    @property
    def data_report(self) -> Path:
        """The images that ``--fixes`` changed or left out for this report only."""
        return self.root / DATA_REPORT

    @property
    def test(self) -> ReportPaths:
        """The report on the test images, which are not used to train or to choose the best epoch."""
        return ReportPaths(self.root / "test")

    @property
    def confusion_matrix(self) -> Path:
        """The confusion matrix as an image; with many classes, only the classes with most mistakes."""
        return self.root / "confusion_matrix.png"

    @property
    def confusion_table(self) -> Path:
        """Table of the cells of the confusion matrix that are not 0: true, predicted, count."""
        return self.root / "confusion_matrix.csv"
