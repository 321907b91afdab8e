"""The order of the training images, a function of seed and step, so that there is no state to save.

In this module, a *record* is a training image, and its *index* is its number in ``[0, n)``. A *step* is
the number of a batch, counted from 0 at the start of training. An *epoch* has n *slots*, each of which
is filled with one record.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from seedtf.seeds import BALANCE, ORDER, epoch_seed, hash_words

__all__ = ["BalancedIndices", "BatchIndices"]

# AutoGraph would convert the Python code of every function of a dataset, which takes longer than the
# rest of building the dataset. Only `if` and `for` on tensors need AutoGraph, and this module has none.
_without_autograph = tf.autograph.experimental.do_not_convert

_FOREVER = 1 << 62

# `BalancedIndices` uses this number instead of the epoch in the seed for the order of a class. A pass
# over the records of a class can continue in the next epoch, where it must keep its order.
_ALL_EPOCHS = -1


class BatchIndices:
    """Batches of record indices, reshuffled in every epoch (``--sampler=shuffle``).

    Guarantees:

    1. The batch at a step depends only on ``(n, batch_size, seed, step)``.
    2. An epoch has each index at most once, and exactly once without ``drop_remainder``.
    3. ``dataset(k)`` yields the same batches as ``dataset()`` without its first k batches.
    4. Two seeds give independent orders.

    Example:
        >>> order = BatchIndices(8, batch_size=4, seed=7)
        >>> order.steps_per_epoch
        2
        >>> for epoch, indices in order.dataset().take(3).as_numpy_iterator():
        ...     print(epoch, indices)
        0 [6 0 1 2]
        0 [7 5 3 4]
        1 [4 6 7 5]
        >>> next(order.dataset(start_step=2).as_numpy_iterator())[1]
        array([4, 6, 7, 5])
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_remainder: bool = True,
    ) -> None:
        """Stores the arguments; the order of an epoch is computed when it is needed.

        Args:
            n: number of records, at least 1.
            batch_size: records in a batch, at least 1.
            shuffle: whether every epoch has a new random order; if not, the order is ``0 … n − 1``.
            seed: root seed of the run.
            drop_remainder: whether the last batch of an epoch is left out if it is short, so that all
                shapes are static.

        Raises:
            ValueError: ``n`` or ``batch_size`` is below 1, or ``drop_remainder`` leaves no batch.
        """
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1. Received: {n}, {batch_size}")
        if drop_remainder and batch_size > n:
            raise ValueError(f"batch_size {batch_size} exceeds n {n} and drop_remainder is set")
        self.n = n
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_remainder = drop_remainder
        self.steps_per_epoch = n // batch_size if drop_remainder else math.ceil(n / batch_size)

    def epoch_order(self, epoch: tf.Tensor | int) -> tf.Tensor:
        """All indices in the order of ``epoch``: int64 ``[n]``, a permutation of ``range(n)``."""
        indices = tf.range(self.n, dtype=tf.int64)
        if not self.shuffle:
            return indices
        return tf.random.experimental.stateless_shuffle(
            indices, epoch_seed(self.seed, ORDER, epoch)
        )

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """An endless dataset of ``(epoch int64 [], indices int64 [B])`` that begins at ``start_step``.

        ``B`` is static with ``drop_remainder``; without it, the last batch of an epoch may be short.
        Earlier epochs than that of ``start_step`` are not computed. Earlier batches of the same epoch
        are computed and skipped.
        """
        first_epoch, skip = divmod(start_step, self.steps_per_epoch)
        epochs = tf.data.Dataset.range(first_epoch, _FOREVER).map(
            _without_autograph(lambda epoch: (epoch, self.epoch_order(epoch)))
        )
        # Prefetch the order of the next epoch, because shuffling a very long list would delay the first
        # batch of that epoch.
        return epochs.prefetch(1).flat_map(_without_autograph(self._batches)).skip(skip)

    def one_epoch_dataset(self) -> tf.data.Dataset:
        """A finite dataset: one iteration yields epoch 0, the next yields epoch 1, and so on.

        Each epoch of ``Model.fit`` therefore has a new order, as with
        ``Dataset.shuffle(..., reshuffle_each_iteration=True)``. Keep a reference to this object while
        the dataset is used, because the object holds the counter of the epochs.

        Example:
            >>> batches = BatchIndices(4, batch_size=2, seed=7).one_epoch_dataset()
            >>> [int(epoch) for _ in range(2) for epoch, indices in batches]
            [0, 0, 1, 1]
        """
        with tf.device("/cpu:0"):
            self._epochs_started = tf.Variable(0, dtype=tf.int64, trainable=False)
        started = self._epochs_started
        # A dataset with one element: the number of the epoch that an iteration starts.
        epochs = tf.data.Dataset.range(1).map(
            _without_autograph(lambda _: started.assign_add(1) - 1)
        )
        return epochs.flat_map(
            _without_autograph(lambda epoch: self._batches(epoch, self.epoch_order(epoch)))
        )

    def chunks(self, length: int, start_step: int = 0) -> tf.data.Dataset:
        """The batches of ``dataset``, with several batches of one epoch in each element.

        Args:
            length: number of batches in an element, at least 1.
            start_step: the step, counted from 0, of the first batch.

        Returns:
            An endless dataset of ``(epoch int64 [], indices int64 [length, B], count int32 [])``. Only
            the first ``count`` rows of ``indices`` are batches, and the other rows are zeros. ``count``
            is below ``length`` if fewer batches are left in the epoch.

        Raises:
            ValueError: ``drop_remainder`` is False, so that a batch may be short.

        Example:
            >>> order = BatchIndices(6, batch_size=2, seed=7)
            >>> for epoch, indices, count in order.chunks(2, start_step=1).take(2):
            ...     print(int(epoch), indices.numpy().tolist(), int(count))
            0 [[1, 5], [3, 0]] 2
            1 [[2, 5], [3, 4]] 2
        """
        if not self.drop_remainder:
            raise ValueError("chunks needs drop_remainder")
        first_epoch, skipped = divmod(start_step, self.steps_per_epoch)

        def chunks_of_epoch(epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
            first_step = tf.where(epoch == first_epoch, tf.constant(skipped, tf.int64), 0)
            return tf.data.Dataset.range(first_step, self.steps_per_epoch, length).map(
                _without_autograph(lambda step: self._chunk(epoch, order, step, length))
            )

        epochs = tf.data.Dataset.range(first_epoch, _FOREVER).map(
            _without_autograph(lambda epoch: (epoch, self.epoch_order(epoch)))
        )
        return epochs.prefetch(1).flat_map(_without_autograph(chunks_of_epoch))

    def _chunk(
        self, epoch: tf.Tensor, order: tf.Tensor, step: tf.Tensor, length: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        count = tf.minimum(self.steps_per_epoch - step, length)
        size = self.batch_size
        indices = order[step * size : (step + count) * size]
        indices = tf.pad(indices, [[0, (length - count) * size]])
        return epoch, tf.reshape(indices, [length, size]), tf.cast(count, tf.int32)

    def _batches(self, epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = step * self.batch_size
            indices = order[start : start + self.batch_size]
            static_size = self.batch_size if self.drop_remainder else None
            return epoch, tf.ensure_shape(indices, [static_size])

        return tf.data.Dataset.range(self.steps_per_epoch).map(batch)


class BalancedIndices(BatchIndices):
    """Batches of indices in which all classes are equally frequent (``--sampler=balanced``).

    An epoch has as many slots as there are records, n. Each of the K classes gets ``n // K`` of them.
    The ``n % K`` remaining slots go to the classes in turn; the next epoch goes on with the next class.
    The slots of a class are filled in passes over its records. A pass has every record of the class
    once, in a random order of its own, and may continue in the next epoch.

    Guarantees:

    1. The batch at a step depends only on (labels, batch_size, seed, step).
    2. After any number of epochs, the numbers of slots of any two classes differ by at most one, and
       so do the numbers of slots of any two records of one class.
    3. ``dataset(k)`` yields the same batches as ``dataset()`` without its first k batches.

    If ``batch_size`` does not divide n, the last, incomplete batch of an epoch is dropped.

    Example:
        >>> order = BalancedIndices(labels=[0, 0, 0, 0, 0, 0, 1, 1], batch_size=4, seed=7)
        >>> labels = order.epoch_order(0).numpy() // 6  # records 6 and 7 are the second class
        >>> np.bincount(labels)
        array([4, 4])
    """

    def __init__(self, labels: npt.ArrayLike, batch_size: int, *, seed: int = 0) -> None:
        """Prepares the order; nothing is drawn yet.

        Args:
            labels: int ``[n]``, the class of each record; a class without records gets no slots.
            batch_size: records in a batch, 1 to n.
            seed: root seed of the run.

        Raises:
            ValueError: there are no records, or ``batch_size`` is below 1 or above n.
        """
        labels = np.asarray(labels)
        super().__init__(len(labels), batch_size, seed=seed)
        _, counts = np.unique(labels, return_counts=True)
        records_by_class = np.argsort(labels, kind="stable").astype(np.int64)
        self._num_classes = len(counts)
        with tf.device("/cpu:0"):
            self._records_by_class = tf.constant(records_by_class)
            self._counts = tf.constant(counts, tf.int64)
            self._first_of_class = tf.constant(np.cumsum(counts) - counts, tf.int64)

    def epoch_order(self, epoch: tf.Tensor | int) -> tf.Tensor:
        """The record in each slot of ``epoch``: int64 ``[n]``, in ``[0, n)``; a record may recur."""
        epoch = tf.cast(epoch, tf.int64)
        before, after = self._slots_before(epoch), self._slots_before(epoch + 1)  # [K]
        first_pass, end_pass = before // self._counts, -(-after // self._counts)
        lengths = (end_pass - first_pass) * self._counts
        passes = self._passes(first_pass, lengths)
        # `passes` has whole passes, but the epoch may begin and end within a pass.
        starts = tf.cumsum(lengths, exclusive=True) + before - first_pass * self._counts
        class_of, position = _segments(after - before)
        records = tf.gather(passes, tf.gather(starts, class_of) + position)
        shuffled = tf.random.experimental.stateless_shuffle(
            records, epoch_seed(self.seed, BALANCE, epoch)
        )
        return tf.ensure_shape(shuffled, [self.n])

    def _slots_before(self, epoch: tf.Tensor) -> tf.Tensor:
        """How many slots each class had in all epochs before ``epoch``: int64 ``[K]``.

        The ``n % K`` remaining slots of an epoch go to the classes in turn, starting after the class at
        which the previous epoch stopped. Of the first m remaining slots of all epochs together,
        ``ceil((m − k) / K)`` therefore go to class k, counted from 0.
        """
        num_classes = self._num_classes
        per_class, remaining = divmod(self.n, num_classes)
        k = tf.range(num_classes, dtype=tf.int64)
        return epoch * per_class + (epoch * remaining - k + num_classes - 1) // num_classes

    def _passes(self, first_pass: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The records of each class in the order of its passes, class after class: int64 ``[M]``.

        Args:
            first_pass: int64 ``[K]``, the number of the first pass of each class.
            lengths: int64 ``[K]``, how many records of each class to return, a multiple of the number
                of its records; the sum is M.
        """
        class_of, position = _segments(lengths)
        count = tf.gather(self._counts, class_of)
        record = tf.gather(
            self._records_by_class, tf.gather(self._first_of_class, class_of) + position % count
        )
        pass_number = tf.gather(first_pass, class_of) + position // count
        hashes = hash_words(epoch_seed(self.seed, BALANCE, _ALL_EPOCHS), record, pass_number)
        # One sort shuffles all passes. The upper 32 bits of a sort key are the position of the first
        # record of the pass, so that the pass stays together. The lower 32 bits are random.
        pass_start = tf.range(tf.size(record, tf.int64), dtype=tf.int64) - position % count
        random_bits = tf.cast(tf.bitwise.right_shift(hashes, tf.constant(32, tf.uint64)), tf.int64)
        sort_keys = pass_start * (1 << 32) + random_bits
        return tf.gather(record, tf.argsort(sort_keys, stable=True))


def _segments(lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The segment of each element, and its position there, if segments of these lengths are in a row.

    For the lengths 2 and 1, the results are ``[0, 0, 1]`` and ``[0, 1, 0]``.
    """
    segment = tf.repeat(tf.range(tf.size(lengths, tf.int64), dtype=tf.int64), lengths)
    starts = tf.gather(tf.cumsum(lengths, exclusive=True), segment)
    return segment, tf.range(tf.size(segment, tf.int64), dtype=tf.int64) - starts
