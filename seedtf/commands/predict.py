"""``seedtf predict``: writes the predictions of images to a table or a competition's submission."""

from __future__ import annotations

import json
from dataclasses import dataclass

from seedtf.commands.arguments import parse_config
from seedtf.commands.evaluate import SNAPSHOTS_HELP, TTA_HELP
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError
from seedtf.report import report_error, report_result, report_text

__all__ = ["PredictConfig", "run"]

EXIT_BAD_FILES = 3


@dataclass(frozen=True)
class PredictConfig(Flags):
    """The positional arguments and flags of ``seedtf predict``."""

    run_or_export: str = option(
        "",
        "Folder of a run, a .keras file in it, or the folder of an exported model, whose probabilities "
        "are temperature-scaled.",
    )
    files_or_folders: tuple[str, ...] = option(
        (), "Images, patterns such as 'photos/*.jpg', or folders of images."
    )
    out: str = option("predictions.csv", "CSV file to write.")
    topk: int = option(5, "Classes to list for each image, 1 or more.", low=1)
    batch_size: int = option(64, "Images in a batch, 1 or more.", low=1)
    tta: int = option(1, TTA_HELP, choices=(1, 8))
    snapshots: bool = option(False, SNAPSHOTS_HELP)
    submission: str = option(
        "",
        "Sample submission of a competition: its rows are filled with predictions and written to "
        "--out.",
    )
    heatmaps: str = option(
        "",
        "Folder for a PNG of every image that shows where the network saw the predicted class; for a "
        "run, not for an export.",
    )
    overwrite: bool = option(False, "Replace --out if it exists.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        if self.heatmaps and self.submission:
            raise UserError("--heatmaps excludes --submission; predict twice")


def run(arguments: list[str]) -> int:
    """Writes the table; returns 0, or 3 when a file has no prediction."""
    positionals = ("run_or_export", "files_or_folders...")
    config = parse_config(PredictConfig, "predict", arguments, positionals)
    import_tensorflow()
    from seedtf.evaluation.predict import check_out

    out = check_out(config.out, config.overwrite)
    try:
        return _predict(config)
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror or error}; pass another path") from error


def _predict(config: PredictConfig) -> int:
    from pathlib import Path

    from seedtf.evaluation.classifier import open_classifier
    from seedtf.evaluation.predict import make_heatmap_folder, write_predictions
    from seedtf.evaluation.submission import read_sample, write_submission

    out, inputs, batch_size = Path(config.out), config.files_or_folders, config.batch_size
    sample = read_sample(config.submission) if config.submission else None
    classifier = open_classifier(
        config.run_or_export,
        config.tta,
        snapshots=config.snapshots,
        heatmaps=bool(config.heatmaps),
    )
    if sample is not None:
        rows = write_submission(classifier, inputs, sample, out, batch_size=batch_size)
        result = {"out": str(out), "files": rows, "bad": 0}
        report_text(f"{out}: {rows} rows")
    else:
        heatmaps = make_heatmap_folder(config.heatmaps, config.overwrite)
        counts = write_predictions(
            classifier,
            inputs,
            out,
            topk=config.topk,
            batch_size=batch_size,
            heatmaps=heatmaps,
        )
        result = {"out": str(out), "files": counts.files, "bad": counts.bad}
        report_text(f"{out}: {counts.files} files, {counts.files - counts.bad} predicted")
        if counts.bad:
            text = f"{counts.bad} of {counts.files} without a prediction, first {counts.first_bad}"
            report_error(f"seedtf predict: {text}; see the column status")
    report_result(json.dumps(result))
    return EXIT_BAD_FILES if result["bad"] else 0
