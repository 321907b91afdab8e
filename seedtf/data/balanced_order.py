"""The order of ``--sampler=balanced``: every class as often as every other, whatever its size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from seedtf.data.order import BatchIndices
from seedtf.seeds import BALANCE, fold_seed, hash_words

__all__ = ["BalancedIndices"]

# the epoch whose seed the passes share, for they run on from epoch to epoch
_ALL_EPOCHS = -1


class BalancedIndices(BatchIndices):
    """Batches of indices in which the classes come equally often.

    An epoch has n slots, as many as there are records. Of K classes each gets ``n // K`` or one more;
    the odd slots go round the classes, from epoch to epoch. A class hands its records out in passes:
    all of them once in a random order, then all again in another; a pass runs on into the next epoch.

    Guarantees: (1) the batch at a step follows from (labels, batch_size, seed, step) alone; (2) over
    any number of epochs from the first, the slots of two classes, and those of two records of one
    class, differ by at most one; (3) a dataset that starts at step k continues the one that started
    at 0. The slots of an epoch that fill no whole batch are left out: fewer than a batch, by chance.
    """

    def __init__(self, labels: npt.ArrayLike, batch_size: int, *, seed: int = 0) -> None:
        """Describes an order.

        Args:
            labels: int ``[n]``, the class of each record; a class without records gets no slot.
            batch_size: records in a batch, in 1–n.
            seed: root seed of the run.

        Raises:
            ValueError: no record, ``batch_size`` below 1, or no whole batch in an epoch.
        """
        labels = np.asarray(labels)
        super().__init__(len(labels), batch_size, seed=seed)
        _, counts = np.unique(labels, return_counts=True)
        by_class = np.argsort(labels, kind="stable").astype(np.int64)
        self._classes = len(counts)
        with tf.device("/cpu:0"):
            self._by_class = tf.constant(by_class)
            self._counts = tf.constant(counts, tf.int64)
            self._firsts = tf.constant(np.cumsum(counts) - counts, tf.int64)

    def epoch_order(self, epoch: tf.Tensor | int) -> tf.Tensor:
        """The records of ``epoch``'s slots: int64 ``[n]`` in ``[0, n)``, some of them several times."""
        epoch = tf.cast(epoch, tf.int64)
        before, after = self._slots_before(epoch), self._slots_before(epoch + 1)  # [K]
        first_pass, passes = before // self._counts, -(-after // self._counts)
        lengths = (passes - first_pass) * self._counts
        handed_out = self._passes(first_pass, lengths)
        # of the passes that the epoch touches, the stretch of each class that falls to it
        starts = tf.cumsum(lengths, exclusive=True) + before - first_pass * self._counts
        class_of, number = _enumerate(after - before)
        chosen = tf.gather(handed_out, tf.gather(starts, class_of) + number)
        shuffled = tf.random.experimental.stateless_shuffle(
            chosen, fold_seed(self.seed, BALANCE, epoch)
        )
        return tf.ensure_shape(shuffled, [self.n])

    def _slots_before(self, epoch: tf.Tensor) -> tf.Tensor:
        """How many slots each class had before ``epoch``: int64 ``[K]``.

        An epoch's odd slots are dealt on where the last epoch stopped, so the number that class k
        has of the first m is ``ceil((m − k) / K)``.
        """
        each, odd = divmod(self.n, self._classes)
        k = tf.range(self._classes, dtype=tf.int64)
        return epoch * each + (epoch * odd - k + self._classes - 1) // self._classes

    def _passes(self, first_pass: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """The records of each class in the order of its passes, class after class: int64 ``[M]``.

        Args:
            first_pass: int64 ``[K]``, the number of the pass to begin with.
            lengths: int64 ``[K]`` summing to M, how many records to list: a multiple of the class.
        """
        class_of, number = _enumerate(lengths)
        count = tf.gather(self._counts, class_of)
        record = tf.gather(self._by_class, tf.gather(self._firsts, class_of) + number % count)
        number_of_pass = tf.gather(first_pass, class_of) + number // count
        key = hash_words(fold_seed(self.seed, BALANCE, _ALL_EPOCHS), record, number_of_pass)
        # One sort shuffles every pass: which pass in the upper bits, chance in the lower 32. The pass
        # is named by the place where it begins, below 2³¹.
        begins = tf.range(tf.size(record, tf.int64), dtype=tf.int64) - number % count
        chance = tf.cast(tf.bitwise.right_shift(key, tf.constant(32, tf.uint64)), tf.int64)
        order = tf.argsort(begins * (1 << 32) + chance, stable=True)
        return tf.gather(record, order)


def _enumerate(lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For runs of these lengths one after another, which run a place is in and its number there."""
    run = tf.repeat(tf.range(tf.size(lengths, tf.int64), dtype=tf.int64), lengths)
    begins = tf.gather(tf.cumsum(lengths, exclusive=True), run)
    return run, tf.range(tf.size(run, tf.int64), dtype=tf.int64) - begins
