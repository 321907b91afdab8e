"""``DataFlags``: the images for training and validation, their split, their size and their cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from seedtf.config.flags import AUTO, Flags, default_cache_dir, option
from seedtf.data.groups import FOLDER
from seedtf.data.layouts import FLAT, FOLDERS, SPLIT_FOLDERS, TABLE
from seedtf.data.paths import is_url
from seedtf.errors import UserError
from seedtf.images.header import FIT_MODES, MAX_PIXELS, STRETCH

__all__ = [
    "BALANCED",
    "CACHES",
    "CHECKS",
    "FILE_COLUMN_HELP",
    "FIXES_HELP",
    "LABELS_CSV_HELP",
    "LABEL_COLUMN_HELP",
    "LAYOUTS",
    "LAYOUT_FLAGS",
    "PATH_FLAGS",
    "SAMPLE",
    "SAMPLERS",
    "SPLIT_COLUMN_HELP",
    "SPLIT_FLAGS",
    "TWINS",
    "DataFlags",
    "check_has_data_dir",
    "check_layout",
    "check_local",
]

SAMPLE = "sample"
"""The value of ``data_dir`` that means the embedded sample data."""

BALANCED = "balanced"
"""The value of ``sampler`` that draws the same number of images from every class."""

PATH_FLAGS = (
    *("data_dir", "val_dir", "labels_csv", "split_csv", "groups_csv", "fixes", "pseudo_labels"),
    "cache_dir",
)
"""Flags that are paths of data or of the cache.

They may have other values when a run is resumed, because the data is compared, not the paths.
"""

LAYOUT_FLAGS = ("layout", "file_column", "label_column", "split_column")
"""Flags about how the data is read.

They may have other values when a run is resumed, because the data is compared, not these flags.
"""

LAYOUTS = (AUTO, FOLDERS, SPLIT_FOLDERS, TABLE, FLAT)
LABELS_CSV_HELP = (
    "Table of files (relative to --data_dir) and labels; its separator and columns are detected."
)
FILE_COLUMN_HELP = "Column of the table with the files: its header or its number from 1."
LABEL_COLUMN_HELP = "Column of the table with the labels: its header or its number from 1."
FIXES_HELP = (
    "Table of corrections from seedtf explore, with the columns path, action (relabel, keep or drop) "
    "and label. It relabels images or leaves them out; no image file is changed."
)
SPLIT_COLUMN_HELP = (
    "Column of the table with train, val or test: its header or its number from 1; 'none' for no "
    "split."
)
SPLIT_FLAGS = ("group_by", "group_regex", "test_fraction", "twins")
"""Flags that decide the split.

