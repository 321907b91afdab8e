"""How sure a measured share is."""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]

_Z_95 = 1.959963984540054


def wilson_interval(hits: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``hits`` in ``n`` independent trials, both ends in [0, 1].

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Raises:
        ValueError: ``n`` below 1, or ``hits`` outside [0, n].
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"needs 0 <= hits <= n and n >= 1. Received: hits={hits}, n={n}")
    share, z2 = hits / n, _Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # at 0 and n hits rounding may leave an end a hair on the wrong side of the share
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
