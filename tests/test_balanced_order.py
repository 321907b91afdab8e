"""The balanced order: equal classes, equal records within a class, and a function of (seed, step)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.data.balanced_order import BalancedIndices
from seedtf.data.order import BatchIndices

LABELS = [0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 1, 0]  # 8, 2 and 2 records


def epoch_order(order: BatchIndices, epoch: int) -> list[int]:
    return order.epoch_order(epoch).numpy().tolist()


def first_batches(order: BatchIndices, count: int, start_step: int = 0) -> list[list[int]]:
    dataset = order.dataset(start_step).take(count)
    return [indices.tolist() for _, indices in dataset.as_numpy_iterator()]


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 3, 7]), min_size=1, max_size=30),
    st.integers(0, 2**31 - 1),
    st.integers(1, 5),
)
def test_classes_and_records_come_equally_often(labels: list[int], seed: int, epochs: int) -> None:
    present = sorted(set(labels))
    order = BalancedIndices(labels, 1, seed=seed)
    orders = np.array([epoch_order(order, epoch) for epoch in range(epochs)])
    assert orders.shape == (epochs, len(labels))
    for slots in orders:
        counts = np.bincount(np.take(labels, slots), minlength=8)[present]
        assert set(counts) <= {len(labels) // len(present), -(-len(labels) // len(present))}
    # after every epoch, not only at the end
    for seen in itertools.accumulate(np.bincount(o, minlength=len(labels)) for o in orders):
        for label in present:
            within = seen[np.equal(labels, label)]
            assert within.max() - within.min() <= 1
        by_class = np.bincount(labels, seen)[present]
        assert by_class.max() - by_class.min() <= 1


def test_late_epochs_are_as_even_as_the_first() -> None:
    order = BalancedIndices(LABELS, 4, seed=1)
    seen = np.bincount(
        np.concatenate([epoch_order(order, 10**9 + e) for e in range(6)]), minlength=12
    )
    assert np.bincount(LABELS, seen).tolist() == [24, 24, 24]
    for label in range(3):
        within = seen[np.equal(LABELS, label)]
        # a window that begins amid a pass sees two broken ones
        assert within.max() - within.min() <= 2


def test_a_pass_hands_out_every_record_once_and_runs_on_into_the_next_epoch() -> None:
    """The large class has 4 slots an epoch and 8 records: one pass every two epochs."""
    order = BalancedIndices(LABELS, 4, seed=5)
    large = [k for k, label in enumerate(LABELS) if label == 0]
    passes = []
    for first in (0, 2, 4):
        halves = [[k for k in epoch_order(order, first + e) if LABELS[k] == 0] for e in range(2)]
        assert sorted(halves[0] + halves[1]) == large
        passes.append(frozenset(halves[0]))
    assert len(set(passes)) == 3, "the passes share one order"


def test_every_half_of_a_pass_is_equally_likely() -> None:
    """Chi-square of how often each of 8 records is in the first half of a pass, over 600 passes.

    Of 4 drawn without replacement the counts vary by (8 − 4)/(8 − 1) of what they do with, so the sum
    is 4/7 of a chi-square with 7 degrees of freedom, which exceeds 29.9 once in 10,000 times.
    """
    # 200 classes of 8 records and 400 of 2: every class has 4 slots an epoch
    labels = np.concatenate([np.repeat(range(200), 8), np.repeat(range(200, 600), 2)])
    order = BalancedIndices(labels, 4, seed=2)
    halves = np.concatenate([epoch_order(order, epoch) for epoch in (0, 2, 4)])
    counts = np.bincount(halves[halves < 1600] % 8)
    assert counts.sum() == 2400
    assert np.sum((counts - 300.0) ** 2 / 300.0) < 29.9 * 4 / 7


def test_the_classes_are_strewn_evenly_over_an_epoch() -> None:
    """Chi-square of 3 classes in 12 stretches; 22 degrees of freedom: 55.8 once in 10,000 times."""
    labels = np.tile(LABELS, 100)
    classes = labels[epoch_order(BalancedIndices(labels, 4, seed=3), 1)].reshape(12, 100)
    counts = np.stack([np.bincount(stretch, minlength=3) for stretch in classes])
    assert np.sum((counts - 100 / 3) ** 2 / (100 / 3)) < 55.8


def test_the_odd_slots_go_round_the_classes() -> None:
    order = BalancedIndices([0, 0, 0, 1, 2], 1)
    counts = [
        np.bincount(np.take([0, 0, 0, 1, 2], epoch_order(order, e))).tolist() for e in range(3)
    ]
    assert counts == [[2, 2, 1], [2, 1, 2], [1, 2, 2]]


def test_the_order_of_seed_seven_is_this_one() -> None:
    """Runs of earlier versions resume only while this stays."""
    order = BalancedIndices(LABELS, 6, seed=7)
    assert first_batches(order, 4) == [
        [5, 6, 7, 10, 3, 10],
        [7, 3, 5, 4, 9, 8],
        [0, 7, 7, 3, 1, 5],
        [11, 3, 10, 2, 5, 10],
    ]


def test_starting_at_any_step_continues_the_run() -> None:
    order = BalancedIndices(LABELS[:11], 4, seed=3)
    assert order.steps_per_epoch == 2
    whole = first_batches(order, 7)
    for step in range(6):
        assert first_batches(order, 7 - step, step) == whole[step:]


def test_eager_and_graph_orders_agree() -> None:
    order = BalancedIndices(LABELS, 12, seed=3)
    assert first_batches(order, 3) == [epoch_order(order, epoch) for epoch in range(3)]


def test_shapes_are_static() -> None:
    epoch, indices = BalancedIndices(LABELS, 5).dataset().element_spec
    assert (epoch.shape, epoch.dtype) == ([], tf.int64)
    assert (indices.shape, indices.dtype) == ([5], tf.int64)
    traced = tf.function(BalancedIndices(LABELS, 5).epoch_order).get_concrete_function(
        tf.TensorSpec([], tf.int64)
    )
    assert traced.output_shapes == [12]


def test_seeds_and_epochs_share_no_order() -> None:
    orders = {
        tuple(epoch_order(BalancedIndices(LABELS, 4, seed=seed), epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_the_labels_may_be_of_any_integer_type() -> None:
    orders = [
        epoch_order(BalancedIndices(np.array(LABELS, kind), 4, seed=1), 1)
        for kind in (np.uint8, np.int32, np.int64)
    ]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize(("labels", "batch"), [([], 1), ([0, 1], 0), ([0, 1], 3)])
def test_impossible_sizes_are_refused(labels: list[int], batch: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        BalancedIndices(labels, batch)
