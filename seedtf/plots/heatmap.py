"""Draws a class activation map over its image, brighter where the map is higher."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from PIL import Image

__all__ = ["draw_heatmap", "encode_image"]

_OPACITY = 0.55


def draw_heatmap(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draws a map in colour over the image in grey, from dark (lowest value) to bright (highest value).

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        heat: float ``[h, w]``, in any unit; NaN is not allowed.

    Returns:
        uint8 ``[H, W, 3]``.

    Example:
        >>> drawn = draw_heatmap(np.zeros((4, 6, 3), np.uint8), np.array([[0.0, 1.0]]))
        >>> drawn.shape, bool(drawn[0, -1].sum() > drawn[0, 0].sum())
        ((4, 6, 3), True)
    """
    height, width = image.shape[:2]
    resized = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    )
    # Bicubic resizing can exceed the range of the map, so the range is that before resizing.
    low, high = float(heat.min()), float(heat.max())
    scaled = np.clip((resized - low) / max(high - low, 1e-12), 0, 1)
    colors = mpl.colormaps["inferno"](scaled)[..., :3] * 255
    grey = image.mean(-1, keepdims=True)
    mixed = _OPACITY * colors + (1 - _OPACITY) * grey
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def encode_image(image: np.ndarray, kind: str = "PNG") -> bytes:
    """Encodes an image, uint8 ``[H, W, 3]``, as a file; ``kind`` is the name of a Pillow format."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, quality=85)
    return buffer.getvalue()
