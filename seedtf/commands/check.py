"""``seedtf check``: finds problems in a folder of images before it is used for training."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.data_flags import (
    FILE_COLUMN_HELP,
    LABEL_COLUMN_HELP,
    LABELS_CSV_HELP,
    LAYOUT_FLAGS,
    LAYOUTS,
    SPLIT_COLUMN_HELP,
    check_layout,
)
from seedtf.config.flags import AUTO, Flags, default_cache_dir, option
from seedtf.data.archives import unpack_archive
from seedtf.data.columns import Columns
from seedtf.errors import UserError
from seedtf.images.header import MAX_PIXELS
from seedtf.report import format_count, report, report_text
from seedtf.runs.paths import DATA_REPORT

if TYPE_CHECKING:
    from seedtf.data.check.check import DataCheck

__all__ = ["CheckConfig", "run"]

POSITIONALS = ("data_dir",)

EXIT_FINDINGS = 1
_MAX_SHOWN = 10


@dataclass(frozen=True)
class CheckConfig(Flags):
    """The folder and the flags of ``seedtf check``."""

    data_dir: str = option(
        "",
        "Folder with one sub-folder of images per class or in another layout, or an archive of such a "
        "folder.",
    )
    layout: str = option(AUTO, "Layout of DATA_DIR, as for seedtf train.", choices=LAYOUTS)
    labels_csv: str = option("", LABELS_CSV_HELP.replace("--data_dir", "DATA_DIR"))
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", SPLIT_COLUMN_HELP)
    max_pixels: int = option(
        MAX_PIXELS, "Largest width × height of an image that is decoded, 1024 or more.", low=1024
    )
    out: str = option(
        "",
        "CSV file to write, with the columns path, fault, detail and severity. Without this flag, no "
        "file is written if the working folder is read-only or inside the data folder, or if it has a "
        "folder, or a file of another kind, with the default name.",
        default_text=DATA_REPORT,
    )

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        check_layout(self)


def run(arguments: list[str]) -> int:
    """Writes the table and prints a summary; returns 0 if no finding is worse than a note, else 1.

    If the table cannot be written to its default path, the summary says why. If the path in ``--out``
    cannot be written, an error is raised.
    """
    config = parse_config(CheckConfig, "check", arguments, POSITIONALS)
    import_tensorflow()
    from seedtf.data.check.check import check_data, check_report_path, write_findings

    out, why_not_written = Path(config.out or DATA_REPORT), ""
    try:
        check_report_path(out, config.data_dir)
    except (OSError, UserError) as error:
        if config.out:
            raise
        why_not_written = str(error)
        if isinstance(error, OSError):  # for example, there is a folder with the name of the table
            why_not_written = f"--out={out}: {error.strerror}"
    columns = Columns(config.file_column, config.label_column, config.split_column)
    folder = unpack_archive(config.data_dir, "DATA_DIR", default_cache_dir())
    data_check = check_data(folder, config.labels_csv, config.max_pixels, columns, config.layout)
    if not why_not_written:
        write_findings(out, data_check.findings, config.data_dir)
    _report_summary(data_check)
    written = f"{out}: {format_count(len(data_check.findings), 'line')}"
    report("report", f"not written; {why_not_written}" if why_not_written else written)
    if data_check.refusal:
        report("train", f"would be refused: {data_check.refusal}")
    else:
        report("train", _train_command(config))
    return 0 if data_check.clean else EXIT_FINDINGS


def _train_command(config: CheckConfig) -> str:
    """The command that trains on the checked images."""
    names = ("data_dir", "labels_csv", *LAYOUT_FLAGS, "max_pixels")
    defaults = {flag.name: flag.default for flag in dataclasses.fields(CheckConfig)}
    given = [(name, getattr(config, name)) for name in names]
    flags = [f"--{name}={value}" for name, value in given if value != defaults[name]]
    return shlex.join(["seedtf", "train", *flags])


def _report_summary(data_check: DataCheck) -> None:
    counts = data_check.catalog.class_counts()
    formats = ", ".join(f"{count:,} {name}" for name, count in data_check.formats.items()) or "none"
    report("usable", f"{len(data_check.catalog):,} images in {len(counts)} classes: {formats}")
    if len(data_check.sizes):
        smallest, median, largest = (f"{w}×{h}" for w, h in _smallest_median_largest(data_check))
        report("sizes", f"{smallest} smallest, {median} median, {largest} largest")
    for name, count in counts.items():
        report("class", f"{name}: {count:,}")
    for severity in ("left out", "warning", "note"):
        faults = Counter(f.fault for f in data_check.findings if f.severity == severity)
        for fault, count in faults.most_common():
            report(severity, f"{fault}: {count:,}")
    serious = [finding for finding in data_check.findings if finding.severity != "note"]
    for finding in serious[:_MAX_SHOWN]:
        report_text(f"{finding.path}: {finding.fault} ({finding.detail})")
    if len(serious) > _MAX_SHOWN:
        others = format_count(len(serious) - _MAX_SHOWN, "more finding")
        report_text(f"… and {others}")


def _smallest_median_largest(data_check: DataCheck) -> list[tuple[int, int]]:
    """Width and height of the images with the fewest, the median and the most pixels."""
    ordered = data_check.sizes[data_check.sizes.prod(1).argsort(kind="stable")]
    return [(int(ordered[row, 0]), int(ordered[row, 1])) for row in (0, len(ordered) // 2, -1)]
