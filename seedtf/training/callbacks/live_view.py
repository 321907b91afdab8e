"""Shows the curves while training runs: in a notebook, or in a window if there is a display."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

from seedtf.plots.base import Figure, figure_png

__all__ = ["View", "in_notebook", "open_view"]

Draw = Callable[[Figure | None], Figure]
"""A function that draws the curves into the given figure, or into a new figure if it gets None."""


class View(Protocol):
    """Shows the curves somewhere: in a notebook or in a window."""

    def update(self, draw: Draw) -> None:
        """Shows the current curves."""

    def process_events(self) -> None:
        """Handles pending mouse and window events; called before every step."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def open_view(title: str) -> View | None:
    """Returns a view in a notebook, or else in a Matplotlib window; None if no window can open."""
    if in_notebook():
        return _Notebook()
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return None
    # pyplot is imported only where a window is wanted, because the import selects a window system.
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
        figure = pyplot.figure(num=title, figsize=(5.4, 6.8))
    except ImportError:  # MPLBACKEND names a window system that is not installed
        return None
    if figure.canvas.required_interactive_framework is None:  # a backend that only writes files
        pyplot.close(figure)
        return None
    figure.show()
    return _Window(figure)


class _Notebook:
    """Shows the curves as one image in the output of the cell; an update replaces this image."""

    def __init__(self) -> None:
        self._display = importlib.import_module("IPython.display")
        self._handle: Any = None

    def update(self, draw: Draw) -> None:
        image = self._display.Image(data=figure_png(draw(None), dpi=100), format="png")
        if self._handle is None:
            self._handle = self._display.display(image, display_id=True)
        else:
            self._handle.update(image)

    def process_events(self) -> None:
        """Does nothing, because the browser handles the events of a notebook."""


class _Window:
    """A Matplotlib window, whose updates never block and never take the keyboard focus."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure
        self._is_open = True
        figure.canvas.mpl_connect("close_event", self._on_close)

    def update(self, draw: Draw) -> None:
        if self._is_open:
            draw(self._figure)
            self._figure.canvas.draw_idle()
            self._figure.canvas.flush_events()

    def process_events(self) -> None:
        if self._is_open:
            self._figure.canvas.flush_events()

    def _on_close(self, event: object) -> None:
        self._is_open = False
