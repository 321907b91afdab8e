"""Which part of every batch a process makes, if several devices or machines share the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

__all__ = ["WHOLE", "Shard"]


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one process makes for its replicas of the network.

    Attributes:
        replicas: number of replicas of the network that share a batch; replica i takes slice i.
        first: the index of the first replica of this process, from 0.
        count: the number of replicas of this process. In this process's dataset, each batch is
            ``count`` consecutive elements, one slice for each of its replicas.

    Example:
        >>> batches = tf.data.Dataset.from_tensors((0, [10, 11, 12, 13]))
        >>> second_of_two = Shard(replicas=2, first=1, count=1)
        >>> slices = second_of_two.slice_batches(batches)
        >>> [indices.tolist() for _, indices in slices.as_numpy_iterator()]
        [[12, 13]]
    """

    replicas: int = 1
    first: int = 0
    count: int = 1

    def slice_batches(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """A dataset of this process's slices of each batch.

        Args:
            batches: a dataset of ``(epoch int64 [], indices int64 [B])``.

        Returns:
            A dataset with ``count`` elements ``(epoch int64 [], indices int64 [B / replicas])`` for
            each element of ``batches``.
        """
        if self.replicas == 1:
            return batches

        def take_slices(epoch: tf.Tensor, indices: tf.Tensor) -> tf.data.Dataset:
            rows = tf.reshape(indices, [self.replicas, -1])[self.first : self.first + self.count]
            return tf.data.Dataset.from_tensor_slices((tf.fill([self.count], epoch), rows))

        return batches.flat_map(take_slices)

    def steps(self, num_records: int, batch_size: int) -> int:
        """The number of elements that each replica gets from ``divide_records`` for so many records.

        Raises:
            ValueError: there are fewer records than replicas.
        """
        if num_records < self.replicas:
            raise ValueError(
                "each replica needs a record. "
                f"Received: {num_records} records for {self.replicas} replicas"
            )
        return min(math.ceil(num_records / batch_size), num_records // self.replicas)

    def divide_records(self, records: np.ndarray, batch_size: int) -> tf.data.Dataset:
        """A dataset of this process's part of ``records``, with each record once.

        Args:
            records: int64 ``[n]``, the records that all replicas share.
            batch_size: the number of records that all replicas together take in a step.

        Returns:
            A dataset of elements int64 ``[b]``; b is at least 1 and at most ``max(2, ceil(batch_size /
            replicas))``. All replicas get the same number of elements, so that they make the same
            number of steps. With several replicas, the lengths of the elements differ by at most one.

        Raises:
            ValueError: there are fewer records than replicas.
        """
        all_records = tf.constant(records, tf.int64)
        if self.replicas == 1:
            return tf.data.Dataset.from_tensor_slices(all_records).batch(batch_size)
        num_records = len(records)
        parts = self.steps(num_records, batch_size) * self.replicas
        own_parts = [i for i in range(parts) if 0 <= i % self.replicas - self.first < self.count]

        def part(number: tf.Tensor) -> tf.Tensor:
            return all_records[number * num_records // parts : (number + 1) * num_records // parts]

        return tf.data.Dataset.from_tensor_slices(tf.constant(own_parts, tf.int64)).map(part)


WHOLE = Shard()
"""The shard of a run with one process and one replica: whole batches."""
