"""From order to batches: the training and the evaluation pipeline, one function each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from seedtf.data import augment, reference_ops
from seedtf.data.order import BatchIndices
from seedtf.data.store import Store

__all__ = ["AUGMENT_IMPLS", "WaitClock", "eval_dataset", "make_augmentation", "train_dataset"]

AUGMENT_IMPLS = ("fused", "tf_image")

Augmentation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class WaitClock:
    """Seconds that training spent waiting for a batch, counted inside the pipeline.

    The dataset itself notes the time before and after each batch is asked of the stages above, so
    nothing in the training loop has to stop for it.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        with tf.device("/cpu:0"):
            self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def attach(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same elements; must be the last stage."""
        now = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def add(before: tf.Tensor, batch: tuple, after: tf.Tensor) -> tuple:
            with tf.control_dependencies([self._seconds.assign_add(after - before)]):
                return tf.nest.map_structure(tf.identity, batch)

        # zip asks its inputs in this order, one after the other
        timed = tf.data.Dataset.zip((now, dataset, now)).map(add)
        options = tf.data.Options()
        # TensorFlow would put another prefetch behind the clocks, and they would measure that
        options.experimental_optimization.inject_prefetch = False
        return timed.with_options(options)

    def take(self) -> float:
        """Seconds since the last call."""
        seconds = float(self._seconds.numpy())
        self._seconds.assign(0.0)
        return seconds


def make_augmentation(policy: augment.Policy, seed: int, size: int, impl: str) -> Augmentation:
    """The augmentation named by ``--augment_impl``: ``fused`` (compiled) or ``tf_image`` (plain ops).

    Raises:
        ValueError: ``impl`` is neither.
    """
    out_size = (size, size)
    if impl == "fused":
        return augment.compile_augmentation(policy, seed, out_size)
    if impl == "tf_image":
        # not compiled: TensorFlow's projective transform has no XLA kernel
        def plain(images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
            parameters = augment.draw_parameters(policy, seed, epoch, records)
            return reference_ops.augment_images(images, parameters, out_size)

        return plain
    raise ValueError(f"impl must be one of {AUGMENT_IMPLS}. Received: {impl!r}")


def train_dataset(
    store: Store,
    records: np.ndarray,
    order: BatchIndices,
    augmentation: Augmentation,
    *,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Endless training batches; the one at a step, to the pixel, follows from (seed, step).

    Args:
        store: decoded images.
        records: int64 ``[n]``, the store's records that train.
        order: an order over ``n`` positions.
        augmentation: from ``make_augmentation``.
        start_step: the step, counted from 0, to begin at.

    Returns:
        A dataset of images float32 ``[B, S, S, 3]`` in 0–255 and labels int32 ``[B]``.
    """
    records = tf.constant(records, tf.int64)
    labels = tf.constant(store.catalog.labels)

    def load(epoch: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = tf.gather(records, positions)
        images = augmentation(store.read(chosen), epoch, chosen)
        return images, tf.gather(labels, chosen)

    # whole batches are mapped: one call for the gather, one compiled call for the augmentation
    batches = order.dataset(start_step).map(load, tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def eval_dataset(store: Store, records: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Every record exactly once, in the order given, unaugmented; the last batch may be short.

    The batch dimension stays unknown to the graph, so the short batch costs no second trace.

    Args:
        store: decoded images.
        records: int64 ``[n]``, the store's records to judge.
        batch_size: records in a batch.

    Returns:
        A dataset of images float32 ``[B, S, S, 3]`` in 0–255 and labels int32 ``[B]``.
    """
    labels = tf.constant(store.catalog.labels)

    def load(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(store.read(chosen), tf.float32), tf.gather(labels, chosen)

    batches = tf.data.Dataset.from_tensor_slices(tf.constant(records, tf.int64)).batch(batch_size)
    return batches.map(load, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
