"""Finds poor images: blurred, dark, over-exposed or nearly uniform.

The images are resized to the same small size and measured. Poor images are found by these measures:

* blurred images by the variance of the Laplacian (S. Pertuz et al., "Analysis of focus measure
  operators for shape-from-focus", 2013),
* dark images by their grey values,
* over-exposed images by their fraction of white pixels,
* nearly uniform images by the standard deviations of their colour channels.

What is unusual depends on the folder. An image therefore counts as blurred if it is much less sharp
than the other images, and a property that many images of the folder have is not a fault.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["MEASURES", "QUALITY_FAULTS", "QUALITY_SIZE", "find_poor", "halve", "measure_quality"]

QUALITY_SIZE = 144
"""Side in pixels of the images that are measured, about the size that networks see. A blur that is
visible only in the full size of a large photograph is therefore not found."""

MEASURES = ("sharpness", "detail", "brightness", "white", "contrast")
"""What is measured of an image.

* ``sharpness``: the logarithm of the variance of the Laplacian.
* ``detail``: the sharpness minus the sharpness of the image at half the size. This difference depends
  less on what the image shows.
* ``brightness``: the grey value, 0 to 255, that 5 % of the pixels exceed.
* ``white``: the fraction of pixels with 250 or more in all channels.
* ``contrast``: the largest standard deviation of a channel, 0 to 127.5.
"""

BLURRED, DARK, WHITE, UNIFORM = "blurred", "dark", "over-exposed", "nearly uniform"
QUALITY_FAULTS = (BLURRED, DARK, WHITE, UNIFORM)

# An image is blurred if its sharpness or detail is more than this many robust standard deviations below
# the median of the folder. The robust standard deviation is 1.4826 · the median absolute deviation.
# Of copies of 150-pixel photographs of seedlings with a Gaussian blur, 97 % are found at a radius of 2
# pixels, and 59 % at 1.5 pixels. Of the 4,027 originals, one is reported.
_BLURRED = 3.0
# If the robust standard deviation is smaller than this value, the value is used instead, so that small
# differences in a folder of very similar images are not a fault.
_MIN_DEVIATION = {"sharpness": 0.3, "detail": 0.15}
_MIN_IMAGES = 30  # blurred images are searched for among at least this many images
_DARK = 50.0  # largest brightness of a dark image
_WHITE = 0.5  # an over-exposed image has more than this fraction of white pixels
_UNIFORM = 4.0  # largest contrast of a nearly uniform image
# If more than this fraction of the images, and more than three, have a property, it is usual in the
# folder, as a white background may be, and not a fault.
_MAX_FRACTION, _FEW = 0.05, 3


def halve(image: np.ndarray) -> np.ndarray:
    """An image, uint8 ``[2s, 2s, 3]``, at half the size: the rounded mean of each 2 × 2 pixels."""
    size = image.shape[0] // 2
    means = image.reshape(size, 2, size, 2, 3).mean((1, 3), dtype=np.float32)
    return np.rint(means).astype(np.uint8)


def measure_quality(image: np.ndarray) -> np.ndarray:
    """Computes the ``MEASURES`` of an image: float32 ``[5]``.

    Args:
        image: uint8 ``[S, S, 3]`` with an even S, the whole image resized to a square.

    Example:
        >>> stripes = np.zeros((144, 144, 3), np.uint8)
        >>> stripes[:, ::2] = 255
        >>> sharpness, _, brightness, white, contrast = measure_quality(stripes)
        >>> round(float(brightness)), float(white), round(float(contrast), 1)
        (255, 0.5, 127.5)
    """
    pixels = image.astype(np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    size = len(grey) // 2
    sharpness = _log_laplacian(grey)
    coarse = _log_laplacian(grey.reshape(size, 2, size, 2).mean((1, 3)))
    white = (image.min(-1) >= 250).mean()
    contrast = pixels.std((0, 1)).max()
    bright = np.quantile(grey, 0.95)
    return np.array([sharpness, sharpness - coarse, bright, white, contrast], np.float32)


def find_poor(measures: np.ndarray) -> Iterator[tuple[int, str, str]]:
    """Yields the index, the fault and a detail of each poor image.

    Args:
        measures: float32 ``[N, 5]``, from ``measure_quality``, of all images of a folder.

    Example:
        >>> list(find_poor(np.array([[5, 0, 20, 0, 30]] + 40 * [[5, 0, 200, 0, 30]], np.float32)))
        [(0, 'dark', '95 % of the pixels are darker than 20 of 255')]
    """
    sharpness, detail, brightness, white, contrast = measures.T
    is_uniform = contrast < _UNIFORM
    is_dark = ~is_uniform & (brightness < _DARK)
    is_white = ~is_uniform & (white > _WHITE)
    # Only the other images are searched for blur, because the variance of the Laplacian is low for
    # uniform, dark and white images even if they are in focus.
    is_other = ~(is_uniform | is_dark | is_white)
    is_soft = _far_below(sharpness, "sharpness", is_other)
    is_coarse = _far_below(detail, "detail", is_other)
    is_blurred = is_soft | is_coarse
    is_uniform, is_dark, is_white, is_blurred = map(
        _unless_common, (is_uniform, is_dark, is_white, is_blurred)
    )
    median_sharpness, median_detail = (
        np.median(values[is_other]) if is_blurred.any() else 0.0 for values in (sharpness, detail)
    )
    for index in np.flatnonzero(is_uniform | is_dark | is_white | is_blurred).tolist():
        if is_uniform[index]:
            text = f"largest standard deviation of a colour channel: {contrast[index]:.1f} of 255"
            yield index, UNIFORM, text
        if is_dark[index]:
            yield index, DARK, f"95 % of the pixels are darker than {brightness[index]:.0f} of 255"
        if is_white[index]:
            yield index, WHITE, f"{100 * white[index]:.0f} % of the pixels are white"
        if is_blurred[index]:
            # Sharpness and detail are logarithms, so exp() of a difference is a ratio.
            reasons = []
            if is_soft[index]:
                ratio = np.exp(sharpness[index] - median_sharpness)
                reasons.append(f"variance of the Laplacian: {ratio:.2g} times the folder's median")
            if is_coarse[index]:
                ratio = np.exp(detail[index] - median_detail)
                reasons.append(
                    "variance of the Laplacian divided by that at half the size: "
                    f"{ratio:.2g} times the folder's median"
                )
            yield index, BLURRED, "; ".join(reasons)


def _log_laplacian(grey: np.ndarray) -> float:
    """The logarithm of the variance of the Laplacian of grey values, float ``[h, w]``."""
    center = -4 * grey[1:-1, 1:-1]
    laplacian = center + grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1]
    return float(np.log(laplacian.var() + 1e-3))


def _far_below(values: np.ndarray, name: str, selected: np.ndarray) -> np.ndarray:
    """Whether each value is selected and unusually low among the selected values: bool ``[N]``.

    Args:
        values: float ``[N]``, the measure ``name`` of each image.
        name: a key of ``_MIN_DEVIATION``.
        selected: bool ``[N]``.
    """
    if selected.sum() < _MIN_IMAGES:
        return np.zeros(len(values), bool)
    median = np.median(values[selected])
    deviation = 1.4826 * np.median(np.abs(values[selected] - median))
    return selected & (values < median - _BLURRED * max(deviation, _MIN_DEVIATION[name]))


def _unless_common(found: np.ndarray) -> np.ndarray:
    """``found``, bool ``[N]``; all False if it has more than three images and more than 5 % of N."""
    is_common = found.sum() > max(_FEW, _MAX_FRACTION * len(found))
    return np.zeros(len(found), bool) if is_common else found
