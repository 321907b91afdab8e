"""Draws a hyperparameter search: the importance of each flag, and the loss against its values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seedtf.compat.matplotlib import default_style
from seedtf.plots.base import BEST_COLOR, GREY, TRAIN_COLOR, new_figure, style_axes

__all__ = ["SearchedFlag", "Trial", "draw_importance"]

_MAX_COLUMNS = 4
_BAR_INCHES, _PANEL_INCHES = 0.24, 2.1
# The axis of the loss ends at this quantile, because a very high loss would flatten all others.
_SHOWN_QUANTILE = 0.9


class SearchedFlag(Protocol):
    """The attributes of ``tuning.space.Dimension`` that are drawn."""

    @property
    def name(self) -> str:
        """The name of the flag."""

    @property
    def low(self) -> float:
        """The lower end of the searched range."""

    @property
    def high(self) -> float:
        """The upper end of the searched range."""

    @property
    def step(self) -> float:
        """The distance between values of the range; 0 for a logarithmic range."""

    @property
    def choices(self) -> tuple[Any, ...]:
        """The searched values of a flag without a range; empty for a flag with a range."""

    def choice_labels(self) -> tuple[str, ...]:
        """The choices as text."""


class Trial(Protocol):
    """The attributes of ``tuning.trial.TrialRow`` that are drawn."""

    @property
    def outcome(self) -> str:
        """``done`` or ``pruned``; trials with other outcomes are not drawn."""

    @property
    def val_loss(self) -> float:
        """The validation loss; trials with NaN are not drawn."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The value of each searched flag, by name."""


@default_style
def draw_importance(
    space: Sequence[SearchedFlag],
    trials: Sequence[Trial],
    best: Trial,
    importances: Mapping[str, float],
    *,
    title: str,
) -> Figure:
    """Draws the importance of each flag as a bar, and below the bars one panel for each flag.

    A panel shows the loss of each trial against the trial's value of the flag.

    Args:
        space: the searched flags, at least one.
        trials: the trials that have ended.
        best: the best trial of ``trials``; its loss is finite.
        importances: importance of each flag by name, 0 to 1; if empty, the bars are replaced by a text.
        title: the title of the figure, drawn as plain text.
    """
    names = sorted((flag.name for flag in space), key=lambda name: -importances.get(name, 0.0))
    flag_by_name = {flag.name: flag for flag in space}
    num_columns = min(len(names), _MAX_COLUMNS)
    num_rows = -(-len(names) // num_columns)
    upper_height = _BAR_INCHES * len(names) + 0.9 if importances else 0.5
    height = upper_height + _PANEL_INCHES * num_rows + 0.9
    figure = new_figure(max(2.4 * num_columns, 5.0), height, title, title_limit=90)
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper_height, _PANEL_INCHES * num_rows])
    upper, lower = parts
    _draw_bars(upper, names, importances)
    drawn = [trial for trial in trials if math.isfinite(trial.val_loss)]
    high = float(np.quantile([trial.val_loss for trial in drawn], _SHOWN_QUANTILE))
    grid = lower.subplots(num_rows, num_columns, squeeze=False, sharey=True)
    for index, axes in enumerate(grid.ravel()):
        if index >= len(names):
            axes.set_visible(False)
            continue
        _draw_values(axes, flag_by_name[names[index]], drawn, best)
        if index % num_columns == 0:
            axes.set_ylabel("validation loss", fontsize="small")
    low = min(trial.val_loss for trial in drawn)
    margin = 0.08 * max(high - low, 1e-6)
    grid[0, 0].set_ylim(low - margin, high + 2 * margin)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    lower.legend(
        handles, labels, loc="outside upper center", ncols=3, fontsize="small", frameon=False
    )
    return figure


def _draw_bars(figure: Any, names: Sequence[str], importances: Mapping[str, float]) -> None:
    if not importances:
        figure.suptitle(
            "too few completed trials to compute importances", fontsize="small", color=GREY
        )
        return
    axes = figure.subplots()
    widths = [importances.get(name, 0.0) for name in names]
    bars = axes.barh(range(len(names)), widths, color=TRAIN_COLOR)
    axes.bar_label(bars, [f"{width:.0%}" for width in widths], padding=3, fontsize="small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(*widths, 0.01))
    x_label = "importance for being among the best tenth of the completed trials"
    style_axes(axes, x_label=x_label, grid=False)
    axes.xaxis.set_major_formatter("{x:.0%}")


def _draw_values(axes: Axes, flag: SearchedFlag, trials: Sequence[Trial], best: Trial) -> None:
    styles = (("done", TRAIN_COLOR, "o", "trained"), ("pruned", GREY, "x", "pruned"))
    positions = {choice: position for position, choice in enumerate(flag.choices)}

    def position_of(trial: Trial) -> float:
        value = trial.values[flag.name]
        return positions[value] if positions else value

    for outcome, color, marker, label in styles:
        drawn = [trial for trial in trials if trial.outcome == outcome]
        axes.scatter(
            [position_of(trial) for trial in drawn],
            [trial.val_loss for trial in drawn],
            s=14,
            color=color,
            marker=marker,
            linewidths=1,
            alpha=0.8,
            label=label if drawn else None,
        )
    axes.plot(
        [position_of(best)],
        [best.val_loss],
        "D",
        color=BEST_COLOR,
        markerfacecolor="none",
        markersize=8,
        linestyle="none",
        label="best",
    )
    if positions:
        axes.set_xticks(range(len(positions)), flag.choice_labels())
        axes.set_xlim(-0.5, len(positions) - 0.5)
    elif not flag.step:
        axes.set_xscale("log")
        axes.set_xlim(flag.low / 1.2, flag.high * 1.2)
    else:
        margin = 0.04 * (flag.high - flag.low)
        axes.set_xlim(flag.low - margin, flag.high + margin)
    axes.set_title(flag.name, fontsize="small")
    axes.tick_params(labelsize="x-small")
    style_axes(axes)
