"""Draws the figures of a training run: curves over the epochs, and the planned learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seedtf.compat.matplotlib import default_style
from seedtf.plots.base import (
    BEST_COLOR,
    GREY,
    RATE_COLOR,
    STRENGTH_COLOR,
    TRAIN_COLOR,
    VALIDATION_COLOR,
    new_figure,
    set_title,
    style_axes,
)

__all__ = ["draw_curves", "draw_schedule"]

# With more epochs than this, the curves have no dots, because the dots would merge into a thick line.
_MAX_DOTS = 40
# An axis is logarithmic if all its values are positive and their median is below this fraction of the
# largest one.
_LOG_SCALE_MEDIAN = 1 / 20
_PANEL_HEIGHTS = (3, 3, 1.6, 1.2)  # loss, accuracy, learning rate, augmentation strength


@default_style
def draw_curves(
    rows: Sequence[Mapping[str, float]],
    *,
    title: str,
    best_epoch: int | None = None,
    planned_lr: Sequence[float] | None = None,
    show_strength: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draws loss and accuracy, each on training and validation images, and learning rate by epoch.

    Args:
        rows: history rows, at least one, with the keys epoch (1-based), lr, loss, accuracy, val_loss
            and val_accuracy; NaN leaves a gap.
        title: shown above the panels as plain text; ``$`` does not start a formula.
        best_epoch: the epoch to mark (1-based), if ``rows`` has a row for it.
        planned_lr: the planned learning rate of every epoch, from epoch 1 on; drawn as a dashed line
            behind the rates in ``rows``.
        show_strength: whether a fourth panel shows ``augment_strength``, which must then be a key of
            every row; NaN leaves a gap.
        figure: a figure to clear and draw in, such as that of a window; None for a new one.

    Example:
        >>> row = {"epoch": 1, "lr": 0.1, "loss": 2.0, "accuracy": 0.3}
        >>> row |= {"val_loss": 1.8, "val_accuracy": 0.4}
        >>> figure = draw_curves([row], title="runs/oak", best_epoch=1)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'accuracy', 'learning rate']
    """
    figure = new_figure(5.4, 8.0 if show_strength else 6.8) if figure is None else figure
    figure.clear()
    figure.set_layout_engine("constrained")
    set_title(figure, title)
    heights = _PANEL_HEIGHTS[: 4 if show_strength else 3]
    loss_axes, accuracy_axes, rate_axes, *more_axes = figure.subplots(
        len(heights), 1, height_ratios=heights
    )
    _draw_metric(loss_axes, rows, "loss", best_epoch)
    _draw_metric(accuracy_axes, rows, "accuracy", best_epoch)
    loss_axes.set_yscale(_choose_scale([row[key] for row in rows for key in ("loss", "val_loss")]))
    _draw_rate(rate_axes, rows, planned_lr or [])
    for axes in more_axes:
        _draw_strength(axes, rows, len(planned_lr or []))
    return figure


@default_style
def draw_schedule(schedule: Callable[[float], float], epochs: float, *, title: str) -> Figure:
    """Draws the learning rate over the whole training, and marks its highest and its last value.

    The vertical axis is logarithmic if the rate is below a twentieth of its highest value for more than
    half of the training, and linear otherwise.

    Args:
        schedule: maps a time in epochs (float, 0.0 is the start) to a rate above 0.
        epochs: the length of the training.
        title: shown above the panel.
    """
    figure = new_figure(6.4, 3.6, title)
    axes = figure.subplots()
    position = np.linspace(0, epochs, 2001)
    values = np.array([schedule(float(epoch)) for epoch in position])
    highest = int(values.argmax())
    axes.plot(position, values, color=RATE_COLOR)
    axes.plot(position[[highest, -1]], values[[highest, -1]], "o", color=RATE_COLOR, clip_on=False)
    axes.set_yscale(_choose_scale(values))
    axes.set_xlim(0, epochs)
    axes.set_title(
        f"highest {values[highest]:.3g} at epoch {position[highest]:.3g}, last {values[-1]:.3g}",
        fontsize="small",
        color=GREY,
    )
    style_axes(axes, "learning rate", "epochs trained", integer_x=True)
    return figure


