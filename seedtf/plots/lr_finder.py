"""Draws the loss of a learning-rate sweep against the learning rate."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from seedtf.compat.matplotlib import default_style
from seedtf.plots.base import BEST_COLOR, GREY, RATE_COLOR, TRAIN_COLOR, new_figure, style_axes

__all__ = ["Suggestion", "Sweep", "draw_lr_sweep"]

_MARGIN = 0.1  # below and above the losses, as a fraction of their range


class Sweep(Protocol):
    """The attributes of ``training.lr_finder.LRSweep`` that are drawn."""

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each step."""

    @property
    def losses(self) -> list[float]:
        """The loss of each step."""

    @property
    def smoothed(self) -> list[float]:
        """The smoothed loss of each step."""


class Suggestion(Protocol):
    """The attributes of ``LRSuggestion`` that are drawn."""

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest."""

    @property
    def tenth(self) -> float:
        """A tenth of the rate with the lowest loss."""

    @property
    def lr(self) -> float:
        """The suggested rate, which is ``steepest`` or ``tenth``."""


@default_style
def draw_lr_sweep(sweep: Sweep, suggestion: Suggestion | None, *, title: str) -> Figure:
    """Draws the loss against the learning rate, which has a logarithmic axis, and marks two rates.

    Args:
        sweep: a sweep of at least one step.
        suggestion: the rates to mark, ``steepest`` and ``tenth``; None for no marks.
        title: the title of the figure, drawn as plain text.
    """
    figure = new_figure(6.4, 4.2, title, title_limit=60)
    axes = figure.subplots()
    axes.plot(sweep.lrs, sweep.losses, ".", color=GREY, markersize=3, label="each batch")
    axes.plot(sweep.lrs, sweep.smoothed, color=TRAIN_COLOR, label="smoothed")
    if suggestion is not None:
        marks = [
            (suggestion.steepest, RATE_COLOR, ":", "where the loss falls fastest"),
            (suggestion.tenth, BEST_COLOR, "--", "a tenth of the rate with the lowest loss"),
        ]
        for lr, color, style, name in marks:
            suffix = " (suggested)" if lr == suggestion.lr else ""
            axes.axvline(lr, color=color, linestyle=style, label=f"{lr:.2g}: {name}{suffix}")
    axes.set_xscale("log")
    low, high = _loss_range(sweep)
    margin = _MARGIN * max(high - low, 1e-6)
    axes.set_ylim(low - margin, high + margin)
    style_axes(axes, "training loss", "learning rate")
    axes.legend(fontsize="small", frameon=False, loc="lower left")
    return figure


def _loss_range(sweep: Sweep) -> tuple[float, float]:
    """Lowest and highest loss of the steps up to the lowest smoothed loss.

    Later steps are left out: their loss diverges, and on a common axis the curve before them would look
    flat.
    """
    end = sweep.smoothed.index(min(sweep.smoothed)) + 1
    losses = np.array([*sweep.losses[:end], *sweep.smoothed[:end]])
    return float(losses.min()), float(losses.max())
