"""``seedtf runs``: a table of many runs for the terminal, and a page with this table and the curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from seedtf.files import write_text
from seedtf.plots.base import figure_png
from seedtf.plots.page import format_percent, image_uri, render_page
from seedtf.plots.runs import MAX_CURVES, draw_runs
from seedtf.report import format_duration
from seedtf.runs.listing import RunSummary

__all__ = ["table_lines", "write_runs_page"]

_HEADINGS = ("run", "network", "data", "state", "epochs", "accuracy", "95 % interval", "time")
_MAX_CELL_WIDTH = 32


def table_lines(runs: Sequence[RunSummary], flags: Sequence[str]) -> list[str]:
    """The lines of a table with a row for each run, then one line for each of ``flags``.

    Args:
        runs: in the order to list them.
        flags: the names of the flags whose values differ between the runs.
    """
    rows = [_HEADINGS, *(_cells(run) for run in runs)]
    widths = [max(len(_clip(row[column])) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(map(str.ljust, map(_clip, row), widths)).rstrip() for row in rows]
    if flags:
        lines += ["", "flags that differ, in the order of the runs:"]
        for name in flags:
            values = ", ".join(_text(run.flags.get(name)) for run in runs)
            lines.append(f"  --{name}: {values}")
    return lines


def write_runs_page(path: Path, runs: Sequence[RunSummary], flags: Sequence[str]) -> None:
    """Writes the page: the table, with a column for each of ``flags``, and the validation curves.

    Only the first ``MAX_CURVES`` runs that have a history get a curve. The page is a single file, with
    one script, which sorts the table by a column.

    Raises:
        OSError: ``path`` cannot be written.
    """
    curves = [(run.name, run.history) for run in runs if run.history]
    page = render_page(
        __package__,
        "runs.html.jinja",
        headings=_HEADINGS,
        rows=[
            (
                run.page,
                _cells(run),
                _sort_values(run),
                [_text(run.flags.get(name)) for name in flags],
            )
            for run in runs
        ],
        flags=flags,
        curves=image_uri(figure_png(draw_runs(curves))) if curves else None,
        num_hidden=max(len(curves) - MAX_CURVES, 0),
    )
    write_text(path, page)


def _cells(run: RunSummary) -> tuple[str, ...]:
    interval = ""
    if run.interval:
        interval = f"{100 * run.interval[0]:.1f} to {100 * run.interval[1]:.1f}"
    accuracy = None if math.isnan(run.accuracy) else run.accuracy
    return (
        run.name,
        run.model,
        Path(run.data).name or run.data,
        run.state,
        f"{run.epochs} / {run.planned_epochs}",
        format_percent(accuracy).replace("\N{NO-BREAK SPACE}", " "),
        interval,
        "" if math.isnan(run.seconds) else format_duration(run.seconds),
    )


def _sort_values(run: RunSummary) -> tuple[str | float, ...]:
    """For each column of ``_HEADINGS``, the value to sort by; an unknown number is -1, the lowest."""
    accuracy = -1.0 if math.isnan(run.accuracy) else run.accuracy
    low = run.interval[0] if run.interval else -1.0
    seconds = -1.0 if math.isnan(run.seconds) else run.seconds
    return (run.name, run.model, run.data, run.state, run.epochs, accuracy, low, seconds)


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_CELL_WIDTH else text[: _MAX_CELL_WIDTH - 1] + "…"


def _text(value: object) -> str:
    if value in (None, ""):
        return "–"
    return str(value).lower() if isinstance(value, bool) else str(value)
