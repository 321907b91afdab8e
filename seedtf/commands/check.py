"""``seedtf check``: what is wrong with a folder of images, before anything trains on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import check_ranges, option
from seedtf.images.header import MAX_PIXELS
from seedtf.runs.paths import DATA_REPORT

if TYPE_CHECKING:
    from seedtf.data.check.check import DataCheck

__all__ = ["CheckConfig", "run"]

EXIT_FINDINGS = 1
_SHOWN = 10


@dataclass(frozen=True)
class CheckConfig:
    """The folder and the flags of ``seedtf check``."""

    data_dir: str = option("", "Folder with one sub-folder of images per class.")
    labels_csv: str = option("", "Table with the columns file (below DATA_DIR) and label.")
    max_pixels: int = option(
        MAX_PIXELS, "Largest width × height that is decoded, 1024 or more.", low=1024
    )
    out: str = option(DATA_REPORT, "Table to write: path, fault, detail, severity.")

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        check_ranges(self)


def run(arguments: list[str]) -> int:
    """Writes the table, prints a summary; 0 when there are notes at most, else 1."""
    config = parse_config(CheckConfig, "check", arguments, words=("data_dir",))
    import_tensorflow()
    from seedtf.data.check.check import check_data, write_findings

    found = check_data(config.data_dir, config.labels_csv, config.max_pixels)
    write_findings(Path(config.out), found.findings, config.data_dir)
    for line in _summary(found):
        print(line)
    print(f"report    {config.out}: {len(found.findings)} lines")
    return 0 if found.clean else EXIT_FINDINGS


def _summary(found: DataCheck) -> list[str]:
    counts = found.catalog.class_counts()
    formats = ", ".join(f"{count:,} {name}" for name, count in found.formats.items()) or "none"
    lines = [f"usable    {len(found.catalog):,} images in {len(counts)} classes: {formats}"]
    if len(found.sizes):
        sides = [f"{'×'.join(str(int(side)) for side in pair)}" for pair in _spread(found)]
        lines.append(f"sizes     {sides[0]} smallest, {sides[1]} median, {sides[2]} largest")
    lines += [f"class     {name}: {count:,}" for name, count in counts.items()]
    for severity in ("left out", "warning", "note"):
        kinds = Counter(f.fault for f in found.findings if f.severity == severity)
        lines += [f"{severity:10}{kind}: {count:,}" for kind, count in kinds.most_common()]
    bad = [f for f in found.findings if f.severity != "note"]
    lines += [f"{f.path}: {f.fault} ({f.detail})" for f in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"… and {len(bad) - _SHOWN} more findings in the report")
    return lines


def _spread(found: DataCheck) -> list[tuple[int, int]]:
    """The sizes with the fewest, the middle and the most pixels."""
    order = found.sizes.prod(1).argsort(kind="stable")
    return [tuple(found.sizes[order[at]]) for at in (0, len(order) // 2, -1)]
