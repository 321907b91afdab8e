"""The page of ``seedtf demo``, made with gradio."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from seedtf.errors import UserError, first_line

if TYPE_CHECKING:  # evaluation.demo imports TensorFlow, which the page itself does not need
    from seedtf.evaluation.demo import Answer

__all__ = ["import_gradio", "make_page", "start_page"]

_CLEANUP_SECONDS = 600
"""The interval at which gradio deletes images, and the age from which an image is deleted."""


def import_gradio() -> Any:
    """Imports gradio, with its usage statistics switched off.

    Raises:
        UserError: gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: PLC0415  an optional package
    except ImportError:
        raise UserError(
            "gradio is not installed, and the page needs it: pip install 'seedtf[demo]'"
        ) from None
    return gradio


def make_page(gradio: Any, answer: Callable[[str], Answer], title: str) -> Any:
    """Makes a ``gradio.Interface`` that shows what ``answer`` returns for an image file.

    gradio keeps uploaded images in a temporary folder for 10 to 20 minutes. It stores nothing else.
    """

    def show(file: str | None) -> tuple[dict[str, float] | None, str, np.ndarray | None]:
        if not file:
            return None, "", None
        shown = answer(file)
        return shown.probabilities or None, shown.verdict, shown.heatmap

    return gradio.Interface(
        show,
        # With image_mode=None gradio passes the file unchanged, instead of encoding it again.
        gradio.Image(type="filepath", image_mode=None, label="image"),
        [
            gradio.Label(num_top_classes=5, label="classes"),
            gradio.Textbox(label="verdict"),
            gradio.Image(label="class activation map of the first class"),
        ],
        title=title,
        api_name="predict",
        flagging_mode="never",
        analytics_enabled=False,
        delete_cache=(_CLEANUP_SECONDS, _CLEANUP_SECONDS),
    )


def start_page(gradio: Any, page: Any, *, host: str, port: int = 0, share: bool = False) -> str:
    """Starts the server of a page and returns its address; ``page.close()`` ends it.

    Args:
        gradio: the module ``gradio``.
        page: from ``make_page``.
        host: the address that the server listens on; 127.0.0.1 is reachable from this machine only.
        port: the port of the server; 0 for the first free port from 7860 on.
        share: whether to make the page public through a server of the gradio project.

    Raises:
        UserError: the port is in use, or the address cannot be used.
    """
    try:
        _, local, public = page.launch(
            server_name=host,
            server_port=port or None,
            share=share,
            prevent_thread_lock=True,
            inbrowser=False,
            quiet=True,
            ssr_mode=False,
            # Fonts of the system, because gradio's default fonts are loaded from Google.
            theme=gradio.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
        )
    except OSError as error:
        raise UserError(
            f"--host={host} --port={port}: {first_line(error)}; pass another port or host"
        ) from error
    return str(public or local)
