"""``seedtf check``: finds what is wrong with a folder of images before a training uses it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.images.header import MAX_PIXELS
from seedtf.report import report, report_text
from seedtf.runs.paths import DATA_REPORT

if TYPE_CHECKING:
    from seedtf.data.check.check import DataCheck

__all__ = ["CheckConfig", "run"]

EXIT_FINDINGS = 1
_MAX_SHOWN = 10


@dataclass(frozen=True)
class CheckConfig(Flags):
    """The folder and the flags of ``seedtf check``."""

    data_dir: str = option("", "Folder with one sub-folder of images per class.")
    labels_csv: str = option("", "Table with the columns file (below DATA_DIR) and label.")
    max_pixels: int = option(
        MAX_PIXELS, "Largest width × height that is decoded, 1024 or more.", low=1024
    )
    out: str = option(DATA_REPORT, "Table to write: path, fault, detail, severity.")


def run(arguments: list[str]) -> int:
    """Writes the table and prints a summary; returns 0 if there are only notes, otherwise 1."""
    config = parse_config(CheckConfig, "check", arguments, positionals=("data_dir",))
    import_tensorflow()
    from seedtf.data.check.check import check_data, write_findings

    data_check = check_data(config.data_dir, config.labels_csv, config.max_pixels)
    write_findings(Path(config.out), data_check.findings, config.data_dir)
    for line in _summary(data_check):
        report_text(line)
    report("report", f"{config.out}: {len(data_check.findings)} lines")
    return 0 if data_check.clean else EXIT_FINDINGS


def _summary(data_check: DataCheck) -> list[str]:
    counts = data_check.catalog.class_counts()
    formats = ", ".join(f"{count:,} {name}" for name, count in data_check.formats.items()) or "none"
    lines = [f"usable    {len(data_check.catalog):,} images in {len(counts)} classes: {formats}"]
    if len(data_check.sizes):
        sides = [f"{'×'.join(str(int(side)) for side in pair)}" for pair in _spread(data_check)]
        lines.append(f"sizes     {sides[0]} smallest, {sides[1]} median, {sides[2]} largest")
    lines += [f"class     {name}: {count:,}" for name, count in counts.items()]
    for severity in ("left out", "warning", "note"):
        kinds = Counter(f.fault for f in data_check.findings if f.severity == severity)
        lines += [f"{severity:10}{kind}: {count:,}" for kind, count in kinds.most_common()]
    bad = [f for f in data_check.findings if f.severity != "note"]
    lines += [f"{f.path}: {f.fault} ({f.detail})" for f in bad[:_MAX_SHOWN]]
    if len(bad) > _MAX_SHOWN:
        lines.append(f"… and {len(bad) - _MAX_SHOWN} more findings in the report")
    return lines


def _spread(data_check: DataCheck) -> list[tuple[int, int]]:
    """The sizes with the fewest, the median and the most pixels."""
    order = data_check.sizes.prod(1).argsort(kind="stable")
    return [tuple(data_check.sizes[order[at]]) for at in (0, len(order) // 2, -1)]
