"""Which part of every batch a process makes, where several devices or machines share it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

__all__ = ["WHOLE", "Shard"]


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one process makes, where replicas of the network share it.

    Attributes:
        replicas: how many share a batch; each takes a slice, in order.
        first: the first replica that this process feeds.
        count: how many it feeds; their slices are elements of its dataset, one after the other.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1

    def of_batches(self, order: tf.data.Dataset) -> tf.data.Dataset:
        """``(epoch [], indices [B])`` as ``count`` elements ``(epoch [], indices [B / replicas])``."""
        if self.replicas == 1:
            return order

        def slices(epoch: tf.Tensor, indices: tf.Tensor) -> tf.data.Dataset:
            rows = tf.reshape(indices, [self.replicas, -1])[self.first : self.first + self.count]
            return tf.data.Dataset.from_tensor_slices((tf.fill([self.count], epoch), rows))

        return order.flat_map(slices)

    def steps(self, count: int, batch_size: int) -> int:
        """Elements that each replica gets of ``count`` records by ``of_records``.

        Raises:
            ValueError: fewer records than replicas.
        """
        if count < self.replicas:
            raise ValueError(f"each replica needs a record. Received: {count} for {self.replicas}")
        return min(math.ceil(count / batch_size), count // self.replicas)

    def of_records(self, records: np.ndarray, batch_size: int) -> tf.data.Dataset:
        """``records`` once, in elements int64 ``[b]`` that every process has equally many of.

        No element is empty and none is longer than the others by more than one, so that all replicas
        go through the same number of steps. Raises ValueError for fewer records than replicas.
        """
        whole = tf.constant(records, tf.int64)
        if self.replicas == 1:
            return tf.data.Dataset.from_tensor_slices(whole).batch(batch_size)
        count, parts = len(records), self.steps(len(records), batch_size) * self.replicas
        mine = [i for i in range(parts) if 0 <= i % self.replicas - self.first < self.count]

        def part(number: tf.Tensor) -> tf.Tensor:
            return whole[number * count // parts : (number + 1) * count // parts]

        return tf.data.Dataset.from_tensor_slices(tf.constant(mine, tf.int64)).map(part)


WHOLE = Shard()
"""One process, one replica: nothing is shared."""
