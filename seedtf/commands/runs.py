"""``seedtf runs``: lists the runs below a folder, with accuracy and the flags that differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import Flags, option
from seedtf.report import report, report_text
from seedtf.runs.listing import SORT_KEYS, differing_flags, list_runs
from seedtf.runs.paths import RUNS, RUNS_PAGE

__all__ = ["RunsConfig", "run"]

POSITIONALS = ("folder",)


@dataclass(frozen=True)
class RunsConfig(Flags):
    """The folder and the flags of ``seedtf runs``."""

    folder: str = option(str(RUNS), "Folder that contains the runs, also in sub-folders.")
    sort: str = option(
        "name",
        "Order of the runs: by a value, the best first; or by name in reverse, so that the newest are "
        "first if names begin with the date.",
        choices=SORT_KEYS,
    )
    out: str = option(
        "",
        "HTML page to write. Without this flag, a read-only folder gets no page.",
        default_text=f"FOLDER/{RUNS_PAGE}",
    )
    json: bool = option(False, "Print one line of JSON instead of the table, and write no page.")


def run(arguments: list[str]) -> int:
    """Prints the table, writes the page, and returns the exit code."""
    config = parse_config(RunsConfig, "runs", arguments, POSITIONALS)
    runs = list_runs(config.folder, config.sort)
    flags = differing_flags(runs)
    if config.json:
        report_text(json.dumps([summary.as_json(flags) for summary in runs]))
        return 0
    from seedtf.evaluation.runs_page import table_lines, write_runs_page

    for line in table_lines(runs, flags):
        report_text(line)
    page = Path(config.out or Path(config.folder) / RUNS_PAGE)
    try:
        write_runs_page(page, runs, flags)
    except OSError as error:
        if config.out:
            raise
        report("page", f"not written to {page}: {error.strerror}")
    else:
        report("page", str(page))
    return 0
