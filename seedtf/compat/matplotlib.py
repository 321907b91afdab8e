"""Imports Matplotlib and draws in its default style, independently of the user's settings.

The user's settings may not suit seedtf. ``MPLBACKEND`` may name a backend that is not installed: a
command that is started from a notebook cell inherits the backend of the notebook. A ``matplotlibrc``
may request LaTeX. seedtf ignores these settings: it draws on Agg canvases in Matplotlib's default
style.
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

# Matplotlib's settings are global, and the curves are drawn in another thread than the training. So
# only one thread at a time may change the settings.
_settings_lock = threading.RLock()
# The default style leaves these settings unchanged, because a new backend closes the user's windows.
_KEPT_SETTINGS = ("backend", "backend_fallback", "interactive", "toolbar")


def import_matplotlib() -> None:
    """Imports Matplotlib, whatever backend ``MPLBACKEND`` names.

    The import would fail if ``MPLBACKEND`` named an unknown backend, so the variable is removed during
    the import. After the import, the variable is restored, and its backend is chosen if Matplotlib
    knows it. Warnings about the user's matplotlibrc or about Matplotlib's cache folder are hidden.

    Raises:
        UserError: Matplotlib cannot read the user's matplotlibrc.

    Tried with Matplotlib 3.11; tested by
    ``test_matplotlib_can_be_imported_with_any_value_of_mplbackend``.
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
            "file in the working folder, at $MATPLOTLIBRC or in ~/.config/matplotlib"
        ) from error
    finally:
        logger.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def default_style(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorates a function so that it draws in Matplotlib's default style, in one thread at a time.

    The user's own settings are restored when the function returns.

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
            # dict.update is fast, because it does not check the settings; the defaults are valid.
            style = {key: value for key, value in defaults.items() if key not in _KEPT_SETTINGS}
            dict.update(settings, style)
            return draw(*args, **kwargs)

    return styled


def _choose_backend(mpl: Any, backend: str) -> None:
    """Sets the user's backend, which ``--show`` uses, unless Matplotlib does not know it."""
    try:
        mpl.rcParams["backend"] = backend
    except ValueError:
        return
