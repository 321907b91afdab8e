"""Imports Matplotlib and draws in its default style, independently of the user's settings.

The user's settings may not suit seedtf. ``MPLBACKEND`` may name a backend of another environment, as it
does in every command that is started from a notebook cell, and a ``matplotlibrc`` may request LaTeX.
seedtf draws on Agg canvases in Matplotlib's default style, so it depends on neither.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from seedtf.errors import UserError, first_line

__all__ = ["default_style", "import_matplotlib"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Matplotlib's settings are global, and the curves are drawn in a thread beside the training.
_settings_lock = threading.RLock()
# Another backend would close the windows of a user.
_NOT_OF_STYLE = ("backend", "backend_fallback", "interactive", "toolbar")


def import_matplotlib() -> None:
    """Imports Matplotlib without its backend variable, which is applied afterwards where it is valid.

    The variable is removed from the environment only meanwhile. A warning about the user's matplotlibrc
    or about a folder for the font list is not shown, because neither changes a figure.

    Raises:
        UserError: Matplotlib cannot read the user's matplotlibrc.

    Tried with Matplotlib 3.11; tested by ``test_matplotlib_is_imported_whatever_mplbackend_names``.
    """
    if "matplotlib.figure" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        import matplotlib as mpl
        import matplotlib.figure

        if backend:
            _choose_backend(mpl, backend)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"matplotlibrc: Matplotlib cannot read it ({first_line(error)}); correct or remove the "
            "file in the working folder or in ~/.config/matplotlib"
        ) from error
    finally:
        logger.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def default_style(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorates a function that draws: it runs in Matplotlib's default style, one at a time.

    The user's own settings are in force again when it returns.

    Tried with Matplotlib 3.11; tested by ``test_a_figure_does_not_depend_on_the_users_style``.

    Example:
        >>> import matplotlib as mpl
        >>> default_style(lambda: mpl.rcParams["text.usetex"])()
        False
    """

    @functools.wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        import matplotlib as mpl

        settings: Any = mpl.rcParams
        defaults: Any = mpl.rcParamsDefault
        with _settings_lock, mpl.rc_context():
            # The defaults are valid already, so dict.update saves checking each of them again.
            style = {key: value for key, value in defaults.items() if key not in _NOT_OF_STYLE}
            dict.update(settings, style)
            return draw(*args, **kwargs)

    return styled


def _choose_backend(mpl: Any, backend: str) -> None:
    """Sets the user's backend for ``--show``, unless this Matplotlib does not know it."""
    try:
        mpl.rcParams["backend"] = backend
    except ValueError:
        return
