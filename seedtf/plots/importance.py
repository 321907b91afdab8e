"""The image of a search: what mattered, and every flag's values against the validation loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seedtf.plots.base import BEST, GREY, TRAIN, clip_label, new_figure, style_axes
from seedtf.tuning.space import Dimension, short
from seedtf.tuning.trial_row import TrialRow, best_row

__all__ = ["draw_importance"]

_COLUMNS = 4
_BAR, _CELL = 0.24, 2.1  # inches high
# of the trials, so that one that ran away does not press the others together
_SHOWN_SHARE = 0.9


def draw_importance(
    space: Sequence[Dimension],
    rows: Sequence[TrialRow],
    importances: Mapping[str, float],
    *,
    title: str,
) -> Figure:
    """Bars of each flag's importance above small panels of its values against the validation loss.

    Args:
        space: the searched flags, at least one.
        rows: ended trials, at least one of them done.
        importances: share by flag, 0 to 1; empty draws a line that says so instead of bars.
        title: shown above as it is.
    """
    names = sorted((each.name for each in space), key=lambda name: -importances.get(name, 0.0))
    dimensions = {each.name: each for each in space}
    columns = min(len(names), _COLUMNS)
    lines = -(-len(names) // columns)
    upper_height = _BAR * len(names) + 0.9 if importances else 0.5
    height = upper_height + _CELL * lines + 0.9
    figure = new_figure(max(2.4 * columns, 5.0), height)
    figure.suptitle(clip_label(title, 90), parse_math=False)
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper_height, _CELL * lines])
    upper, lower = parts
    _draw_bars(upper, names, importances)
    drawn = [row for row in rows if math.isfinite(row.val_loss)]
    top = float(np.quantile([row.val_loss for row in drawn], _SHOWN_SHARE))
    grid = lower.subplots(lines, columns, squeeze=False, sharey=True)
    for place, axes in enumerate(grid.ravel()):
        if place >= len(names):
            axes.set_visible(False)
            continue
        _draw_values(axes, dimensions[names[place]], drawn)
        if place % columns == 0:
            axes.set_ylabel("validation loss", fontsize="small")
    low = min(row.val_loss for row in drawn)
    room = 0.08 * max(top - low, 1e-6)
    grid[0, 0].set_ylim(low - room, top + 2 * room)
    marks = grid[0, 0].get_legend_handles_labels()
    lower.legend(*marks, loc="outside upper center", ncols=3, fontsize="small", frameon=False)
    return figure


def _draw_bars(figure: Any, names: Sequence[str], importances: Mapping[str, float]) -> None:
    if not importances:
        figure.suptitle(
            "too few finished trials to tell what mattered", fontsize="small", color=GREY
        )
        return
    axes = figure.subplots()
    shares = [importances.get(name, 0.0) for name in names]
    bars = axes.barh(range(len(names)), shares, color=TRAIN)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize="small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(*shares, 0.01))
    axes.set_xlabel("share in what parts the best tenth of the finished trials from the others")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_values(axes: Axes, dimension: Dimension, rows: Sequence[TrialRow]) -> None:
    kinds = (("done", TRAIN, "o", "trained"), ("pruned", GREY, "x", "pruned"))
    places = {value: place for place, value in enumerate(dimension.choices)}
    best = [row for row in (best_row(rows),) if row is not None]

    def position(row: TrialRow) -> float:
        value = row.values[dimension.name]
        return places[value] if places else value

    for outcome, color, marker, label in kinds:
        chosen = [row for row in rows if row.outcome == outcome]
        axes.scatter(
            [position(row) for row in chosen],
            [row.val_loss for row in chosen],
            s=14,
            color=color,
            marker=marker,
            linewidths=1,
            alpha=0.8,
            label=label if chosen else None,
        )
    axes.plot(
        [position(row) for row in best],
        [row.val_loss for row in best],
        "D",
        color=BEST,
        markerfacecolor="none",
        markersize=8,
        linestyle="none",
        label="best",
    )
    if places:
        axes.set_xticks(list(places.values()), [short(value) for value in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif not dimension.step:
        axes.set_xscale("log")
        axes.set_xlim(dimension.low / 1.2, dimension.high * 1.2)
    else:
        room = 0.04 * (dimension.high - dimension.low)
        axes.set_xlim(dimension.low - room, dimension.high + room)
    axes.set_title(dimension.name, fontsize="small")
    axes.tick_params(labelsize="x-small")
    style_axes(axes)
