"""``seedtf predict``: images in, a table or a competition's answer sheet out."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import check_ranges, option
from seedtf.errors import UserError

__all__ = ["PredictConfig", "run"]

EXIT_BAD_FILES = 3


@dataclass(frozen=True)
class PredictConfig:
    """The words and flags of ``seedtf predict``."""

    run_or_export: str = option(
        "",
        "Folder of a run, or of an exported model (its probabilities carry the run's temperature).",
    )
    files_or_folders: tuple[str, ...] = option((), "Images, or folders of images at any depth.")
    out: str = option("predictions.csv", "Table to write.")
    topk: int = option(5, "Classes to name for each image, 1 or more.", low=1)
    batch_size: int = option(64, "Images at a time, 1 or more.", low=1)
    tta: str = option(
        "1", "8 averages every answer over the eight turns and mirror images.", choices=("1", "8")
    )
    snapshots: bool = option(
        False, "Average the answers of all snapshots of the run rather than ask its best model."
    )
    submission: str = option(
        "",
        "Sample table of a competition: its heading and rows are filled in and written to --out.",
    )
    overwrite: bool = option(False, "Replace --out where it exists.")

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        check_ranges(self)


def run(arguments: list[str]) -> int:
    """Writes the table; returns 0, or 3 when a file has no answer."""
    words = ("run_or_export", "files_or_folders...")
    config = parse_config(PredictConfig, "predict", arguments, words)
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
    from seedtf.evaluation.predict import write_predictions
    from seedtf.evaluation.submission import read_sample, write_submission

    out, inputs, batch_size = Path(config.out), config.files_or_folders, config.batch_size
    sample = read_sample(config.submission) if config.submission else None
    classifier = open_classifier(config.run_or_export, int(config.tta), snapshots=config.snapshots)
    if sample is not None:
        rows = write_submission(classifier, inputs, sample, out, batch_size=batch_size)
        result = {"out": str(out), "files": rows, "bad": 0}
        print(f"{out}: {rows} rows")
    else:
        tally = write_predictions(classifier, inputs, out, topk=config.topk, batch_size=batch_size)
        result = {"out": str(out), "files": tally.files, "bad": tally.bad}
        print(f"{out}: {tally.files} files, {tally.files - tally.bad} answered")
        if tally.bad:
            text = f"{tally.bad} of {tally.files} without an answer, first {tally.first_bad}"
            print(f"seedtf predict: {text}; see the column status", file=sys.stderr)
    print(f"RESULT {json.dumps(result)}", flush=True)
    return EXIT_BAD_FILES if result["bad"] else 0
