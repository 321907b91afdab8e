"""From order to batches: the training and the evaluation pipeline, one function each."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from seedtf.augment import AUGMENT_CHAINS, AUGMENT_IMPLS
from seedtf.augment import fused as augment
from seedtf.augment import reference as reference_ops
from seedtf.augment.mixing import Mixing, mix
from seedtf.augment.policy import Policy, draw_parameters
from seedtf.compat.tensorflow import silence_first_xla_log
from seedtf.data.order import BatchIndices
from seedtf.data.service import Load, numbered_order, portable_reader, service_dataset
from seedtf.data.shard import WHOLE, Shard
from seedtf.data.store import Store

__all__ = [
    "DataWaitTimer",
    "device_dataset",
    "eval_dataset",
    "make_augmentation",
    "make_mixer",
    "train_dataset",
]

Augmentation = Callable[..., tf.Tensor]
"""As ``augment.compile_augmentation`` returns it: ``(images, epoch, records, rows=None)``."""
LookUp = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]
Mixer = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class DataWaitTimer:
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
    """The augmentation named by ``--augment_impl``: ``fused`` (compiled) or a chain of plain ops.

    ``strength``, where it is given, is a factor on every range of ``policy``, read at each batch.
    ``whole_batch`` is for a train step that augments on a GPU; the pixels are the same to rounding.
    ``deterministic`` says that TensorFlow's operations are, and changes no pixel.

    Raises:
        UserError: ``impl`` needs TensorFlow Addons and that is not installed.
        ValueError: ``impl`` is none of ``AUGMENT_IMPLS``.
    """
    out_size = (size, size)
    silence_first_xla_log()
    if impl == "fused":
        return augment.compile_augmentation(
            policy,
            seed,
            out_size,
            strength,
            whole_batch=whole_batch,
            deterministic=deterministic,
        )
    if impl in AUGMENT_CHAINS:
        chain = reference_ops.make_chain(impl)

        # not compiled: TensorFlow's projective transform has no XLA kernel
        def plain(
            images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor, rows: tf.Tensor | None = None
        ) -> tf.Tensor:
            images = images if rows is None else tf.gather(images, rows)
            parameters = draw_parameters(policy.at(strength), seed, epoch, records)
            return chain(images, parameters, out_size)

        return plain
    raise ValueError(f"impl must be one of {AUGMENT_IMPLS}. Received: {impl!r}")


def make_mixer(mixing: Mixing, seed: int, classes: int) -> Mixer | None:
    """What mixes the augmented images and the labels of a batch; None where nothing is to be mixed.

    Returns:
        ``(images float32 [B, S, S, 3], labels int32 [B], epoch int64 [], records int64 [B]) →
        (images, labels float32 [B, classes])``.
    """
    if not mixing.active:
        return None

    @tf.function(jit_compile=True, autograph=False)
    def mixer(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        soft = tf.one_hot(labels, classes)
        return mix(images, soft, epoch, records, seed=seed, mixing=mixing)

    return mixer


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
) -> tf.data.Dataset:
    """Endless training batches; the one at a step, to the pixel, follows from (seed, step).

    Args:
        store: decoded images.
        records: int64 ``[n]``, the store's records that train.
        order: an order over ``n`` positions.
        augmentation: from ``make_augmentation``.
        start_step: the step, counted from 0, to begin at.
        share: the slices of every batch to make; only these are read and augmented.
        data_service: ``host:port`` of a tf.data service whose workers make the batches, if any.
        mixer: from ``make_mixer``.

    Returns:
        A dataset of images float32 ``[B, S, S, 3]`` in 0–255 and labels int32 ``[B]``, float32
        ``[B, K]`` where they are mixed; ``B`` is a slice where the batch is shared.
    """
    records = tf.constant(records, tf.int64)
    labels = tf.constant(store.catalog.labels)

    def loading(look_up: LookUp) -> Load:
        def load(epoch: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = tf.gather(records, positions)
            images, rows = look_up(chosen)
            images, known = augmentation(images, epoch, chosen, rows), tf.gather(labels, chosen)
            return (images, known) if mixer is None else mixer(images, known, epoch, chosen)

        return load

    if data_service:
        read_there = portable_reader(store)
        batches = service_dataset(
            functools.partial(numbered_order, order, shard),
            start_step * shard.count,
            local_fn=loading(store.look_up),
            remote_fn=loading(lambda chosen: (read_there(chosen), None)),
            address=data_service,
        )
    else:
        batches = _map_batches(order, shard, start_step, loading(store.look_up))
    return _prefetch(batches)


def device_dataset(
    store: Store,
    records: np.ndarray,
    order: BatchIndices,
    *,
    with_images: bool,
    start_step: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """The batches of ``train_dataset`` for a step that augments: the same records in the same order.

    Args:
        store: decoded images.
        records: int64 ``[n]``, the store's records that train.
        order: an order over ``n`` positions.
        with_images: whether the images come along; else the step has them.
        start_step: the step, counted from 0, to begin at.
        share: the slices of every batch to make.

    Returns:
        A dataset of (features, labels int32 ``[B]``); features are ``epoch`` and ``record``, int64
        ``[B]``, and ``image``, uint8 ``[B, S, S, 3]``, where the images come along.
    """
    records = tf.constant(records, tf.int64)
    labels = tf.constant(store.catalog.labels)

    def load(epoch: tf.Tensor, positions: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        chosen = tf.gather(records, positions)
        features = {"epoch": tf.fill(tf.shape(chosen), epoch), "record": chosen}
        if with_images:
            features["image"] = store.read(chosen)
        return features, tf.gather(labels, chosen)

    return _prefetch(_map_batches(order, shard, start_step, load))


def eval_dataset(
    store: Store, records: np.ndarray, batch_size: int, shard: Shard = WHOLE
) -> tf.data.Dataset:
    """Every record exactly once, in the order given, unaugmented; the last batch may be short.

    The batch dimension stays unknown to the graph, so the short batch costs no second trace.

    Args:
        store: decoded images.
        records: int64 ``[n]``, the store's records to judge.
        batch_size: records in a batch.
        share: the part of the records to judge here.

    Returns:
        A dataset of images float32 ``[B, S, S, 3]`` in 0–255 and labels int32 ``[B]``.
    """
    labels = tf.constant(store.catalog.labels)

    def load(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(store.read(chosen), tf.float32), tf.gather(labels, chosen)

    batches = shard.of_records(records, batch_size)
    return batches.map(load, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def _map_batches(
    order: BatchIndices, shard: Shard, start_step: int, load: Callable[..., tuple]
) -> tf.data.Dataset:
    """Whole batches are mapped: one call for the gather, one compiled call for the augmentation."""
    shared = shard.of_batches(order.dataset(start_step))
    return shared.map(load, tf.data.AUTOTUNE, deterministic=True)


def _prefetch(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Ready ahead of the step that asks; a batch is worked on by one thread, several at a time.

    In threads of its own: among those that TensorFlow shares, two cores made 1.3 to 1.5 times what one
    does, and so 1.9 times. One more than there are cores, for one may be waiting.
    """
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = 1 + (os.cpu_count() or 1)
    batches = batches.prefetch(tf.data.AUTOTUNE).with_options(options)
    # said aloud, or several workers would ask each other at every step whether one is at its end
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
