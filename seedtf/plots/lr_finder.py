"""The image of a learning-rate range test."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from seedtf.plots.base import BEST, GREY, RATE, TRAIN, clip_label, new_figure, style_axes
from seedtf.training.lr_finder.finder import RangeTest, Suggestion

__all__ = ["draw_range_test"]

_ROOM = 0.1


def draw_range_test(test: RangeTest, suggestion: Suggestion | None, *, title: str) -> Figure:
    """Loss over the learning rate on a logarithmic axis, with the suggested rates.

    Args:
        test: at least one step.
        suggestion: the rates to mark; None for none.
        title: shown above as it is.
    """
    figure = new_figure(6.4, 4.2)
    figure.suptitle(clip_label(title, 60), parse_math=False)
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, ".", color=GREY, markersize=3, label="each batch")
    axes.plot(test.rates, test.smoothed, color=TRAIN, label="smoothed")
    if suggestion is not None:
        marks = [
            (suggestion.steepest, RATE, ":", "where the loss falls fastest"),
            (suggestion.tenth, BEST, "--", "a tenth of the lowest loss's"),
        ]
        for rate, color, style, name in marks:
            chosen = " (suggested)" if rate == suggestion.rate else ""
            label = f"{rate:.2g}: {name}{chosen}"
            axes.axvline(rate, color=color, linestyle=style, label=label)
    axes.set_xscale("log")
    low, high = _loss_range(test)
    room = _ROOM * max(high - low, 1e-6)
    axes.set_ylim(low - room, high + room)
    style_axes(axes, "training loss", "learning rate")
    axes.legend(fontsize="small", frameon=False, loc="lower left")
    return figure


def _loss_range(test: RangeTest) -> tuple[float, float]:
    """The losses up to the lowest, so that the way down fills the image, not what ran away."""
    down = test.smoothed.index(min(test.smoothed)) + 1
    seen = np.array([*test.losses[:down], *test.smoothed[:down]])
    return float(seen.min()), float(seen.max())
