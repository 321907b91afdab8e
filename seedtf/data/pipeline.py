"""The input pipelines of training and evaluation, which make batches from the order of the records."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from seedtf.augment import AUGMENT_CHAINS, AUGMENT_IMPLS, fused, reference
from seedtf.augment.mixing import Mixer
from seedtf.augment.policy import Policy, draw_parameters
from seedtf.compat.tensorflow import silence_first_xla_log
from seedtf.data.order import BatchIndices
from seedtf.data.service import portable_reader, service_dataset
from seedtf.data.shard import WHOLE, Shard
from seedtf.data.store import Store

__all__ = [
    "DataWaitTimer",
    "device_chunks",
    "device_dataset",
    "eval_dataset",
    "make_augmentation",
    "train_dataset",
]

Augmentation = Callable[..., tf.Tensor]
"""``(images, epoch, records, rows=None) → images``, as ``fused.compile_augmentation`` returns it."""

# No function of these pipelines needs AutoGraph; `data/order.py` has the reason for leaving it out.
_without_autograph = tf.autograph.experimental.do_not_convert

LookUp = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]
"""``indices → (images, rows)``, as ``Store.look_up``.

The wanted images are ``images[rows]`` or, if ``rows`` is None, all of ``images``.
"""


class DataWaitTimer:
    """Measures how many seconds training waits for batches, inside the input pipeline.

    The dataset reads the clock before and after it gets a batch from its earlier stages, so the
    training loop need not be interrupted.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        with tf.device("/cpu:0"):
            self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def attach(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """A dataset with the same elements that measures the waiting; it must be the last stage."""
        clock = tf.data.Dataset.counter().map(_without_autograph(lambda _: tf.timestamp()))

        def add(before: tf.Tensor, batch: tuple, after: tf.Tensor) -> tuple:
            with tf.control_dependencies([self._seconds.assign_add(after - before)]):
                return tf.nest.map_structure(tf.identity, batch)

        # `zip` takes one element from each of its inputs, in this order.
        timed = tf.data.Dataset.zip((clock, dataset, clock)).map(_without_autograph(add))
        options = tf.data.Options()
        # Otherwise, TensorFlow appends a prefetch, and the waiting of the prefetch would be measured.
        options.experimental_optimization.inject_prefetch = False
        return timed.with_options(options)

    def take(self) -> float:
        """The seconds that were measured since the last call; sets the timer to zero."""
        seconds = float(self._seconds.numpy())
        self._seconds.assign(0.0)
        return seconds


def make_augmentation(
    policy: Policy,
    seed: int,
    size: int,
    impl: str,
    strength: tf.Variable | None = None,
    *,
    whole_batch: bool = False,
    deterministic: bool = False,
) -> Augmentation:
    """The augmentation that ``impl`` names: ``fused`` (compiled), or a chain of separate ops.

    Args:
        policy: the ranges that parameters are drawn from.
        seed: root seed of the run.
        size: side in pixels of the augmented images.
        impl: one of ``AUGMENT_IMPLS``.
        strength: factor on every range of ``policy``, read for each batch; None for 1.
        whole_batch: whether to process all images at once, for a train step that augments on a GPU.
            The pixels are the same up to rounding.
        deterministic: whether ``tf.config.experimental.enable_op_determinism`` is on. If so, the result
            is not written into a variable; the pixels are the same.

    Raises:
        UserError: ``impl`` needs TensorFlow Addons, which is not installed.
        ValueError: ``impl`` is not one of ``AUGMENT_IMPLS``.
    """
    out_size = (size, size)
    silence_first_xla_log()
    if impl == "fused":
        return fused.compile_augmentation(
            policy,
            seed,
            out_size,
            strength,
            whole_batch=whole_batch,
            deterministic=deterministic,
        )
    if impl in AUGMENT_CHAINS:
        chain = reference.make_chain(impl)

        # This function is not compiled, because TensorFlow's projective transform has no XLA kernel.
        def augment(
            images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor, rows: tf.Tensor | None = None
        ) -> tf.Tensor:
            images = images if rows is None else tf.gather(images, rows)
            parameters = draw_parameters(policy.at(strength), seed, epoch, records)
            return chain(images, parameters, out_size)

        return augment
    raise ValueError(f"impl must be one of {AUGMENT_IMPLS}. Received: {impl!r}")


def train_dataset(
    store: Store,
    records: np.ndarray,
    order: BatchIndices,
    augmentation: Augmentation,
    *,
    start_step: int = 0,
    shard: Shard = WHOLE,
    data_service: str = "",
    mixer: Mixer | None = None,
    one_epoch: bool = False,
) -> tf.data.Dataset:
    """Training batches, endless unless ``one_epoch`` is set.

    The pixels of a batch depend only on seed and step and, with ``--augment_strength=auto``, on the
    history of the run.

    Args:
        store: the decoded images.
        records: int64 ``[n]``, the training records of the store.
        order: an order of ``n`` positions in ``records``.
        augmentation: from ``make_augmentation``.
        start_step: the step, counted from 0, of the first batch.
        shard: which slices of every batch to make, each as an element of its own. Images of other
            slices are not read.
        data_service: ``host:port`` of a tf.data service whose workers make the batches; empty to make
            them in this process.
        mixer: from ``augment.mixing.make_mixer``.
        one_epoch: whether the dataset ends after an epoch, so that each iteration over it yields the
            next epoch. It cannot be combined with ``start_step``, ``shard`` or ``data_service``.

    Returns:
        A dataset of images float32 ``[B, S, S, 3]`` in 0–255 and labels int32 ``[B]``, or float32
        ``[B, K]`` with a mixer or soft labels. With a shard, ``B`` is the size of a slice.

    Example:
        >>> from seedtf.data.catalog import Catalog
        >>> from seedtf.data.store import keep_in_memory
        >>> paths = [f"{species}/{number}.png" for species in ("maize", "wheat") for number in range(3)]
        >>> labels = np.repeat(np.array([0, 1], np.int32), 3)
        >>> catalog = Catalog("field", paths, labels, class_names=("maize", "wheat"))
        >>> store = keep_in_memory(catalog, images=np.zeros([6, 20, 20, 3], np.uint8))
        >>> batches = train_dataset(
        ...     store,
        ...     records=np.arange(6),
        ...     order=BatchIndices(6, batch_size=3, seed=1),
        ...     augmentation=make_augmentation(Policy(), seed=1, size=16, impl="tf_image"),
        ... )
        >>> images, labels = next(iter(batches))
        >>> images.shape, images.dtype.name, labels.shape
        (TensorShape([3, 16, 16, 3]), 'float32', TensorShape([3]))
    """
    records = tf.constant(records, tf.int64)
    labels = _train_labels(store)

    def make_batch(
        epoch: tf.Tensor, positions: tf.Tensor, look_up: LookUp = store.look_up
    ) -> tuple[tf.Tensor, tf.Tensor]:
        indices = tf.gather(records, positions)
        images, rows = look_up(indices)
        images = augmentation(images, epoch, indices, rows)
        batch = images, tf.gather(labels, indices)
        return batch if mixer is None else mixer(*batch, epoch, indices)

    if data_service:
        remote_read = portable_reader(store)
        batches = service_dataset(
            order,
            start_step,
            shard=shard,
            local_fn=make_batch,
            remote_fn=functools.partial(make_batch, look_up=lambda i: (remote_read(i), None)),
            address=data_service,
        )
    else:
        batches = order.one_epoch_dataset() if one_epoch else order.dataset(start_step)
        batches = shard.slice_batches(batches)
        batches = batches.map(_without_autograph(make_batch), tf.data.AUTOTUNE, deterministic=True)
    return _prefetch(batches, order.steps_per_epoch if one_epoch else tf.data.INFINITE_CARDINALITY)


def device_dataset(
    store: Store,
    records: np.ndarray,
    order: BatchIndices,
    *,
    with_images: bool,
    start_step: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """The batches of ``train_dataset`` before augmentation, for a train step that augments.

    Args:
        store: the decoded images.
        records: int64 ``[n]``, the training records of the store.
        order: an order of ``n`` positions in ``records``.
        with_images: whether the batches contain the images; if not, the train step gathers them.
        start_step: the step, counted from 0, of the first batch.
        shard: which slices of every batch to make.

    Returns:
        A dataset of pairs (features, labels). The features are ``epoch`` and ``record``, int64 ``[B]``,
        and with ``with_images`` also ``image``, uint8 ``[B, S, S, 3]``. The labels are int32 ``[B]``,
        or float32 ``[B, K]`` if they are soft.
    """
    records = tf.constant(records, tf.int64)
    labels = _train_labels(store)

    def make_batch(
        epoch: tf.Tensor, positions: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        indices = tf.gather(records, positions)
        features = {"epoch": tf.fill(tf.shape(indices), epoch), "record": indices}
        if with_images:
            features["image"] = store.read(indices)
        return features, tf.gather(labels, indices)

    batches = order.dataset(start_step)
    batches = shard.slice_batches(batches)
    batches = batches.map(_without_autograph(make_batch), tf.data.AUTOTUNE, deterministic=True)
    return _prefetch(batches)


def device_chunks(
    store: Store, records: np.ndarray, order: BatchIndices, *, length: int, start_step: int = 0
) -> tf.data.Dataset:
    """Several batches of ``device_dataset`` in each element, for a function that runs several steps.

    Args:
        store: the decoded images.
        records: int64 ``[n]``, the training records of the store.
        order: an order of ``n`` positions in ``records``.
        length: number of batches in an element; the last element of an epoch may have fewer.
        start_step: the step, counted from 0, of the first batch.

    Returns:
        A dataset of pairs (batches, count int32 ``[]``). The batches are those of ``device_dataset``
        without images, stacked along a new first dimension of size ``length``. Only the first ``count``
        of them are valid.
    """
    records = tf.constant(records, tf.int64)
    labels = _train_labels(store)

    def make_chunk(
        epoch: tf.Tensor, positions: tf.Tensor, count: tf.Tensor
    ) -> tuple[tuple[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
        indices = tf.gather(records, positions)
        features = {"epoch": tf.fill(tf.shape(indices), epoch), "record": indices}
        return (features, tf.gather(labels, indices)), count

    chunks = order.chunks(length, start_step)
    chunks = chunks.map(_without_autograph(make_chunk), tf.data.AUTOTUNE, deterministic=True)
    return _prefetch(chunks)


def eval_dataset(
    store: Store, records: np.ndarray, batch_size: int, shard: Shard = WHOLE
) -> tf.data.Dataset:
    """Batches with each record exactly once, in the order of ``records``, without augmentation.

    The last batch may be short. The batch dimension of the static shape is None, so that a function is
    not traced again for a short batch.

    Args:
        store: the decoded images.
        records: int64 ``[n]``, the records of the store to evaluate.
        batch_size: number of records in a batch of all replicas together.
        shard: which part of the records to evaluate in this process.

    Returns:
        A dataset of images float32 ``[B, S, S, 3]`` in 0–255 and labels int32 ``[B]``.
    """
    labels = tf.constant(store.catalog.labels)

    def make_batch(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(store.read(indices), tf.float32), tf.gather(labels, indices)

    batches = shard.divide_records(records, batch_size)
    batches = batches.map(_without_autograph(make_batch), tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _train_labels(store: Store) -> tf.Tensor:
    """Labels int32 ``[N]``, or the store's soft labels float32 ``[N, K]``."""
    return tf.constant(store.catalog.labels if store.soft_labels is None else store.soft_labels)


def _prefetch(
    batches: tf.data.Dataset, steps: int = tf.data.INFINITE_CARDINALITY
) -> tf.data.Dataset:
    """A dataset that prefetches ``batches``, of which there are ``steps``.

    Each thread makes one batch at a time, in a thread pool that only this pipeline uses. With this
    pool, two cores were 1.9 times as fast as one; with TensorFlow's shared pool, 1.3 to 1.5 times. The
    pool has one thread more than there are cores, because one thread may be waiting.
    """
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = 1 + (os.cpu_count() or 1)
    batches = batches.prefetch(tf.data.AUTOTUNE).with_options(options)
    # If the cardinality is not known to be infinite, MultiWorkerMirroredStrategy asks all workers at
    # every step whether their data has ended.
    return batches.apply(tf.data.experimental.assert_cardinality(steps))
