"""``seedtf pack``: writes the images of any source into a few large files to train on."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.config.data_flags import (
    FILE_COLUMN_HELP,
    LABEL_COLUMN_HELP,
    LABELS_CSV_HELP,
    LAYOUTS,
    SPLIT_COLUMN_HELP,
    check_layout,
)
from seedtf.config.flags import AUTO, Flags, default_cache_dir, option
from seedtf.data.columns import Columns
from seedtf.errors import UserError
from seedtf.report import format_bytes, format_count, report, report_result

__all__ = ["PackConfig", "run"]

POSITIONALS = ("source",)

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class PackConfig(Flags):
    """The source and the flags of ``seedtf pack``."""

    source: str = option(
        "",
        "Folder or archive of labelled images in any layout of --data_dir, or WebDataset tars, "
        "TFRecords, parquet or Arrow files: one file or a folder of them.",
    )
    out: str = option("packed", "Folder to create, for seedtf train --data_dir.")
    shard_mb: int = option(
        256,
        "Largest size in MB of the images in one file, 1 to 16384; a larger image gets its own file.",
        low=1,
        high=16_384,
    )
    layout: str = option(AUTO, "Layout of SOURCE, as for seedtf train.", choices=LAYOUTS)
    labels_csv: str = option("", LABELS_CSV_HELP.replace("--data_dir", "SOURCE"))
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", SPLIT_COLUMN_HELP)

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        check_layout(self)


def run(arguments: list[str]) -> int:
    """Packs the images and returns the exit code."""
    config = parse_config(PackConfig, "pack", arguments, POSITIONALS)
    from seedtf.data.pack.sources import open_source
    from seedtf.data.pack.write import check_pack_out, write_pack

    out = Path(config.out)
    check_pack_out(out)
    columns = Columns(config.file_column, config.label_column, config.split_column)
    source = open_source(
        config.source, config.labels_csv, columns, config.layout, default_cache_dir()
    )
    try:
        packed = write_pack(source, out, shard_bytes=config.shard_mb * MEGABYTE)
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror or error}; pass another folder") from error
    images = f"{packed.images:,} images of {packed.classes:,} classes"
    shards = format_count(packed.shards, "shard")
    report("packed", f"{images}, {format_bytes(packed.bytes)} in {shards}")
    for reason, count in packed.left_out.items():
        report("left out", f"{reason}: {count:,}")
    report("next", shlex.join(["seedtf", "train", f"--data_dir={out}"]))
    report_result(json.dumps({"out": str(out), **dataclasses.asdict(packed)}))
    return 0
