"""Replaces every figure of a run by a tiny image, for runs whose figures are not tested.

Rendering the figures would take seconds in each short training. Their files are still written.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any

from matplotlib.figure import Figure
from PIL import Image

Replace = Callable[[Any, str, Any], None]


def replace_figures(replace: Replace = setattr) -> None:
    """Makes every figure save an image of 8×8 pixels; ``replace`` may be ``MonkeyPatch.setattr``."""
    from seedtf.training import preview

    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")

    def save(self: Figure, file: IO[bytes], **_: Any) -> None:
        file.write(png.getvalue())

    replace(Figure, "savefig", save)
    replace(preview, "draw_preview", lambda *_, **__: Figure((1, 1)))
