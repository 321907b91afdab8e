"""Draws the figures of an evaluation report: confusion matrix and reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
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

__all__ = ["MAX_DRAWN_CLASSES", "MAX_NUMBERED_CLASSES", "draw_confusion", "draw_reliability"]

MAX_NUMBERED_CLASSES = 40
"""With more classes, numbers would not fit into the cells of a confusion matrix and are left out."""

MAX_DRAWN_CLASSES = 80
"""With more classes, only the classes with the most mistakes are drawn, to limit the image size."""


class _Reliability(Protocol):
    """The attributes of ``evaluation.metrics.Reliability`` that are drawn."""

    @property
    def counts(self) -> np.ndarray: ...
    @property
    def confidence(self) -> np.ndarray: ...
    @property
    def accuracy(self) -> np.ndarray: ...
    @property
    def ece(self) -> float: ...


@default_style
def draw_confusion(confusion: np.ndarray, class_names: Sequence[str], *, title: str) -> Figure:
    """Draws a confusion matrix, with true classes in rows.

    A cell that is not 0 shows the number of images, and their percentage among the images of the true
    class. The colour shows the same percentage. With more than ``MAX_NUMBERED_CLASSES`` classes, cells
    have no numbers. With more than ``MAX_DRAWN_CLASSES`` classes, only the classes with the most
    mistakes (in row and column together) are drawn, in the order of the classes.

    Args:
        confusion: counts, int64 ``[K, K]``.
        class_names: K names in any script; long names are cut.
        title: shown above the matrix.
    """
    drawn = _most_mistaken(confusion, MAX_DRAWN_CLASSES)
    size = len(drawn)
    if size < len(class_names):
        title = f"{clip_label(title, 40)}; the {size} most confused of {len(class_names):,} classes"
    support = confusion.sum(axis=1)[drawn, np.newaxis]
    confusion = confusion[np.ix_(drawn, drawn)]
    rates = confusion / np.maximum(support, 1)
    cell_inches = 0.62 if size <= MAX_NUMBERED_CLASSES else max(0.16, 8 / size)
    figure = new_figure(3.0 + cell_inches * size, 1.9 + cell_inches * size)
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, label="fraction of true class")
    bar.outline.set_visible(False)
    axes.set_title(clip_label(title, 80), parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    _name_ticks(axes, [class_names[index] for index in drawn])
    if size <= MAX_NUMBERED_CLASSES:
        _write_cells(axes, confusion, rates)
    return figure


@default_style
def draw_reliability(before: _Reliability, after: _Reliability | None, *, title: str) -> Figure:
    """Draws the accuracy against the confidence, and below it the number of images in each bin.

    Args:
        before: the reliability without temperature scaling.
        after: the reliability with temperature scaling; None if there is no temperature.
        title: shown above the panels.
    """
    figure = new_figure(5.4, 5.6, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    curves = [(before, VALIDATION_COLOR, "as trained", "o")]
    if after is not None:
        curves.append((after, TRAIN_COLOR, "with temperature", "s"))
    edges = np.linspace(0, 1, len(before.counts) + 1)
    for reliability, color, name, marker in curves:
        has_images = reliability.counts > 0
        confidence, accuracy = reliability.confidence[has_images], reliability.accuracy[has_images]
        label = f"{name}, ECE {reliability.ece:.3f}"
        upper.plot(confidence, accuracy, marker, ls="-", color=color, label=label)
        lower.stairs(reliability.counts, edges, color=color, linewidth=1.5)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    upper.legend(fontsize="small", frameon=False, loc="upper left")
    style_axes(upper, "accuracy")
    style_axes(lower, "images", "confidence")
    return figure


def _most_mistaken(confusion: np.ndarray, limit: int) -> np.ndarray:
    """Ascending indices of the ``limit`` classes with the most mistakes in their row and column."""
    mistakes = confusion.sum(axis=1) + confusion.sum(axis=0) - 2 * np.diag(confusion)
    return np.sort(np.argsort(-mistakes, kind="stable")[:limit])


def _name_ticks(axes: Axes, class_names: Sequence[str]) -> None:
    names = [clip_label(name, 28) for name in class_names]
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False}
    axes.set_xticks(
        range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", **style
    )
    axes.set_yticks(range(len(names)), names, **style)


def _write_cells(axes: Axes, confusion: np.ndarray, rates: np.ndarray) -> None:
    for row, column in np.argwhere(confusion > 0).tolist():
        rate = rates[row, column]
        style: dict[str, Any] = {"ha": "center", "color": "white" if rate > 0.55 else "#1a1a1a"}
        # The texts lie inside the axes, so the layout need not measure them, which takes time.
        style["in_layout"] = False
        axes.text(column, row, f"{confusion[row, column]}", va="bottom", fontsize=9, **style)
        axes.text(column, row + 0.06, f"{rate:.0%}", va="top", fontsize=7, **style)