They may have other values when a run is resumed, because the split is compared, not these flags.
"""

TWINS = (AUTO, "together", "ignore")
SAMPLERS = ("shuffle", BALANCED)
_MAX_HELD_OUT = 0.9
CACHES = (AUTO, "ram", "disk", "off")
CHECKS = (AUTO, "all", "sample")


@dataclass(frozen=True)
class DataFlags(Flags):
    """Folder, split, image size and cache."""

    HEADING: ClassVar[str] = "Data"

    data_dir: str = option(
        "",
        "Folder with one sub-folder of images per class, or in another --layout; a ZIP or tar archive "
        "of such a folder; or 'sample' for the embedded data.",
    )
    image_size: int = option(
        224, "Side in pixels that images are resized to, 8 to 2048.", low=8, high=2048
    )
    fit: str = option(
        STRETCH,
        "How an image becomes square: stretched, padded with black, or cropped to the square in its "
        "centre.",
        choices=FIT_MODES,
    )
    val_fraction: float = option(
        0.15, "Fraction of each class held out for validation, 0.01 to 0.9.", low=0.01, high=0.9
    )
    val_dir: str = option(
        "", "Folder of validation images with the same classes, instead of a split of --data_dir."
    )
    split_csv: str = option("", "The split.csv of another run, to train on exactly the same split.")
    test_fraction: float = option(
        0.0,
        "Fraction of each class held out as test images, 0 to 0.5. They are used neither for training "
        "nor to choose the best epoch; seedtf evaluate writes a second report on them.",
        low=0.0,
        high=0.5,
    )
    group_by: str = option(
        "",
        "What groups the images: a column of --labels_csv or --groups_csv, or 'folder' for the folder "
        "of the image. The split never divides a group.",
    )
    group_regex: str = option(
        "",
        "Regular expression that is searched in the path of an image, such as '(plant\\d+)_'; the part "
        "in parentheses is the group of the image.",
    )
    groups_csv: str = option(
        "",
        "Table of files and their groups. The column of the groups is the one that --group_by "
        "names; by default it is 'group'.",
    )
    twins: str = option(
        AUTO,
        "What to do with near duplicates (re-encoded, resized, mirrored or turned copies) among local "
        "images: keep them on one side of the split (together), or do not search for them (ignore). "
        "auto keeps them together if there are at most 20,000 images.",
        choices=TWINS,
    )
    labels_csv: str = option("", LABELS_CSV_HELP)
    fixes: str = option("", FIXES_HELP)
    pseudo_labels: str = option(
        "",
        "Table that seedtf predict wrote for unlabelled images. Images predicted with --min_confidence "
        "or more become training images with the predicted label, but never validation images.",
    )
    min_confidence: float = option(
        0.95, "Smallest probability of a pseudo-label, 0 to 1.", low=0.0, high=1.0
    )
    pseudo_weight: float = option(
        0.5, "Weight of an image with a pseudo-label in the loss, 0.01 to 1.", low=0.01, high=1.0
    )
    layout: str = option(
        AUTO,
        "Layout of --data_dir: class folders (folders), class folders in train, val and test "
        "(split_folders), images that a table lists (table), or images whose names begin with their "
        "class (flat).",
        choices=LAYOUTS,
    )
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", SPLIT_COLUMN_HELP)
    sampler: str = option(
        "shuffle",
        "How an epoch chooses images: each image at most once in random order (shuffle), or the same "
        "number of images from every class (balanced).",
        choices=SAMPLERS,
    )
    cache: str = option(
        AUTO,
        "Where decoded images are stored: in memory (ram), in a memory-mapped file (disk), or nowhere "
        "(off), so that they are decoded again in every epoch.",
        choices=CACHES,
    )
    cache_dir: str = option(
        "", "Folder for cache files and the sample data; default $XDG_CACHE_HOME/seedtf."
    )
    check: str = option(
        AUTO,
        "Which images to open before training with --cache=off: every image (all), or 1,000 of "
        "them (sample); the others are then checked when training reads them. auto opens all if "
        "there are at most 20,000 images.",
        choices=CHECKS,
    )
    strict: bool = option(False, "Stop if a file cannot be used, instead of leaving it out.")
    max_pixels: int = option(
        MAX_PIXELS, "Largest width × height of an image that is decoded, 1024 or more.", low=1024
    )
    data_service: str = option(
        "",
        "Address (host:port) of a tf.data service that prepares the training batches; see seedtf "
        "data_service.",
    )

    @property
    def cache_folder(self) -> Path:
        """The folder ``cache_dir``, or the default folder; it need not exist."""
        return Path(self.cache_dir) if self.cache_dir else default_cache_dir()

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid or contradict each other."""
        super().check_together()
        check_local("cache_dir", self.cache_dir)
        if self.val_dir and self.split_csv:
            raise UserError("--val_dir and --split_csv exclude each other; pass one")
        check_layout(self)
        self._check_groups_and_fractions()
        if self.data_service and self.cache == "ram":
            raise UserError(
                "--cache=ram: the workers of --data_service cannot read this machine's memory; pass "
                "--cache=disk or off"
            )

    def _check_groups_and_fractions(self) -> None:
        if self.group_regex and (self.group_by or self.groups_csv):
            raise UserError("--group_regex excludes --group_by and --groups_csv; pass one")
        _check_pattern(self.group_regex)
        if self.group_by not in ("", FOLDER) and not (self.labels_csv or self.groups_csv):
            raise UserError(
                f"--group_by={self.group_by}: needs --labels_csv or --groups_csv with this column; "
                "'folder' needs no table"
            )
        if self.test_fraction + self.val_fraction > _MAX_HELD_OUT:
            raise UserError(
                f"--test_fraction={self.test_fraction:g}: with --val_fraction={self.val_fraction:g} "
                "leaves less than a tenth for training; lower one of them"
            )
        split_flag = "val_dir" if self.val_dir else "split_csv" if self.split_csv else ""
        if self.test_fraction and split_flag:
            raise UserError(
                f"--test_fraction={self.test_fraction:g}: --{split_flag} already gives the split; "
                "leave one of them out"
            )


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--group_regex={pattern}: not a pattern ({error}); pass a regular expression"
        ) from None


def check_layout(config: Any) -> None:
    """Raises UserError if ``--layout`` reads no table, but a flag of the table is set."""
    if config.layout in (AUTO, TABLE):
        return
    if config.labels_csv:
        raise UserError(f"--layout={config.layout}: excludes --labels_csv; leave one of them out")
    for name in LAYOUT_FLAGS:
        if name.endswith("_column") and getattr(config, name):
            raise UserError(
                f"--{name}={getattr(config, name)}: is a column of a table, which "
                f"--layout={config.layout} does not read; leave one of the two out"
            )


def check_has_data_dir(data_dir: str, **flags: str) -> None:
    """Raises UserError if a flag about the images in ``--data_dir`` is given without ``data_dir``.

    Args:
        data_dir: the folder of labelled images; empty for the images of the run.
        flags: the values of ``--labels_csv`` and of the flags in ``LAYOUT_FLAGS``, by name.
    """
    for name, value in flags.items():
        if value not in ("", AUTO) and not data_dir:
            raise UserError(
                f"--{name}={value}: needs --data_dir, the folder of the labelled images"
            )


def check_local(name: str, path: str) -> None:
    """Raises UserError if ``path``, the value of the flag ``name``, is a URL."""
    if is_url(path):
        raise UserError(f"--{name}={path}: must be on a disk of this machine; pass a local folder")
