"""Shares stop signals and the chief's clock between several workers, and compares their settings."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.tensorflow import make_all_reduce_max
from seedtf.errors import UserError
from seedtf.training.distributed.cluster import Cluster
from seedtf.training.stop_signal import StopSignal

__all__ = ["WorkerSync", "check_equal_across_workers"]

# The seconds between two all-reduces, if a step takes less time. Signals are noticed at an all-reduce
# only.
_INTERVAL_SECONDS = 0.25
_EXACT_BITS = 53  # A float64 represents every integer of at most this many bits exactly.


class WorkerSync(keras.callbacks.Callback):
    """Several times a second, shares stop signals and the chief's clock with all workers.

    A worker that saved or stopped alone would leave the others waiting for its gradients. With the
    shared values, all workers decide to save or to stop before the same step.

    One small all-reduce between the CPUs of the workers exchanges the values, while the devices go on
    with the steps that are queued. An all-reduce before every short step would delay the training, so
    there are several steps between two all-reduces. The number of these steps is computed from the
    chief's clock, so it is equal on all workers.

    Args:
        cluster: the workers.
        stop: the signals that this process receives.

    Attributes:
        signal_name: the signal that some worker received, such as ``SIGTERM at worker 1 (host1:2222)``;
            empty before that.
    """

    def __init__(self, cluster: Cluster, stop: StopSignal) -> None:
        super().__init__()
        self.signal_name = ""
        self._cluster = cluster
        self._stop = stop
        self._started = time.monotonic()
        self._chief_seconds = 0.0
        self._interval_steps = self._steps_left = 1

    def clock(self) -> float:
        """Returns the seconds of the chief's clock at the last all-reduce, equal on every worker."""
        return self._chief_seconds

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._steps_left -= 1
        if self._steps_left > 0:
            return
        previous_seconds, is_chief = self._chief_seconds, self._cluster.index == 0
        seconds = time.monotonic() - self._started if is_chief else 0.0
        self._chief_seconds, code = _all_reduce_max(
            [seconds, self._signal_code()], self._cluster.size
        )
        self._steps_left = self._interval_steps = self._steps_until_next(previous_seconds)
        if code:
            worker, number = divmod(int(code), signal.NSIG)
            self.signal_name = f"{signal.Signals(number).name} at {self._cluster.name(worker)}"

    def _steps_until_next(self, previous_seconds: float) -> int:
        """The number of steps until the next all-reduce, equal on every worker.

        It is at most twice the previous number.

        ``previous_seconds`` is the chief's clock at the all-reduce before the last one; 0 if there was
        none.
        """
        if previous_seconds == 0.0:
            return 1
        step_seconds = (self._chief_seconds - previous_seconds) / self._interval_steps
        steps = int(_INTERVAL_SECONDS / max(step_seconds, 1e-6))
        return max(1, min(2 * self._interval_steps, steps))

    def _signal_code(self) -> float:
        """A number that encodes this worker and the signal that it has received; 0 for no signal."""
        if not self._stop.signal_name:
            return 0.0
        return float(self._cluster.index * signal.NSIG + signal.Signals[self._stop.signal_name])


def check_equal_across_workers(named_values: Mapping[str, Any], cluster: Cluster | None) -> None:
    """Checks that each of ``named_values`` is equal on all workers.

    Args:
        named_values: JSON values by name. All workers must pass the same names in the same order.
        cluster: the workers. Without a cluster, or with one worker, nothing is compared.

    Raises:
        UserError: a value differs; the message names the first one that does.
    """
    if cluster is None or cluster.size == 1:
        return
    numbers = np.array([_digest(value) for value in named_values.values()])
    # The maximum of the negated numbers is the negated minimum.
    highest, lowest = np.split(_all_reduce_max([*numbers, *-numbers], cluster.size), 2)
    for name, high, low in zip(named_values, highest, -lowest, strict=True):
        if high != low:
            text = json.dumps(named_values[name])
            shown = text if len(text) <= 60 else f"{text[:57]}…"
            raise UserError(
                f"{name}: not the same on all {cluster.size} workers, here {shown}; start every "
                "worker with the same flags, versions and images"
            )


def _digest(value: Any) -> float:
    """A digest of a JSON value, as an integer that a float64 represents exactly."""
    digest = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).digest()
    return float(int.from_bytes(digest, "big") >> (64 - _EXACT_BITS))


def _all_reduce_max(values: Sequence[float], workers: int) -> np.ndarray:
    """The maximum of each value over the workers; returns when all workers have called it."""
    return make_all_reduce_max(len(values), workers)(tf.constant(values, tf.float64)).numpy()
