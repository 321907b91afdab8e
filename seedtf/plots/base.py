"""Every image: functions from values to a Matplotlib figure, and the figure to PNG.

Only Matplotlib's object-oriented interface is used (``Figure`` on an Agg canvas), so nothing needs a
display, keeps a global list of figures or touches the user's own plots.
"""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seedtf.files import write_bytes

__all__ = [
    "clip_label",
    "draw_augmentations",
    "draw_curves",
    "draw_schedule",
    "figure_png",
    "new_figure",
    "save_figure",
    "style_axes",
]

# Okabe & Ito's colours (2008), told apart under every common kind of colour blindness; their purple
# is darkened, because it also colours small text
TRAIN, VALIDATION, RATE, BEST = "#0072B2", "#D55E00", "#009E73", "#B0508A"
STRENGTH = "#8A6D00"  # their yellow, darkened for the same reason
GREY = "#7a7a7a"

DPI = 160
MARKED_ROWS = 40  # up to here each epoch gets a dot; beyond, dots would only thicken the line
COLUMNS = 8  # images beside each other in a contact sheet
CELL = 1.35  # inches


def draw_curves(
    rows: Sequence[Mapping[str, float]],
    *,
    title: str,
    best_epoch: int | None = None,
    planned_lr: Sequence[float] | None = None,
    show_strength: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Three panels over the epochs: loss and accuracy (train and validation), learning rate.

    A fourth one, where asked for, has the strength of the augmentation.

    Args:
        rows: history rows, at least one, with keys epoch (1-based), lr, loss, accuracy, val_loss and
            val_accuracy; NaN leaves a gap.
        title: shown above as it is, never read as mathematics.
        best_epoch: the 1-based epoch to mark; one without a row is not marked.
        planned_lr: the rate of every planned epoch, drawn dashed behind what was used; the first value
            belongs to epoch 1.
        show_strength: whether to draw ``augment_strength``, a key of every row; NaN leaves a gap.
        figure: an existing figure to clear and draw in, such as a window's; a new one by default.
    """
    figure = new_figure(5.4, 8.0 if show_strength else 6.8) if figure is None else figure
    figure.clear()
    figure.set_layout_engine("constrained")
    figure.suptitle(clip_label(title, 46), parse_math=False)
    heights = [3, 3, 1.6, 1.2][: 4 if show_strength else 3]
    loss, accuracy, rate, *more = figure.subplots(len(heights), 1, height_ratios=heights)
    _draw_metric(loss, rows, "loss", best_epoch)
    _draw_metric(accuracy, rows, "accuracy", best_epoch)
    loss.set_yscale(_scale([row[key] for row in rows for key in ("loss", "val_loss")]))
    _draw_rate(rate, rows, planned_lr)
    for axes in more:
        _draw_strength(axes, rows, len(planned_lr or []))
    return figure


def draw_schedule(schedule: Callable[[float], float], epochs: float, *, title: str) -> Figure:
    """The learning rate over the whole training, with its highest and its last value named.

    The axis is linear; logarithmic where most of training runs below a twentieth of the highest
    rate.

    Args:
        schedule: rate above 0 at an epoch (float, 0.0 is the start).
        epochs: the length of training.
        title: shown above as it is.
    """
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    position = np.linspace(0, epochs, 2001)
    values = np.array([schedule(float(epoch)) for epoch in position])
    top = int(values.argmax())
    axes.plot(position, values, color=RATE)
    axes.plot(position[[top, -1]], values[[top, -1]], "o", color=RATE, clip_on=False)
    axes.set_yscale(_scale(values))
    axes.set_xlim(0, epochs)
    axes.set_title(
        f"highest {values[top]:.3g} at epoch {position[top]:.3g}, last {values[-1]:.3g}",
        fontsize="small",
        color=GREY,
    )
    _finish_axes(axes, "learning rate", "epochs trained")
    figure.suptitle(clip_label(title, 46), parse_math=False)
    return figure


def draw_augmentations(
    original: npt.NDArray[Any],
    draws: npt.NDArray[Any],
    batch: npt.NDArray[Any],
    batch_labels: Sequence[str],
    *,
    title: str,
) -> Figure:
    """One image beside many augmented draws of it, and below a training batch with its labels.

    Args:
        original: ``[H, W, 3]``, uint8 or float in 0-255; framed and named in the image.
        draws: ``[N, H, W, 3]``, the same image as augmented N times.
        batch: ``[B, H, W, 3]``, at least one image.
        batch_labels: B names in any script, on one line or more; long lines are cut.
        title: shown above as it is.
    """
    above, below = -(-(1 + len(draws)) // COLUMNS), -(-len(batch) // COLUMNS)
    figure = new_figure(COLUMNS * CELL, (above + below) * (CELL + 0.18) + 1.0)
    figure.suptitle(clip_label(title, 90), parse_math=False)
    parts: Any = figure.subfigures(2, 1, height_ratios=[above + 0.2, below + 0.2])
    upper, lower = parts
    names = ["original"] + [""] * len(draws)
    cells = _contact_sheet(upper, [original, *draws], names, "one image, drawn again and again")
    for spine in cells[0].spines.values():
        spine.set(visible=True, color=VALIDATION, linewidth=3)
    _contact_sheet(lower, list(batch), batch_labels, "a training batch")
    return figure


def clip_label(text: str, limit: int) -> str:
    """``text`` on one line and at most ``limit`` characters long, fit to be drawn.

    Control characters and line ends become spaces, undecodable parts of file names question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def figure_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        # a script the font lacks is drawn as boxes: not worth a warning per character and epoch
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(data, format="png", dpi=dpi, metadata={"Software": None})
    return data.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = DPI) -> None:
    """Writes the figure to ``path`` as PNG, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    write_bytes(path, figure_png(figure, dpi=dpi))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches that arranges its panels itself."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, name: str = "", below: str = "") -> None:
    """Names a panel's vertical and horizontal axis, draws its grid and leaves its frame open."""
    axes.set_ylabel(name)
    axes.set_xlabel(below)
    axes.grid(True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_metric(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, best_epoch: int | None
) -> None:
    epochs = [int(row["epoch"]) for row in rows]
    train, validation = ([row[name] for row in rows] for name in (key, f"val_{key}"))
    dot = "." if len(rows) <= MARKED_ROWS else ""
    axes.plot(epochs, train, color=TRAIN, marker=dot, label="train")
    axes.plot(epochs, validation, color=VALIDATION, marker=dot, label="validation")
    if best_epoch in epochs:
        value = validation[epochs.index(best_epoch)]
        axes.axvline(best_epoch, color=BEST, linestyle=":")
        axes.plot([best_epoch], [value], "D", color=BEST, markerfacecolor="none", markersize=9)
        _note(axes, f"◇ best: epoch {best_epoch}, validation {value:.4f}", BEST)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    _legend(axes)
    _finish_axes(axes, key, "epoch")


def _draw_rate(
    axes: Axes, rows: Sequence[Mapping[str, float]], planned: Sequence[float] | None
) -> None:
    epochs, used = [int(row["epoch"]) for row in rows], [row["lr"] for row in rows]
    planned = planned or []
    ahead = range(1, len(planned) + 1)
    if planned:
        axes.plot(ahead, planned, color=GREY, linestyle="--", linewidth=1, label="planned")
    axes.plot(epochs, used, color=RATE, label="used")
    axes.plot(epochs[-1:], used[-1:], "o", color=RATE)
    _note(axes, f"● now {used[-1]:.3g}", RATE)
    axes.set_yscale(_scale([*used, *planned]))
    axes.set_xlim(0.5, max(epochs[-1], len(planned)) + 0.5)
    _legend(axes)
    _finish_axes(axes, "learning rate", "epoch")


def _draw_strength(axes: Axes, rows: Sequence[Mapping[str, float]], planned: int) -> None:
    epochs, used = [int(row["epoch"]) for row in rows], [row["augment_strength"] for row in rows]
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes.plot(epochs, used, color=STRENGTH, drawstyle="steps-mid")
    axes.plot(epochs[-1:], used[-1:], "o", color=STRENGTH)
    _note(axes, f"augmentation ● now {used[-1]:.2f}", STRENGTH)
    axes.set_ylim(0, 1.15 * max([1.0, *(value for value in used if np.isfinite(value))]))
    axes.set_xlim(0.5, max(epochs[-1], planned) + 0.5)
    _finish_axes(axes, "strength", "epoch")


def _legend(axes: Axes) -> None:
    # above the panel, like the note, where no curve can run through it
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


def _note(axes: Axes, text: str, color: str) -> None:
    axes.set_title(text, loc="right", fontsize="small", color=color)


def _finish_axes(axes: Axes, name: str, below: str) -> None:
    style_axes(axes, name, below)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _scale(values: Iterable[float]) -> str:
    """Logarithmic where a linear axis would press most values against zero."""
    known = np.array([value for value in values if np.isfinite(value)])
    if known.size == 0 or known.min() <= 0:
        return "linear"
    return "log" if np.median(known) < known.max() / 20 else "linear"


def _contact_sheet(
    figure: Any, images: Sequence[npt.NDArray[Any]], names: Sequence[str], title: str
) -> list[Axes]:
    figure.suptitle(title, fontsize="small", color=GREY)
    cells = figure.subplots(-(-len(images) // COLUMNS), COLUMNS, squeeze=False).ravel()
    for cell in cells:
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    for cell, image, name in zip(cells, images, names, strict=False):
        cell.imshow(np.clip(image, 0, 255).astype(np.uint8))
        lines = (clip_label(line, 18) for line in name.split("\n"))
        cell.set_title("\n".join(lines), fontsize=7, pad=2, parse_math=False)
    return list(cells)
