"""The order is a function of (seed, step): permutations, resume, shapes, independence of seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.data.order import BatchIndices
from seedtf.seeds import ORDER, fold_seed


def first_batches(order: BatchIndices, count: int, start_step: int = 0) -> list[list[int]]:
    dataset = order.dataset(start_step).take(count)
    return [indices.tolist() for _, indices in dataset.as_numpy_iterator()]


def epoch_order(seed: int, epoch: int, n: int = 20) -> list[int]:
    return BatchIndices(n, 1, seed=seed).epoch_order(epoch).numpy().tolist()


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**33), st.booleans())
def test_every_epoch_holds_each_index_once(n: int, batch: int, seed: int, drop: bool) -> None:
    batch = min(batch, n) if drop else batch
    order = BatchIndices(n, batch, seed=seed, drop_remainder=drop)
    steps = order.steps_per_epoch
    assert steps == (n // batch if drop else -(-n // batch))
    batches = first_batches(order, 2 * steps)
    for epoch in (batches[:steps], batches[steps:]):
        seen = list(itertools.chain(*epoch))
        assert len(seen) == len(set(seen)) == (steps * batch if drop else n)
        assert set(seen) <= set(range(n))


@pytest.mark.parametrize("drop", [True, False])
def test_starting_at_any_step_continues_the_run(drop: bool) -> None:
    order = BatchIndices(10, 4, seed=3, drop_remainder=drop)
    whole = first_batches(order, 9)
    for step in range(8):
        assert first_batches(order, 9 - step, step) == whole[step:]


def test_epochs_are_numbered_from_zero() -> None:
    epochs = [int(e) for e, _ in BatchIndices(10, 4).dataset(3).take(4).as_numpy_iterator()]
    assert epochs == [1, 2, 2, 3]


def test_the_last_batch_is_dropped_or_short() -> None:
    dropped = BatchIndices(10, 4, drop_remainder=True)
    short = BatchIndices(10, 4, drop_remainder=False)
    assert [len(b) for b in first_batches(dropped, 4)] == [4, 4, 4, 4]
    assert [len(b) for b in first_batches(short, 6)] == [4, 4, 2, 4, 4, 2]


def test_shapes_are_static_where_they_can_be() -> None:
    epoch, indices = BatchIndices(10, 4).dataset().element_spec
    assert (epoch.shape, epoch.dtype) == ([], tf.int64)
    assert (indices.shape, indices.dtype) == ([4], tf.int64)
    _, indices = BatchIndices(10, 4, drop_remainder=False).dataset().element_spec
    assert indices.shape.as_list() == [None]


def test_the_order_of_seed_seven_is_this_one() -> None:
    """Runs of earlier versions resume only while this stays."""
    order = BatchIndices(8, 4, seed=7)
    assert first_batches(order, 4) == [[6, 0, 1, 2], [7, 5, 3, 4], [4, 6, 7, 5], [3, 1, 0, 2]]


def test_same_seed_same_order_and_epochs_differ() -> None:
    assert epoch_order(0, 0) == epoch_order(0, 0)
    orders = [tuple(epoch_order(0, epoch)) for epoch in range(10)]
    assert len(set(orders)) == 10


def test_seeds_share_no_order() -> None:
    orders = {tuple(epoch_order(seed, epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_purposes_share_no_seed() -> None:
    seeds = {tuple(fold_seed(0, purpose, 0).numpy()) for purpose in (0, 1, 2)}
    assert len(seeds) == 3
    assert fold_seed(0, ORDER, 0).shape == [2]


def test_without_shuffle_the_order_is_that_of_the_list() -> None:
    assert first_batches(BatchIndices(5, 2, shuffle=False), 4) == [[0, 1], [2, 3]] * 2


def test_every_place_is_equally_likely() -> None:
    """Chi-square over 1000 epochs; 9 degrees of freedom exceed 33.7 once in 10,000 times."""
    order = BatchIndices(10, 10, seed=1)
    epochs = tf.range(1000, dtype=tf.int64)
    orders = tf.map_fn(order.epoch_order, epochs, fn_output_signature=tf.int64).numpy()
    for place in (0, 4, 9):
        counts = np.bincount(orders[:, place], minlength=10)
        assert np.sum((counts - 100.0) ** 2 / 100.0) < 33.7


@pytest.mark.parametrize(("n", "batch", "drop"), [(0, 1, False), (3, 0, False), (3, 4, True)])
def test_impossible_sizes_are_refused(n: int, batch: int, drop: bool) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        BatchIndices(n, batch, drop_remainder=drop)


def test_a_batch_larger_than_the_list_is_short_when_nothing_is_dropped() -> None:
    batches = first_batches(BatchIndices(3, 8, drop_remainder=False), 2)
    assert [sorted(batch) for batch in batches] == [[0, 1, 2], [0, 1, 2]]
