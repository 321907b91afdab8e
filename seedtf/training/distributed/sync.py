"""What several workers must know at the same step: a signal, the time, that all have the same data."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.training.distributed.cluster import Cluster
from seedtf.training.stop_signal import StopSignal

__all__ = ["WorkerSync", "check_equal_across_workers"]

# TensorFlow numbers the groups of its own collectives from 1 on, one for each set of devices
_GROUP = 1_000_003
_EXACT_BITS = 52  # of a float64


class WorkerSync(keras.callbacks.Callback):
    """Asks all workers before every step; what is decided by it is decided at the same step by all.

    A worker that went to save or stopped on its own would leave the others waiting for its gradients.
    The question is one small collective between the hosts; the devices have no part in it and go on
    with the steps they were given.

    Args:
        cluster: the workers.
        stop: the signals that this process received.

    Attributes:
        name: the signal that some worker received and which one it was; empty without one.
    """

    def __init__(self, cluster: Cluster, stop: StopSignal) -> None:
        super().__init__()
        self.name = ""
        self._cluster = cluster
        self._stop = stop
        self._started = time.monotonic()
        self._seconds = 0.0

    def clock(self) -> float:
        """The chief's seconds when all were last asked: the same number on every worker."""
        return self._seconds

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Asks."""
        chief = self._cluster.index == 0
        seconds = time.monotonic() - self._started if chief else 0.0
        self._seconds, code = _all_reduce_max([seconds, self._code()], self._cluster.size)
        if code:
            worker, number = divmod(int(code), signal.NSIG)
            self.name = f"{signal.Signals(number).name} at {self._cluster.name(worker)}"

    def _code(self) -> float:
        """Signal and worker as one number, 0 for none."""
        if not self._stop.name:
            return 0.0
        return float(self._cluster.index * signal.NSIG + signal.Signals[self._stop.name])


def check_equal_across_workers(facts: Mapping[str, Any], cluster: Cluster | None) -> None:
    """Compares JSON values between all workers, which must all ask for the same names.

    Raises:
        UserError: naming the first that differs.
    """
    if cluster is None or cluster.size == 1:
        return
    numbers = np.array([_number(value) for value in facts.values()])
    highest, lowest = np.split(_all_reduce_max([*numbers, *-numbers], cluster.size), 2)
    for name, high, low in zip(facts, highest, -lowest, strict=True):
        if high != low:
            text = json.dumps(facts[name])
            found = text if len(text) <= 60 else f"{text[:57]}…"
            raise UserError(
                f"{name}: not the same on all {cluster.size} workers, here {found}; start every "
                "worker with the same flags, versions and images"
            )


def _number(value: Any) -> float:
    """A digest of a JSON value that fits a float64 exactly."""
    digest = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).digest()
    return float(int.from_bytes(digest, "big") >> (64 - _EXACT_BITS))


def _all_reduce_max(values: list[float], workers: int) -> np.ndarray:
    """The largest of each value among the workers; returns when all have asked."""
    return _make_vote(len(values), workers)(tf.constant(values, tf.float64)).numpy()


_votes: dict[tuple[int, int], Callable[[tf.Tensor], tf.Tensor]] = {}


def _make_vote(length: int, workers: int) -> Callable[[tf.Tensor], tf.Tensor]:
    if (length, workers) not in _votes:

        @tf.function(autograph=False)
        def vote(values: tf.Tensor) -> tf.Tensor:
            with tf.device("/cpu:0"):
                return tf.raw_ops.CollectiveReduceV2(
                    input=values,
                    group_size=workers,
                    group_key=_GROUP,
                    instance_key=length,  # one shape, one instance
                    ordering_token=[],
                    merge_op="Max",
                    final_op="Id",
                )

        _votes[length, workers] = vote
    return _votes[length, workers]
