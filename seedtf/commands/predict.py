"""``seedtf predict``: writes the predictions of images to a table or a competition's submission."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from seedtf.commands.arguments import parse_config
from seedtf.commands.evaluate import SNAPSHOTS_HELP, TTA_HELP
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError
from seedtf.report import format_count, report_error, report_result, report_text

__all__ = ["PredictConfig", "parse_shard", "run"]

POSITIONALS = ("run_or_export", "files_or_folders...")

EXIT_BAD_FILES = 3


@dataclass(frozen=True)
class PredictConfig(Flags):
    """The positional arguments and flags of ``seedtf predict``."""

    run_or_export: str = option(
        "",
        "Folder of a run, a .keras file in that folder, or the folder of an exported model. The "
        "probabilities of an exported model are temperature-scaled.",
    )
    files_or_folders: tuple[str, ...] = option(
        (), "Images, patterns such as 'photos/*.jpg', or folders of images."
    )
    out: str = option(
        "predictions.csv", "Table to write: CSV, or parquet if the name ends in .parquet."
    )
    shard: str = option(
        "",
        "Part of the files to predict, such as 3/16 for the third of 16 parts. Joined in order, the "
        "tables of all parts equal the table of all files.",
    )
    topk: int = option(5, "Classes to list for each image, 1 or more.", low=1)
    batch_size: int = option(64, "Images in a batch, 1 or more.", low=1)
    tta: int = option(1, TTA_HELP, choices=(1, 8))
    snapshots: bool = option(False, SNAPSHOTS_HELP)
    submission: str = option(
        "",
        "Sample submission of a competition. Its rows, filled with predictions, are written to --out.",
    )
    heatmaps: str = option(
        "",
        "Folder for heat maps: a PNG for every image shows where the network saw the predicted class. "
        "For a run only, not for an export.",
    )
    overwrite: bool = option(
        False, "Replace --out if it exists, and write to --heatmaps even if it holds files."
    )

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid or do not fit together."""
        super().check_together()
        if self.heatmaps and self.submission:
            raise UserError("--heatmaps excludes --submission; run the command once with each")
        if self.shard and (self.submission or self.heatmaps):
            other = "--submission" if self.submission else "--heatmaps"
            raise UserError(
                f"--shard={self.shard}: excludes {other}, which needs all files; leave one of them out"
            )
        if self.submission and self.out.endswith(".parquet"):
            raise UserError(f"--out={self.out}: a submission is CSV; pass a name ending in .csv")
        parse_shard(self.shard)


def parse_shard(text: str) -> tuple[int, int]:
    """Parses ``number/count``: the number of a shard, from 1, and the number of shards.

    An empty text means all files, which are one shard.

    Raises:
        UserError: ``text`` has another form, or its number is not from 1 to the number of shards.

    Example:
        >>> parse_shard("3/16"), parse_shard("")
        ((3, 16), (1, 1))
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text or "1/1")
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(
            f"--shard={text}: no such shard; pass number/count, such as 1/16 to 16/16 for 16 shards"
        )
    return number, count


def run(arguments: list[str]) -> int:
    """Writes the table; returns 0, or 3 if an image could not be predicted."""
    config = parse_config(PredictConfig, "predict", arguments, POSITIONALS)
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
        num_rows = write_submission(classifier, inputs, sample, out, batch_size=batch_size)
        result = {"out": str(out), "files": num_rows, "bad": 0}
        report_text(f"{out}: {format_count(num_rows, 'row')}")
    else:
        heatmaps = make_heatmap_folder(config.heatmaps, config.overwrite)
        counts = write_predictions(
            classifier,
            inputs,
            out,
            topk=config.topk,
            batch_size=batch_size,
            heatmaps=heatmaps,
            shard=parse_shard(config.shard),
        )
        result = {"out": str(out), "files": counts.num_files, "bad": counts.num_bad}
        report_text(
            f"{out}: {format_count(counts.num_files, 'file')}, "
            f"{counts.num_files - counts.num_bad:,} predicted"
        )
        if counts.num_bad:
            bad_files = f"{counts.num_bad} of {counts.num_files} have no prediction"
            report_error(
                f"seedtf predict: {bad_files}, first {counts.first_bad}; see the column status"
            )
    report_result(json.dumps(result))
    return EXIT_BAD_FILES if result["bad"] else 0
