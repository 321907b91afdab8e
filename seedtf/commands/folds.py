"""``seedtf folds``: trains a run for each fold of the data, and writes one report on all images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seedtf.commands.arguments import (
    check_one_machine,
    check_refused,
    parse_given_flags,
    to_base_class,
)
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.data_flags import CACHES
from seedtf.config.flags import option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.model.families import short_name
from seedtf.report import report, report_result
from seedtf.runs.folder import create_named_folder
from seedtf.runs.folds import FoldsPaths, check_folds
from seedtf.runs.paths import RunPaths

__all__ = ["FoldsConfig", "run"]


@dataclass(frozen=True)
class FoldsConfig(TrainConfig):
    """The flags of ``folds``, and those of ``train`` except ``REFUSED``, which apply to all folds."""

    REFUSED: ClassVar[dict[str, str]] = {
        "resume": "the same command with the same --out continues; leave --resume out",
        "run_dir": "each fold has its own folder; pass --out",
        "continue_from": "each fold is a new run; pass --weights instead",
        "dry_run": "use it with seedtf train, and multiply the time by the number of folds",
        "val_dir": "the folds divide the images of --data_dir; leave it out",
        "split_csv": "the folds divide all images; leave it out",
    }

    folds: str = option(
        "5", "Number of folds, 2 to 200, or 'groups' for one fold per group (--group_by)."
    )
    out: str = option("", "Folder of the folds; default runs/<date>-<time>-folds-<model>.")
    cache: str = option(
        "disk",
        "As in seedtf train; with disk the images are decoded once for all folds.",
        choices=CACHES,
    )
    takeover_seconds: float = option(
        120.0,
        "Seconds, 10 or more. If the machine that trains a fold sends no heartbeat for this time, "
        "another machine takes the fold over.",
        low=10.0,
    )
    divide_only: bool = option(False, "Divide the images and write folds.csv, but do not train.")

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid, do not fit together or do not apply."""
        super().check_together()
        check_refused(self)
        check_folds(self.folds)
        if self.divide_only and not self.out:
            raise UserError("--divide_only: needs --out, the folder to write to")
        check_one_machine(
            self.strategy,
            self.cluster,
            "a fold is trained by one machine; start the command on every machine with the same --out",
        )


def run(arguments: list[str]) -> int:
    """Trains the folds, or only divides the images, and returns the exit code."""
    config = FoldsConfig(**parse_given_flags(FoldsConfig, "folds", arguments))
    training = to_base_class(config, TrainConfig)
    if config.divide_only:
        _divide(config, training)
        return 0
    from seedtf.folds.train_folds import train_folds

    name = f"folds-{short_name(config.model).lower()}"
    folder = Path(config.out) if config.out else create_named_folder(name)
    report("folder", f"{folder}; the same command with --out={folder} continues, on any machine")
    train_folds(training, config.folds, arguments, folder, takeover_seconds=config.takeover_seconds)
    paths = FoldsPaths(folder)
    # The path of the report in a folder of folds is the same as in the folder of a run.
    values = json.loads(RunPaths(folder).report.report_json.read_text(encoding="utf-8"))
    over_folds, (low, high) = values["cross_validation"], values["accuracy_interval_95"]
    interval = f"95 % interval {low:.4f} to {high:.4f}"
    report("accuracy", f"{values['accuracy']:.4f} over all images ({interval})")
    deviation = over_folds["accuracy_deviation"]
    spread = "" if deviation is None else f" ± {deviation:.4f}"
    report("folds", f"{over_folds['accuracy_mean']:.4f}{spread} over the folds")
    report("report", str(RunPaths(folder).report.page))
    report("images", f"{paths.predictions}: each is predicted by the run that did not train on it")
    keys = ("images", "accuracy", "accuracy_interval_95", "macro_f1", "loss", "temperature")
    report_result(json.dumps({"out": str(folder), **{key: values[key] for key in keys}}))
    return 0


def _divide(config: FoldsConfig, training: TrainConfig) -> None:
    import_tensorflow()
    from seedtf.folds.divide import divide

    paths = FoldsPaths(Path(config.out))
    paths.root.mkdir(parents=True, exist_ok=True)
    divide(training, config.folds, paths)
