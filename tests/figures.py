"""Replaces every figure of a run by a tiny image, for tests that do not look at the figures.

Drawing the figures would take seconds in each short training. The files of the figures are still
written.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any

from matplotlib.figure import Figure
from PIL import Image

Replace = Callable[[Any, str, Any], None]


def replace_figures(replace: Replace = setattr) -> None:
    """Makes every figure save an image of 8×8 pixels.

    Pass ``MonkeyPatch.setattr`` as ``replace`` if the figures have to return after a test.
    """
    from seedtf.training import preview

    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")

    def save(self: Figure, file: IO[bytes], **_: Any) -> None:
        file.write(png.getvalue())

    replace(Figure, "savefig", save)
    replace(preview, "draw_preview", lambda *_, **__: Figure((1, 1)))
