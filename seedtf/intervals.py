"""Confidence intervals of a proportion and of the difference of two paired proportions."""

from __future__ import annotations

import math

__all__ = ["paired_difference_interval", "wilson_interval"]

_Z_95 = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""


def wilson_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of the accuracy ``num_correct / num_images``.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Args:
        num_correct: number of images that are classified correctly, in [0, num_images].
        num_images: number of images, at least 1.

    Returns:
        The lower and the upper bound, both in [0, 1].

    Raises:
        ValueError: ``num_images`` or ``num_correct`` is out of range.

    Example:
        >>> low, high = wilson_interval(81, 263)
        >>> f"{low:.4f} to {high:.4f}"
        '0.2553 to 0.3662'
    """
    n = num_images
    if n < 1 or not 0 <= num_correct <= n:
        raise ValueError(
            "needs 0 <= num_correct <= num_images and num_images >= 1. "
            f"Received: num_correct={num_correct}, num_images={num_images}"
        )
    estimate, z2 = num_correct / n, _Z_95**2
    middle = (estimate + z2 / (2 * n)) / (1 + z2 / n)
    variance = estimate * (1 - estimate) / n + z2 / (4 * n * n)
    half_width = _Z_95 / (1 + z2 / n) * math.sqrt(variance)
    # If no image or every image is correct, rounding can put the estimate just outside the bounds, so
    # the bounds are widened to contain the estimate.
    low, high = min(estimate, middle - half_width), max(estimate, middle + half_width)
    return max(0.0, low), min(1.0, high)


def paired_difference_interval(
    num_only_a: int, num_only_b: int, num_images: int
) -> tuple[float, float]:
    """The 95 % interval of the accuracy of B minus the accuracy of A on the same images.

    A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    2005: Wald's interval after adding half an image to each cell of the 2 × 2 table that counts the
    images by whether A and B classify them correctly.

    Args:
        num_only_a: number of images that A classifies correctly and B does not.
        num_only_b: number of images that B classifies correctly and A does not.
        num_images: number of all images.

    Returns:
        The lower and the upper bound, both in [-1, 1].

    Example:
        >>> low, high = paired_difference_interval(5, 20, 100)
        >>> round(low, 3), round(high, 3)
        (0.053, 0.241)
    """
    a, b, total = num_only_a + 0.5, num_only_b + 0.5, num_images + 2.0
    center = (b - a) / total
    half_width = _Z_95 * math.sqrt(a + b - (b - a) ** 2 / total) / total
    return max(-1.0, center - half_width), min(1.0, center + half_width)
