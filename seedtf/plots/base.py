"""What all figures share: colours, titles, the style of their axes, and how they are written as PNG.

Figures are drawn with Matplotlib's object-oriented interface (``Figure`` on an Agg canvas), not with
``pyplot``, which only the window of ``--show`` uses. So no display is needed, figures are freed when
they are no longer used, and a user's plots are not affected.
"""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seedtf.compat.matplotlib import default_style
from seedtf.files import write_bytes

__all__ = [
    "BEST_COLOR",
    "DPI",
    "GREY",
    "RATE_COLOR",
    "STRENGTH_COLOR",
    "TRAIN_COLOR",
    "VALIDATION_COLOR",
    "Figure",
    "clip_label",
    "figure_png",
    "new_figure",
    "save_figure",
    "set_title",
    "style_axes",
]

# The colours of Okabe and Ito (2008), which can be distinguished with every common kind of colour
# blindness. Purple and yellow are darkened, because small text is drawn in them too.
TRAIN_COLOR, VALIDATION_COLOR, RATE_COLOR, BEST_COLOR = "#0072B2", "#D55E00", "#009E73", "#B0508A"
STRENGTH_COLOR = "#8A6D00"
GREY = "#7a7a7a"

DPI = 160


def new_figure(width: float, height: float, title: str = "", *, title_limit: int = 46) -> Figure:
    """Creates an empty figure with Matplotlib's constrained layout.

    Args:
        width, height: size in inches.
        title: shown above the panels; see ``set_title``.
        title_limit: largest number of characters of the title.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        set_title(figure, title, title_limit)
    return figure


def set_title(figure: Figure, title: str, limit: int = 46) -> None:
    """Shows ``title`` above all panels as plain text, cut to ``limit`` characters."""
    figure.suptitle(clip_label(title, limit), parse_math=False)


def style_axes(
    axes: Axes,
    y_label: str = "",
    x_label: str = "",
    *,
    grid: bool = True,
    integer_x: bool = False,
) -> None:
    """Labels the axes of a panel, draws its grid, and hides its frame at the top and at the right.

    Args:
        axes: the panel.
        y_label, x_label: names of the vertical and the horizontal axis.
        grid: whether grid lines are drawn.
        integer_x: whether the horizontal axis has ticks at whole numbers only.
    """
    axes.set_ylabel(y_label)
    axes.set_xlabel(x_label)
    if grid:
        axes.grid(True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if integer_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def clip_label(text: str, limit: int) -> str:
    """``text`` on one line of at most ``limit`` characters.

    Control characters and line ends become spaces. Bytes of file names that are not UTF-8 become
    question marks.

    Example:
        >>> clip_label("Shepherd's Purse", 10)
        "Shepherd'…"
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


@default_style
def figure_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """Renders a figure as the bytes of a PNG file; the same figure always gives the same bytes."""
    data = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}
    with warnings.catch_warnings():
        # If the font lacks a character, Matplotlib draws a box and warns at every draw.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(data, format="png", dpi=dpi, metadata=metadata)
    return data.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = DPI) -> None:
    """Writes the figure to the PNG file ``path``, atomically.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    write_bytes(path, figure_png(figure, dpi=dpi))
