"""The order of records as a function of (seed, step): nothing to save, nothing to replay.

Vocabulary: a *record* is one training image, an *index* its number in ``[0, n)``, a *step* one batch
counted from the start of training, an *epoch* one pass over all records.
"""

from __future__ import annotations

import math

import tensorflow as tf

from seedtf.seeds import ORDER, fold_seed

__all__ = ["BatchIndices"]

_FOREVER = 1 << 62


class BatchIndices:
    """Batches of indices, reshuffled at every pass; fast.ai's idea as a tf.data dataset.

    Guarantees: (1) the batch at a step follows from ``(n, batch_size, seed, step)`` alone; (2) an
    epoch holds each index at most once, and exactly once without ``drop_remainder``; (3) a dataset
    that starts at step k continues the one that started at 0; (4) two seeds share no order.
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
        """Describes an order.

        Args:
            n: number of records, at least 1.
            batch_size: records in a batch, at least 1.
            shuffle: a new uniform permutation every epoch, else ``0 … n − 1``.
            seed: root seed of the run.
            drop_remainder: leave out the last, short batch of an epoch, so that shapes are static.

        Raises:
            ValueError: ``n`` or ``batch_size`` below 1, or no whole batch in an epoch.
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
        return tf.random.experimental.stateless_shuffle(indices, fold_seed(self.seed, ORDER, epoch))

    def dataset(self, start_step: int = 0) -> tf.data.Dataset:
        """An endless dataset of ``(epoch int64 [], indices int64 [B])`` from ``start_step`` on.

        ``B`` is static under ``drop_remainder``, else the last batch of an epoch may be short.
        Nothing before ``start_step`` is computed except the order of its own epoch.
        """
        first_epoch, skip = divmod(start_step, self.steps_per_epoch)
        epochs = tf.data.Dataset.range(first_epoch, _FOREVER).map(
            lambda epoch: (epoch, self.epoch_order(epoch))
        )
        # one epoch ahead: for very long lists the shuffle would stall the first batch of a pass
        return epochs.prefetch(1).flat_map(self._batches).skip(skip)

    def _batches(self, epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = step * self.batch_size
            indices = order[start : start + self.batch_size]
            static = self.batch_size if self.drop_remainder else None
            return epoch, tf.ensure_shape(indices, [static])

        return tf.data.Dataset.range(self.steps_per_epoch).map(batch)
