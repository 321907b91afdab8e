"""The images of a report: confusion matrix and reliability diagram, as Matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seedtf.plots.base import GREY, TRAIN, VALIDATION, clip_label

__all__ = ["draw_confusion", "draw_reliability"]

NUMBERED_CLASSES = 40  # up to here every cell holds its numbers; beyond, colour alone can be read
NAMED_CLASSES = 80


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str], *, title: str) -> Figure:
    """The matrix with the truth in rows: the count of every cell and, below it, its share of the row.

    Colour is the share. From 41 classes on cells hold no numbers, from 81 on axes hold no names.

    Args:
        confusion: counts int64 ``[K, K]``.
        class_names: K names in any script; long ones are cut.
        title: shown above as it is.
    """
    size = len(class_names)
    support = confusion.sum(axis=1, keepdims=True)
    rates = confusion / np.maximum(support, 1)
    cell = 0.62 if size <= NUMBERED_CLASSES else max(0.16, 16 / size / 2)
    figure = _new_figure(3.0 + cell * size, 1.9 + cell * size)
    axes = figure.subplots()
    shown = axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.02, label="share of the true class")
    bar.outline.set_visible(False)
    axes.set_title(clip_label(title, 80), parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    _name_ticks(axes, class_names)
    if size <= NUMBERED_CLASSES:
        _write_cells(axes, confusion, rates)
    return figure


def draw_reliability(before: Any, after: Any | None, *, title: str) -> Figure:
    """Share of right answers against stated confidence, above the number of images in each bin.

    Args:
        before: a ``Reliability`` of the probabilities as they are.
        after: the same with the temperature applied, or None.
        title: shown above as it is.
    """
    figure = _new_figure(5.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    curves = [(before, VALIDATION, "as trained", "o")]
    if after is not None:
        curves.append((after, TRAIN, "with temperature", "s"))
    edges = np.linspace(0, 1, len(before.counts) + 1)
    for each, color, name, marker in curves:
        filled = each.counts > 0
        label = f"{name}, ECE {each.ece:.3f}"
        upper.plot(
            each.confidence[filled], each.accuracy[filled], marker, ls="-", color=color, label=label
        )
        lower.stairs(each.counts, edges, color=color, linewidth=1.5)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    upper.legend(fontsize="small", frameon=False, loc="upper left")
    lower.set(xlabel="stated confidence", ylabel="images")
    for axes in (upper, lower):
        axes.grid(True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(clip_label(title, 46), parse_math=False)
    return figure


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _name_ticks(axes: Axes, class_names: Sequence[str]) -> None:
    if len(class_names) > NAMED_CLASSES:
        axes.set(xticks=[], yticks=[])
        return
    names = [clip_label(name, 28) for name in class_names]
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False}
    axes.set_xticks(
        range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", **style
    )
    axes.set_yticks(range(len(names)), names, **style)


def _write_cells(axes: Axes, confusion: np.ndarray, rates: np.ndarray) -> None:
    for row, column in np.argwhere(confusion > 0).tolist():
        rate = rates[row, column]
        color = "white" if rate > 0.55 else "#1a1a1a"
        place: dict[str, Any] = {"ha": "center", "color": color}
        axes.text(column, row, f"{confusion[row, column]}", va="bottom", fontsize=9, **place)
        axes.text(column, row + 0.06, f"{rate:.0%}", va="top", fontsize=7, **place)
