"""``seedtf probe``: compares pretrained networks on your images without training them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.data_flags import (
    FILE_COLUMN_HELP,
    LABEL_COLUMN_HELP,
    LABELS_CSV_HELP,
    LAYOUTS,
    SPLIT_COLUMN_HELP,
    TWINS,
    check_layout,
)
from seedtf.config.flags import AUTO, Flags, option
from seedtf.errors import UserError
from seedtf.files import check_out_folder
from seedtf.report import report, report_result, report_text
from seedtf.runs.folds import check_folds

__all__ = ["ProbeConfig", "run"]

POSITIONALS = ("data_dir",)


@dataclass(frozen=True)
class ProbeConfig(Flags):
    """The folder and the flags of ``seedtf probe``."""

    data_dir: str = option(
        "",
        "Folder of labelled images in any layout of seedtf train, or an archive of such a folder.",
    )
    models: str = option(
        "",
        "Networks to compare, separated by commas: names as for --model of seedtf train, or run "
        "folders, whose trained networks are compared.",
    )
    image_size: int = option(
        0,
        "Side in pixels that images are resized to, 8 to 2048.",
        low=0,
        high=2048,
        default_text="the size of the run, or the only size that the network accepts, or 224",
    )
    weights: str = option(
        "imagenet", "Weights of --models, as for seedtf train; a run folder has its own."
    )
    folds: str = option(
        "5", "Number of folds, 2 to 200, or 'groups' for one fold per group of images."
    )
    group_by: str = option(
        "", "What groups the images, as for seedtf train. Each group is in one fold only."
    )
    group_regex: str = option(
        "", "Pattern whose captured part in a path is the group of the image."
    )
    groups_csv: str = option("", "Table of files and their groups, as for seedtf train.")
    twins: str = option(
        AUTO,
        "Near duplicates: keep them in one fold (together), or do not look for them (ignore); auto is "
        "as for seedtf train.",
        choices=TWINS,
    )
    labels_csv: str = option("", LABELS_CSV_HELP.replace("--data_dir", "DATA_DIR"))
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", f"{SPLIT_COLUMN_HELP} Its test rows are left out.")
    layout: str = option(AUTO, "Layout of DATA_DIR, as for seedtf train.", choices=LAYOUTS)
    seed: int = option(0, "Seed of the folds, 0 or more.", low=0)
    cache_dir: str = option("", "Folder for cache files; default $XDG_CACHE_HOME/seedtf.")
    batch_size: int = option(32, "Images in a batch, 1 or more.", low=1)
    out: str = option("probe", "Folder for probe.csv, probe.png and predictions.csv.")
    save: str = option(
        "",
        "New run folder for the network with the best logistic regression. The head of the network is "
        "fitted without the first fold. evaluate, predict, export and --continue accept the run.",
    )
    overwrite: bool = option(False, "Replace the files in --out if there are some.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other, and for an invalid number of folds."""
        super().check_together()
        check_layout(self)
        check_folds(self.folds)

    def training_flags(self) -> dict[str, object]:
        """The flags that ``seedtf train`` has too, with the same meaning."""
        names = (
            *("weights", "seed", "cache_dir", "layout", "labels_csv", "file_column"),
            *("label_column", "split_column", "group_by", "group_regex", "groups_csv", "twins"),
        )
        return {name: getattr(self, name) for name in names}


def run(arguments: list[str]) -> int:
    """Prints the table, writes the files and returns the exit code."""
    config = parse_config(ProbeConfig, "probe", arguments, POSITIONALS)
    out = Path(config.out)
    check_out_folder(out, "--out", overwrite=config.overwrite)
    if config.save:
        check_out_folder(config.save, "--save", overwrite=None)
    import_tensorflow()
    from seedtf.probing.output import save_best_head, table_lines, write_probe
    from seedtf.probing.probe import probe

    result = probe(
        config.data_dir,
        [name.strip() for name in config.models.split(",") if name.strip()],
        image_size=config.image_size,
        folds=config.folds,
        embed_batch=config.batch_size,
        **config.training_flags(),
    )
    for line in table_lines(result):
        report_text(line)
    try:
        out.mkdir(parents=True, exist_ok=True)
        report("figure", str(write_probe(result, out)))
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror or error}; pass another folder") from error
    best = result.rows[0]
    values: dict[str, object] = {
        "out": str(out),
        "images": len(result.records),
        "model": best.embedder.name,
        "classifier": best.classifier,
        "accuracy": best.accuracy,
        "accuracy_interval_95": list(best.interval),
    }
    if config.save:
        saved, accuracy = save_best_head(result, config.save)
        num_val = int((result.folds == 0).sum())
        row = result.best_logistic_row
        report(
            "saved",
            f"{saved}: {row.embedder.name} with its fitted head; accuracy {accuracy:.4f} on its "
            f"{num_val:,} validation images, the first fold",
        )
        values |= {"saved": str(saved), "val_accuracy": accuracy}
    report_result(json.dumps(values))
    return 0
