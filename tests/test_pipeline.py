"""The batches of the input pipeline: their shapes, labels and pixels, and the time to wait for them.

The pixels depend neither on the number of threads nor on the step from which a run continues.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from seedtf.augment import AUGMENT_IMPLS
from seedtf.augment.policy import Policy
from seedtf.data.catalog import scan_folder
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import (
    Augmentation,
    DataWaitTimer,
    eval_dataset,
    make_augmentation,
    train_dataset,
)
from seedtf.data.store import CachePlan, Store, build_store

SIZE = 8
RECORDS = np.array([0, 1, 2, 5, 6, 7, 9, 12, 14, 17], np.int64)  # indices of the training images
Batch = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=["ram", "off"])
def store(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Store:
    plan = CachePlan(request.param, 0, "")
    return build_store(scan_folder(tiny_folder), SIZE, plan, tmp_path_factory.mktemp("cache"))


@functools.cache
def cached_augmentation(policy: Policy, impl: str) -> Augmentation:
    """The augmentation, made once for all tests, because its compilation takes most of their time."""
    return make_augmentation(policy, 3, SIZE, impl)


def training_dataset(
    store: Store, policy: Policy | None = None, impl: str = "fused", **options: int
) -> tf.data.Dataset:
    augmentation = cached_augmentation(policy or Policy(rotate=20.0, brightness=0.3), impl)
    order = BatchIndices(len(RECORDS), 4, seed=3)
    return train_dataset(store, RECORDS, order, augmentation, **options)


def take_batches(dataset: tf.data.Dataset, count: int) -> list[Batch]:
    return list(dataset.take(count).as_numpy_iterator())


def are_equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for pair in zip(first, second, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def with_threads(dataset: tf.data.Dataset, num_threads: int) -> tf.data.Dataset:
    options = tf.data.Options()
    options.threading.private_threadpool_size = num_threads
    options.threading.max_intra_op_parallelism = num_threads
    return dataset.with_options(options)


@pytest.fixture(scope="module")
def first_six(store: Store) -> list[Batch]:
    """The first six training batches, for comparison with the batches of other datasets."""
    return take_batches(training_dataset(store), 6)


# The implementation with TensorFlow Addons is tested in test_addons.py.
@pytest.mark.parametrize("impl", sorted({*AUGMENT_IMPLS} - {"addons"}))
def test_shapes_and_types_are_static(store: Store, impl: str) -> None:
    images, labels = training_dataset(store, impl=impl).element_spec
    assert images == tf.TensorSpec([4, SIZE, SIZE, 3], tf.float32)
    assert labels == tf.TensorSpec([4], tf.int32)


def test_each_image_has_the_pixels_and_the_label_of_its_record(
    store: Store, tiny_colors: dict[str, tuple[int, int, int]]
) -> None:
    colors = [tiny_colors[path] for path in store.catalog.paths]
    seen = []
    no_augmentation = Policy().scaled(0.0)
    for images, labels in take_batches(training_dataset(store, no_augmentation), 2):
        for image, label in zip(images, labels, strict=True):
            record = colors.index(tuple(np.round(image[0, 0]).astype(int)))
            assert np.abs(image - colors[record]).max() < 0.01
            assert label == store.catalog.labels[record]
            seen.append(record)
    assert len(set(seen)) == 8
    assert set(seen) <= set(RECORDS.tolist())


def test_the_number_of_threads_changes_no_pixel(store: Store, first_six: list[Batch]) -> None:
    for num_threads in (1, 4):
        dataset = with_threads(training_dataset(store), num_threads)
        assert are_equal(take_batches(dataset, 6), first_six)


def test_starting_at_any_step_continues_the_run(store: Store, first_six: list[Batch]) -> None:
    for step in (1, 3):
        dataset = training_dataset(store, start_step=step)
        assert are_equal(take_batches(dataset, 4 - step), first_six[step:4])


def test_a_record_looks_different_in_every_epoch(first_six: list[Batch]) -> None:
    # The first four batches are two epochs of eight images.
    means = {round(float(image.mean()), 4) for images, _ in first_six[:4] for image in images}
    assert len(means) == 16


def test_fused_and_tf_image_give_the_same_images(store: Store, first_six: list[Batch]) -> None:
    tf_image = take_batches(training_dataset(store, impl="tf_image"), 2)
    for (fused_images, fused_labels), (images, labels) in zip(first_six[:2], tf_image, strict=True):
        assert np.array_equal(fused_labels, labels)
        assert np.abs(fused_images - images).max() <= 0.05


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="impl must be one of"):
        make_augmentation(Policy(), 0, SIZE, "opencv")


def test_evaluation_yields_every_record_once_in_order(
    store: Store, tiny_colors: dict[str, tuple[int, int, int]]
) -> None:
    dataset = eval_dataset(store, RECORDS[::-1], 4)
    assert dataset.element_spec == (
        tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32),
        tf.TensorSpec([None], tf.int32),
    )
    evaluated = list(dataset.as_numpy_iterator())
    assert [len(labels) for _, labels in evaluated] == [4, 4, 2]
    images, labels = (np.concatenate(part) for part in zip(*evaluated, strict=True))
    assert labels.tolist() == store.catalog.labels[RECORDS[::-1]].tolist()
    expected = [tiny_colors[store.catalog.paths[record]] for record in RECORDS[::-1]]
    assert np.array_equal(images[:, 0, 0], np.array(expected, np.float32))


def test_the_timer_measures_the_wait_for_data_and_is_reset_when_read() -> None:
    def slow(value: tf.Tensor) -> tf.Tensor:
        def sleep(v: np.ndarray) -> np.ndarray:
            time.sleep(0.02)
            return v

        return tf.ensure_shape(tf.numpy_function(sleep, [value], tf.int64), [])

    timer = DataWaitTimer()
    assert timer.take() == 0.0
    dataset = timer.attach(tf.data.Dataset.range(10).map(slow).map(lambda v: (v, v + 1)))
    assert [int(v) for v, _ in dataset] == list(range(10))
    # Of the ten waits of 0.02 s, nine have to be measured, because the clock that ends a sleep and the
    # clock of the timer may differ slightly.
    assert timer.take() >= 9 * 0.02
    assert timer.take() == 0.0


def test_the_timer_changes_no_element(store: Store) -> None:
    plain = eval_dataset(store, RECORDS, 4)
    timed = DataWaitTimer().attach(plain)
    assert timed.element_spec == plain.element_spec
    assert are_equal(take_batches(timed, 3), take_batches(plain, 3))
