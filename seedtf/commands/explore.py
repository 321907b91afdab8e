"""``seedtf explore``: writes a page to review suspected labels, near duplicates and poor images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.data_flags import (
    FILE_COLUMN_HELP,
    FIXES_HELP,
    LABEL_COLUMN_HELP,
    LABELS_CSV_HELP,
    LAYOUTS,
    SPLIT_COLUMN_HELP,
    check_layout,
)
from seedtf.config.flags import AUTO, Flags, option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.files import check_out_folder
from seedtf.images.header import MAX_PIXELS
from seedtf.report import format_count, report, report_result
from seedtf.runs.folds import is_folds

__all__ = ["ExploreConfig", "run"]

POSITIONALS = ("source",)

_DEFAULT_MODEL = "EfficientNetV2B0"
_DATA_FLAGS = (
    *("layout", "labels_csv", "file_column", "label_column", "split_column"),
    *("group_by", "group_regex", "groups_csv"),
)


@dataclass(frozen=True)
class ExploreConfig(Flags):
    """The images and the flags of ``seedtf explore``."""

    source: str = option(
        "", "Labelled images as for seedtf train, or a finished folder of seedtf folds."
    )
    model: str = option(
        "",
        "For a folder of images: the network or the run whose features are used. A folder of seedtf "
        "folds has its own networks.",
        default_text=_DEFAULT_MODEL,
    )
    weights: str = option("imagenet", "Weights of --model, as for seedtf train.")
    image_size: int = option(
        0,
        "Side in pixels that images are resized to; 0 for the size of the run, or the only size that "
        "the network accepts, or 224.",
        low=0,
        high=2048,
    )
    layout: str = option(AUTO, "Layout of the folder, as for seedtf train.", choices=LAYOUTS)
    labels_csv: str = option("", LABELS_CSV_HELP.replace("--data_dir", "the folder"))
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", SPLIT_COLUMN_HELP)
    group_by: str = option("", "Groups of images, as for seedtf train.")
    group_regex: str = option("", "Pattern of groups, as for seedtf train.")
    groups_csv: str = option("", "Table of groups, as for seedtf train.")
    fixes: str = option("", f"{FIXES_HELP} Images in the table are not suggested again.")
    map: str = option(
        AUTO,
        "Method that places the images on the map; auto is umap if it is installed, else pca.",
        choices=(AUTO, "umap", "pca"),
    )
    max_pixels: int = option(
        MAX_PIXELS, "Largest width × height of an image that is decoded, 1024 or more.", low=1024
    )
    out: str = option(
        "",
        "Folder of the page.",
        default_text="explore, or SOURCE/explore for a folder of seedtf folds",
    )
    overwrite: bool = option(False, "Replace an existing page in --out.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        check_layout(self)


def run(arguments: list[str]) -> int:
    """Writes the page and the table, prints what was found, and returns the exit code."""
    config = parse_config(ExploreConfig, "explore", arguments, POSITIONALS)
    has_folds = is_folds(config.source)
    if has_folds:
        _check_folds_flags(config)
    out = Path(config.out or (Path(config.source) / "explore" if has_folds else "explore"))
    check_out_folder(out, "--out", overwrite=config.overwrite)
    import_tensorflow()
    from seedtf.explore.page import write_page
    from seedtf.explore.review import review
    from seedtf.explore.sources import open_folder, open_folds

    limit = config.max_pixels
    if has_folds:
        explored = open_folds(Path(config.source), fixes=config.fixes, max_pixels=limit)
    else:
        model = config.model or _DEFAULT_MODEL
        explored = open_folder(
            _data_config(config), model, config.image_size, config.weights, max_pixels=limit
        )
    found = review(explored)
    title = Path(config.source).resolve().name
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = write_page(explored, found, out, title=title, method=config.map, max_pixels=limit)
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror or error}; pass another folder") from error
    num_across, num_images = sum(found.across), len(explored.catalog)
    suspects = format_count(len(found.suspects), "image")
    report("to decide", f"{suspects}, the most doubtful labels first")
    report("wrong", f"{int(found.wrong.sum()):,} of {num_images:,} labels, by confident learning")
    split = f", {num_across} of them on different sides of the split" if num_across else ""
    sets = format_count(len(found.near_duplicates), "set")
    report("similar", f"{sets} of near duplicates{split}")
    outliers = format_count(len(found.outliers), "image")
    report("outliers", f"{outliers} with the most distant nearest neighbours")
    report("quality", format_count(len(found.poor), "poor image"))
    if written.num_shown < num_images:
        report(
            "sample",
            f"the page has {written.num_shown:,} of {num_images:,} images: first the suspects, "
            "outliers, near duplicates and poor images, in this order and as far as there is room, "
            "then a sample of the other images that keeps the proportions of the classes; explore.csv "
            "has all images",
        )
    report("page", f"{written.page}; the map is {written.projection}")
    report("table", str(written.table))
    result = {
        "page": str(written.page),
        "table": str(written.table),
        "images": num_images,
        "shown": written.num_shown,
        "to_decide": len(found.suspects),
        "likely_wrong": int(found.wrong.sum()),
    }
    report_result(json.dumps(result))
    return 0


def _check_folds_flags(config: ExploreConfig) -> None:
    defaults = ExploreConfig()
    for name in ("model", "weights", "image_size", *_DATA_FLAGS):
        if getattr(config, name) != getattr(defaults, name):
            raise UserError(
                f"--{name}={getattr(config, name)}: {config.source} is a folder of seedtf folds, whose "
                "runs determine this; leave the flag out"
            )


def _data_config(config: ExploreConfig) -> TrainConfig:
    names = (*_DATA_FLAGS, "fixes", "max_pixels")
    return TrainConfig(data_dir=config.source, **{name: getattr(config, name) for name in names})
