"""Wilson intervals equal published ones; intervals of paired differences have the stated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.intervals import paired_difference_interval, wilson_interval


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_equal_published_ones(hits: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_enclose_the_estimate_and_are_symmetric(case: tuple[int, int]) -> None:
    hits, n = case
    low, high = wilson_interval(hits, n)
    assert 0.0 <= low <= hits / n <= high <= 1.0
    mirrored = wilson_interval(n - hits, n)
    assert mirrored == pytest.approx((1.0 - high, 1.0 - low), abs=1e-12)


def test_more_trials_give_narrower_intervals() -> None:
    intervals = [wilson_interval(9 * n // 10, n) for n in (10, 100, 1000)]
    widths = [high - low for low, high in intervals]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="num_correct"):
        wilson_interval(hits, n)


def test_difference_interval_is_symmetric_and_narrower_with_more_images():
    # Of 200 images, 10 are correct only in A, and 30 only in B.
    low, high = paired_difference_interval(10, 30, 200)
    assert low < 20 / 200 < high
    assert paired_difference_interval(30, 10, 200) == pytest.approx((-high, -low))
    wide = paired_difference_interval(1, 3, 20)
    assert wide[1] - wide[0] > high - low
    assert paired_difference_interval(0, 0, 5)[0] < 0 < paired_difference_interval(0, 0, 5)[1]


def test_difference_interval_contains_the_true_difference_in_95_percent_of_samples():
    # An image is correct only in A with probability 0.05, and only in B with probability 0.15. So the
    # true difference is 0.10.
    generator = np.random.default_rng(2)
    draws = generator.multinomial(100, [0.05, 0.15, 0.8], size=2000)
    covered = [
        low < 0.10 < high
        for low, high in (paired_difference_interval(a, b, 100) for a, b, _ in draws)
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
