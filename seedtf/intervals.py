"""Confidence intervals of a proportion and of the difference of two paired proportions."""

from __future__ import annotations

import math

__all__ = ["paired_difference_interval", "wilson_interval"]

_Z_95 = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution."""


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of the proportion ``hits / n`` of independent trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Args:
        hits: number of successes, in [0, n].
        n: number of trials, at least 1.

    Returns:
        The lower and the upper bound, both in [0, 1].

    Raises:
        ValueError: ``n`` is below 1, or ``hits`` is outside [0, n].

    Example:
        >>> low, high = wilson_interval(81, 263)
        >>> f"{low:.4f} to {high:.4f}"
        '0.2553 to 0.3662'
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"needs 0 <= hits <= n and n >= 1. Received: hits={hits}, n={n}")
    estimate, z2 = hits / n, _Z_95**2
    middle = (estimate + z2 / (2 * n)) / (1 + z2 / n)
    variance = estimate * (1 - estimate) / n + z2 / (4 * n * n)
    half_width = _Z_95 / (1 + z2 / n) * math.sqrt(variance)
    # At 0 or n hits, rounding can put the estimate outside the bounds, so they are widened to it.
    low, high = min(estimate, middle - half_width), max(estimate, middle + half_width)
    return max(0.0, low), min(1.0, high)


def paired_difference_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The 95 % interval of accuracy B minus accuracy A on the same ``n`` images, within [-1, 1].

    A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    2005: Wald's interval after adding half an image to each cell of the 2 × 2 table of A and B.

    Args:
        only_a, only_b: number of images that only A, or only B, classifies correctly.
        n: number of images.

    Example:
        >>> low, high = paired_difference_interval(5, 20, 100)
        >>> round(low, 3), round(high, 3)
        (0.053, 0.241)
    """
    a, b, total = only_a + 0.5, only_b + 0.5, n + 2.0
    center = (b - a) / total
    half_width = _Z_95 * math.sqrt(a + b - (b - a) ** 2 / total) / total
    return max(-1.0, center - half_width), min(1.0, center + half_width)
