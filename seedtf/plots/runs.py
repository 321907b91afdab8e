"""Draws the validation curves of many runs on common axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from seedtf.compat.matplotlib import default_style
from seedtf.plots.base import clip_label, new_figure, style_axes

__all__ = ["MAX_CURVES", "draw_runs"]

MAX_CURVES = 12
"""The largest number of curves, each of which has its own colour and line style."""

# The colours of Okabe and Ito (2008) without orange and black. Reddish purple and yellow are darkened
# to be seen on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#B0508A", "#56B4E9", "#8A6D00")
_DASHES = ("-", "--")


@default_style
def draw_runs(runs: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> Figure:
    """Draws the validation accuracy and the validation loss of each run against the epoch.

    Args:
        runs: for each run its name and the rows of its history. A row has the keys epoch, val_loss and
            val_accuracy; NaN leaves a gap. Only the first ``MAX_CURVES`` runs are drawn.

    Example:
        >>> rows = [{"epoch": 1, "val_loss": 1.0, "val_accuracy": 0.5}]
        >>> [axes.get_ylabel() for axes in draw_runs([("oak", rows)]).axes]
        ['validation accuracy', 'validation loss']
    """
    shown = runs[:MAX_CURVES]
    figure = new_figure(7.6, 6.4 + 0.2 * len(shown))
    for axes, key in zip(figure.subplots(2, 1), ("val_accuracy", "val_loss"), strict=True):
        for number, (name, rows) in enumerate(shown):
            axes.plot(
                [row["epoch"] for row in rows],
                [row[key] for row in rows],
                color=_COLORS[number % len(_COLORS)],
                linestyle=_DASHES[number // len(_COLORS)],
                marker="." if len(rows) == 1 else "",
                label=clip_label(name, 70).replace("$", r"\$"),
            )
        style_axes(axes, f"validation {key.removeprefix('val_')}", "epoch", integer_x=True)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center")
    return figure
