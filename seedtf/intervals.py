"""Confidence intervals of measured proportions."""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]

_Z_95 = 1.959963984540054


def wilson_interval(hits: float, n: int) -> tuple[float, float]:
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
    half = _Z_95 / (1 + z2 / n) * math.sqrt(estimate * (1 - estimate) / n + z2 / (4 * n * n))
    # Clamp: at 0 or n hits, rounding can push a bound past the estimate.
    return max(0.0, min(estimate, middle - half)), min(1.0, max(estimate, middle + half))
