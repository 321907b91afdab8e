"""The order of images follows from seed and step, and may draw the classes equally often.

A record is the index of a training image. An epoch has as many slots as there are records. Each slot
takes one record.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.data.order import BalancedIndices, BatchIndices
from seedtf.seeds import ORDER, epoch_seed


def first_batches(order: BatchIndices, count: int, start_step: int = 0) -> list[list[int]]:
    dataset = order.dataset(start_step).take(count)
    return [indices.tolist() for _, indices in dataset.as_numpy_iterator()]


def records_of_epoch(order: BatchIndices, epoch: int) -> list[int]:
    return order.epoch_order(epoch).numpy().tolist()


def shuffled(seed: int, epoch: int) -> list[int]:
    return records_of_epoch(BatchIndices(20, 1, seed=seed), epoch)


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**33), st.booleans())
def test_every_epoch_holds_each_index_once(n: int, batch: int, seed: int, drop: bool) -> None:
    batch = min(batch, n) if drop else batch  # a larger batch is refused if ``drop``
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
    # An epoch has two steps, so step 3 is the last step of epoch 1.
    epochs = [int(e) for e, _ in BatchIndices(10, 4).dataset(3).take(4).as_numpy_iterator()]
    assert epochs == [1, 2, 2, 3]


def test_the_last_batch_is_dropped_or_short() -> None:
    dropped = BatchIndices(10, 4, drop_remainder=True)
    short = BatchIndices(10, 4, drop_remainder=False)
    assert [len(b) for b in first_batches(dropped, 4)] == [4, 4, 4, 4]
    assert [len(b) for b in first_batches(short, 6)] == [4, 4, 2, 4, 4, 2]


def test_all_shapes_are_static_unless_the_last_batch_may_be_short() -> None:
    epoch, indices = BatchIndices(10, 4).dataset().element_spec
    assert (epoch.shape, epoch.dtype) == ([], tf.int64)
    assert (indices.shape, indices.dtype) == ([4], tf.int64)
    _, indices = BatchIndices(10, 4, drop_remainder=False).dataset().element_spec
    assert indices.shape.as_list() == [None]


def test_the_order_of_seed_seven_stays_the_same() -> None:
    """Runs of earlier versions can be resumed only if these numbers stay the same."""
    order = BatchIndices(8, 4, seed=7)
    assert first_batches(order, 4) == [[6, 0, 1, 2], [7, 5, 3, 4], [4, 6, 7, 5], [3, 1, 0, 2]]


def test_the_same_seed_gives_the_same_order_and_epochs_differ() -> None:
    assert shuffled(0, 0) == shuffled(0, 0)
    orders = [tuple(shuffled(0, epoch)) for epoch in range(10)]
    assert len(set(orders)) == 10


def test_orders_of_other_seeds_differ() -> None:
    orders = {tuple(shuffled(seed, epoch)) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_every_purpose_has_its_own_seed() -> None:
    seeds = {tuple(epoch_seed(0, purpose, 0).numpy()) for purpose in (0, 1, 2)}
    assert len(seeds) == 3
    assert epoch_seed(0, ORDER, 0).shape == [2]


def test_without_shuffle_the_indices_ascend() -> None:
    assert first_batches(BatchIndices(5, 2, shuffle=False), 4) == [[0, 1], [2, 3]] * 2


def test_every_record_is_equally_likely_at_a_position() -> None:
    """Chi-square of the counts in 1,000 epochs.

    With 9 degrees of freedom, chi-square exceeds 33.7 in one of 10,000 cases.
    """
    order = BatchIndices(10, 10, seed=1)
    epochs = tf.range(1000, dtype=tf.int64)
    all_orders = tf.function(
        lambda: tf.map_fn(order.epoch_order, epochs, fn_output_signature=tf.int64)
    )
    orders = all_orders().numpy()
    for position in (0, 4, 9):
        counts = np.bincount(orders[:, position], minlength=10)
        assert np.sum((counts - 100.0) ** 2 / 100.0) < 33.7


@pytest.mark.parametrize(("n", "batch", "drop"), [(0, 1, False), (3, 0, False), (3, 4, True)])
def test_impossible_sizes_are_refused(n: int, batch: int, drop: bool) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        BatchIndices(n, batch, drop_remainder=drop)


def test_a_batch_larger_than_the_data_is_short_if_no_batch_is_dropped() -> None:
    batches = first_batches(BatchIndices(3, 8, drop_remainder=False), 2)
    assert [sorted(batch) for batch in batches] == [[0, 1, 2], [0, 1, 2]]


# The balanced order gives each class equally many slots of an epoch.
# A pass draws every record of a class once.

LABELS = [0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 1, 0]  # 8, 2 and 2 records


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([0, 0, 0, 0, 1, 1, 3, 7]), min_size=1, max_size=30),
    st.integers(0, 2**31 - 1),
    st.integers(1, 5),
)
def test_every_class_and_every_record_of_a_class_is_drawn_equally_often(
    labels: list[int], seed: int, epochs: int
) -> None:
    present = sorted(set(labels))
    order = BalancedIndices(labels, 1, seed=seed)
    orders = np.array([records_of_epoch(order, epoch) for epoch in range(epochs)])
    assert orders.shape == (epochs, len(labels))
    for records in orders:
        counts = np.bincount(np.take(labels, records), minlength=8)[present]
        assert set(counts) <= {len(labels) // len(present), -(-len(labels) // len(present))}
    # The counts must be equal, or differ by one, after every epoch.
    for seen in itertools.accumulate(np.bincount(o, minlength=len(labels)) for o in orders):
        for label in present:
            within = seen[np.equal(labels, label)]
            assert within.max() - within.min() <= 1
        by_class = np.bincount(labels, seen)[present]
        assert by_class.max() - by_class.min() <= 1


def test_late_epochs_draw_every_class_equally_often() -> None:
    order = BalancedIndices(LABELS, 4, seed=1)
    seen = np.bincount(
        np.concatenate([records_of_epoch(order, 10**9 + 1 + e) for e in range(6)]), minlength=12
    )
    assert np.bincount(LABELS, seen).tolist() == [24, 24, 24]
    for label in range(3):
        within = seen[np.equal(LABELS, label)]
        # A pass of the large class takes two epochs and begins with an epoch of even number. These six
        # epochs begin and end in the middle of a pass, so that two of the passes are incomplete.
        assert within.max() - within.min() <= 2


def test_a_pass_draws_every_record_once_and_continues_in_the_next_epoch() -> None:
    """The large class has 8 records and 4 slots per epoch, so each of its passes takes two epochs."""
    order = BalancedIndices(LABELS, 4, seed=5)
    large = [k for k, label in enumerate(LABELS) if label == 0]
    first_halves = []
    for first in (0, 2, 4):
        halves = [
            [k for k in records_of_epoch(order, first + e) if LABELS[k] == 0] for e in range(2)
        ]
        assert sorted(halves[0] + halves[1]) == large
        first_halves.append(frozenset(halves[0]))
    assert len(set(first_halves)) == 3, "two passes have the same first half"


def test_every_record_is_equally_likely_in_the_first_half_of_a_pass() -> None:
    """Chi-square of how often each of 8 records is in the first half of a pass, over 600 passes.

    Drawing 4 of 8 records without replacement has (8 − 4)/(8 − 1) = 4/7 of the variance of drawing with
    replacement. So the sum below is 4/7 of a chi-square with 7 degrees of freedom. Such a chi-square
    exceeds 29.9 in one of 10,000 cases.
    """
    # 200 classes have 8 records each, and 400 classes have 2. With 2,400 records and 600 classes, every
    # class has 4 slots per epoch.
    labels = np.concatenate([np.repeat(range(200), 8), np.repeat(range(200, 600), 2)])
    order = BalancedIndices(labels, 4, seed=2)
    halves = np.concatenate([records_of_epoch(order, epoch) for epoch in (0, 2, 4)])
    counts = np.bincount(halves[halves < 1600] % 8)
    assert counts.sum() == 2400
    assert np.sum((counts - 300.0) ** 2 / 300.0) < 29.9 * 4 / 7


def test_every_class_occurs_equally_often_in_each_part_of_an_epoch() -> None:
    """Chi-square of how often each of 3 classes occurs in each of 12 parts of an epoch.

    With 22 degrees of freedom, chi-square exceeds 55.8 in one of 10,000 cases.
    """
    labels = np.tile(LABELS, 100)
    classes = labels[records_of_epoch(BalancedIndices(labels, 4, seed=3), 1)].reshape(12, 100)
    counts = np.stack([np.bincount(part, minlength=3) for part in classes])
    assert np.sum((counts - 100 / 3) ** 2 / (100 / 3)) < 55.8


def test_the_remaining_slots_go_to_the_classes_in_turn() -> None:
    order = BalancedIndices([0, 0, 0, 1, 2], 1)
    counts = [
        np.bincount(np.take([0, 0, 0, 1, 2], records_of_epoch(order, e))).tolist() for e in range(3)
    ]
    assert counts == [[2, 2, 1], [2, 1, 2], [1, 2, 2]]


def test_the_balanced_order_of_seed_seven_stays_the_same() -> None:
    """Runs of earlier versions can be resumed only if these numbers stay the same."""
    order = BalancedIndices(LABELS, 6, seed=7)
    assert first_batches(order, 4) == [
        [5, 6, 7, 10, 3, 10],
        [7, 3, 5, 4, 9, 8],
        [0, 7, 7, 3, 1, 5],
        [11, 3, 10, 2, 5, 10],
    ]


def test_a_balanced_order_continues_from_any_step() -> None:
    order = BalancedIndices(LABELS[:11], 4, seed=3)
    assert order.steps_per_epoch == 2
    whole = first_batches(order, 7)
    for step in range(6):
        assert first_batches(order, 7 - step, step) == whole[step:]


def test_eager_and_graph_orders_agree() -> None:
    order = BalancedIndices(LABELS, 12, seed=3)
    assert first_batches(order, 3) == [records_of_epoch(order, epoch) for epoch in range(3)]


def test_the_shapes_of_a_balanced_order_are_static() -> None:
    epoch, indices = BalancedIndices(LABELS, 5).dataset().element_spec
    assert (epoch.shape, epoch.dtype) == ([], tf.int64)
    assert (indices.shape, indices.dtype) == ([5], tf.int64)
    traced = tf.function(BalancedIndices(LABELS, 5).epoch_order).get_concrete_function(
        tf.TensorSpec([], tf.int64)
    )
    assert traced.output_shapes == [12]


def test_balanced_orders_of_other_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(records_of_epoch(BalancedIndices(LABELS, 4, seed=seed), epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_the_labels_may_be_of_any_integer_type() -> None:
    orders = [
        records_of_epoch(BalancedIndices(np.array(LABELS, kind), 4, seed=1), 1)
        for kind in (np.uint8, np.int32, np.int64)
    ]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize(("labels", "batch"), [([], 1), ([0, 1], 0), ([0, 1], 3)])
def test_impossible_sizes_of_a_balanced_order_are_refused(labels: list[int], batch: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        BalancedIndices(labels, batch)
