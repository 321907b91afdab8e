"""Draws the result of ``seedtf probe``: the accuracy of each network's classifiers, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure

from seedtf.compat.matplotlib import default_style
from seedtf.plots.base import (
    GREY,
    TRAIN_COLOR,
    VALIDATION_COLOR,
    clip_label,
    new_figure,
    style_axes,
)

__all__ = ["Row", "draw_probe"]

_ROW_INCHES, _LABEL_CHARACTERS = 0.42, 44
_COLORS = {"logistic": TRAIN_COLOR, "kNN": VALIDATION_COLOR}


class Row(Protocol):
    """The attributes of ``probing.probe.ProbeRow`` that are drawn."""

    @property
    def embedder(self) -> Any:
        """The network, with the attributes ``name`` and ``image_size``."""

    @property
    def classifier(self) -> str:
        """``logistic`` or ``kNN``."""

    @property
    def accuracy(self) -> float:
        """The accuracy in [0, 1]."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy: its lower and upper end."""

    @property
    def mcnemar_p(self) -> float:
        """The p-value of McNemar's test against the best row."""


@default_style
def draw_probe(rows: Sequence[Row], *, title: str) -> Figure:
    """Draws a point with its interval for each row, the first row at the top.

    Args:
        rows: the rows to draw, the best first.
        title: the title of the figure, drawn as plain text.
    """
    figure = new_figure(7.6, 1.3 + _ROW_INCHES * len(rows), title, title_limit=70)
    axes = figure.subplots()
    in_legend: set[str] = set()
    for y, row in enumerate(rows):
        low, high = row.interval
        color = _COLORS[row.classifier]
        label = row.classifier if row.classifier not in in_legend else None
        in_legend.add(row.classifier)
        axes.errorbar(
            row.accuracy,
            y,
            xerr=[[row.accuracy - low], [high - row.accuracy]],
            fmt="o",
            color=color,
            capsize=3,
            label=label,
        )
        comparison = "best" if y == 0 else f"p = {row.mcnemar_p:.1g}"
        axes.annotate(
            f"{row.accuracy:.3f}  {comparison}",
            (high, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=GREY,
        )
    names = [f"{row.embedder.name} at {row.embedder.image_size} px" for row in rows]
    labels = [clip_label(name, _LABEL_CHARACTERS) for name in names]
    axes.set_yticks(range(len(rows)), labels, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    lows, highs = [row.interval[0] for row in rows], [row.interval[1] for row in rows]
    width = max(max(highs) - min(lows), 0.02)
    axes.set_xlim(min(lows) - 0.1 * width, max(highs) + 0.45 * width)  # room for the numbers
    style_axes(axes, "", "accuracy in cross-validation, with 95 % interval")
    axes.legend(fontsize="small", frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure
