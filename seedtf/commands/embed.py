"""``seedtf embed``: writes the features that a network computes from images."""

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
    check_layout,
    check_local,
)
from seedtf.config.flags import AUTO, Flags, option
from seedtf.errors import UserError
from seedtf.report import format_count, format_duration, report, report_error, report_result

__all__ = ["EmbedConfig", "run"]

POSITIONALS = ("data_dir",)

EXIT_BAD_FILES = 3


@dataclass(frozen=True)
class EmbedConfig(Flags):
    """The folder and the flags of ``seedtf embed``."""

    data_dir: str = option(
        "",
        "Folder of images, with labels in any layout of seedtf train or without labels; an archive of "
        "such a folder; or 'sample'.",
    )
    model: str = option(
        "",
        "Network that computes the features: a value of --model of seedtf train, or a run folder.",
    )
    image_size: int = option(
        0,
        "Side in pixels that images are resized to, 8 to 2048.",
        low=0,
        high=2048,
        default_text="the size of the run, or the only size that the network accepts, or 224",
    )
    weights: str = option(
        "imagenet", "Weights of --model, as for seedtf train; a run folder has its own."
    )
    labels_csv: str = option("", LABELS_CSV_HELP.replace("--data_dir", "DATA_DIR"))
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", SPLIT_COLUMN_HELP)
    layout: str = option(AUTO, "Layout of DATA_DIR, as for seedtf train.", choices=LAYOUTS)
    cache_dir: str = option("", "Folder for cache files; default $XDG_CACHE_HOME/seedtf.")
    batch_size: int = option(32, "Images in a batch, 1 or more.", low=1)
    out: str = option(
        "embeddings.npy",
        "NumPy file to write: float32, one row for each image. A table of the same name, with the "
        "suffix .csv, names the file and the label of each row.",
    )
    overwrite: bool = option(False, "Replace --out and its table if they exist.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other, and if ``--out`` is no ``.npy`` file."""
        super().check_together()
        check_layout(self)
        check_local("cache_dir", self.cache_dir)
        if Path(self.out).suffix != ".npy":
            raise UserError(f"--out={self.out}: pass a name that ends with .npy")


def run(arguments: list[str]) -> int:
    """Writes the features and their table; returns 0, or 3 if a file could not be used."""
    config = parse_config(EmbedConfig, "embed", arguments, POSITIONALS)
    import_tensorflow()
    from seedtf.data.columns import Columns
    from seedtf.evaluation.embed import embed_images, write_embeddings
    from seedtf.evaluation.predict import check_out

    out = check_out(config.out, config.overwrite)
    check_out(out.with_suffix(".csv"), config.overwrite)
    embeddings = embed_images(
        config.data_dir,
        config.model,
        image_size=config.image_size,
        weights=config.weights,
        layout=config.layout,
        labels_csv=config.labels_csv,
        columns=Columns(config.file_column, config.label_column, config.split_column),
        cache_dir=config.cache_dir,
        batch_size=config.batch_size,
    )
    try:
        table = write_embeddings(embeddings, out)
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror or error}; pass another path") from error
    images, dimensions = embeddings.features.shape
    how = "from the cache" if embeddings.from_cache else format_duration(embeddings.seconds)
    report("features", f"{out}: {images:,} images × {dimensions:,}, {how}")
    report("files", f"{table}: the file of each row")
    faults = embeddings.catalog.faults
    result = {
        "out": str(out),
        "table": str(table),
        "images": images,
        "dimensions": dimensions,
        "left_out": len(faults),
        "from_cache": embeddings.from_cache,
        "seconds": round(embeddings.seconds, 2),
    }
    if faults:
        first = f"{faults[0].path}: {faults[0].fault} ({faults[0].detail})"
        files = format_count(len(faults), "file")
        report_error(f"seedtf embed: {files} without a row; the first is {first}")
    report_result(json.dumps(result))
    return EXIT_BAD_FILES if faults else 0