def _draw_metric(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, best_epoch: int | None
) -> None:
    epochs = [int(row["epoch"]) for row in rows]
    train, validation = ([row[name] for row in rows] for name in (key, f"val_{key}"))
    dot = "." if len(rows) <= _MAX_DOTS else ""
    axes.plot(epochs, train, color=TRAIN_COLOR, marker=dot, label="train")
    axes.plot(epochs, validation, color=VALIDATION_COLOR, marker=dot, label="validation")
    if best_epoch in epochs:
        value = validation[epochs.index(best_epoch)]
        axes.axvline(best_epoch, color=BEST_COLOR, linestyle=":")
        axes.plot(
            [best_epoch], [value], "D", color=BEST_COLOR, markerfacecolor="none", markersize=9
        )
        _write_note(axes, f"◇ best: epoch {best_epoch}, validation {value:.4f}", BEST_COLOR)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    _add_legend(axes)
    style_axes(axes, key, "epoch", integer_x=True)


def _draw_rate(axes: Axes, rows: Sequence[Mapping[str, float]], planned: Sequence[float]) -> None:
    epochs, used = [int(row["epoch"]) for row in rows], [row["lr"] for row in rows]
    if planned:
        planned_epochs = range(1, len(planned) + 1)
        axes.plot(planned_epochs, planned, color=GREY, linestyle="--", linewidth=1, label="planned")
    axes.plot(epochs, used, color=RATE_COLOR, label="used")
    axes.plot(epochs[-1:], used[-1:], "o", color=RATE_COLOR)
    _write_note(axes, f"● now {used[-1]:.3g}", RATE_COLOR)
    axes.set_yscale(_choose_scale([*used, *planned]))
    axes.set_xlim(0.5, max(epochs[-1], len(planned)) + 0.5)
    _add_legend(axes)
    style_axes(axes, "learning rate", "epoch", integer_x=True)


def _draw_strength(axes: Axes, rows: Sequence[Mapping[str, float]], planned_epochs: int) -> None:
    epochs, used = [int(row["epoch"]) for row in rows], [row["augment_strength"] for row in rows]
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes.plot(epochs, used, color=STRENGTH_COLOR, drawstyle="steps-mid")
    axes.plot(epochs[-1:], used[-1:], "o", color=STRENGTH_COLOR)
    _write_note(axes, f"augmentation ● now {used[-1]:.2f}", STRENGTH_COLOR)
    axes.set_ylim(0, 1.15 * max([1.0, *(value for value in used if np.isfinite(value))]))
    axes.set_xlim(0.5, max(epochs[-1], planned_epochs) + 0.5)
    style_axes(axes, "strength", "epoch", integer_x=True)


def _add_legend(axes: Axes) -> None:
    """Adds a legend above the panel, beside the note, where it does not cover a curve."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        fontsize="small",
        frameon=False,
        borderpad=0,
        borderaxespad=0.4,
        columnspacing=1,
        handlelength=1.5,
    )


def _write_note(axes: Axes, text: str, color: str) -> None:
    axes.set_title(text, loc="right", fontsize="small", color=color)


def _choose_scale(values: Iterable[float]) -> str:
    """``log`` if most values would be close to zero on a linear axis, otherwise ``linear``.

    If a value is 0 or negative, the scale is ``linear``. NaN and infinite values are ignored.
    """
    finite = np.array([value for value in values if np.isfinite(value)])
    if finite.size == 0 or finite.min() <= 0:
        return "linear"
    return "log" if np.median(finite) < finite.max() * _LOG_SCALE_MEDIAN else "linear"
