"""Measures throughput and latency of an exported model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

__all__ = ["Load", "measure", "measure_all"]

_WARM_UP_CALLS = 3

Predict = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@dataclass(frozen=True)
class Load:
    """A batch size and a number of callers, and what was measured with them.

    Attributes:
        batch_size: images per request.
        callers: number of threads; each sends a request as soon as its previous one is answered.
        requests: number of requests that were answered.
        images_per_second: throughput of all callers together.
        p50_ms, p99_ms: median and 99th percentile of the latency of a request in milliseconds.
    """

    batch_size: int
    callers: int
    requests: int
    images_per_second: float
    p50_ms: float
    p99_ms: float


def measure_all(
    predict: Predict,
    encoded: bytes,
    batch_sizes: Sequence[int],
    callers: Sequence[int],
    seconds: float,
) -> list[Load]:
    """Calls ``measure`` for every combination of batch size and number of callers."""
    return [measure(predict, encoded, b, c, seconds) for b in batch_sizes for c in callers]


def measure(
    predict: Predict, encoded: bytes, batch_size: int, callers: int, seconds: float
) -> Load:
    """Sends requests of ``batch_size`` copies of a file for about ``seconds``, after a warm-up.

    Args:
        predict: a ``ServingSignature``, or a function like it.
        encoded: content of an image file.
        batch_size: images per request.
        callers: number of threads that send requests at the same time.
        seconds: after this time no request starts; each caller sends at least one.
    """
    request = tf.constant([encoded] * batch_size)
    for _ in range(_WARM_UP_CALLS):
        predict(request)["probabilities"].numpy()
    latencies_of: list[list[float]] = [[] for _ in range(callers)]
    barrier = threading.Barrier(callers + 1)  # so that all threads start at the same time
    stop = threading.Event()

    def call(latencies: list[float]) -> None:
        barrier.wait()
        while not stop.is_set() or not latencies:
            begin = time.perf_counter()
            predict(request)["probabilities"].numpy()
            latencies.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=call, args=(latencies,)) for latencies in latencies_of]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    latencies = np.concatenate([np.array(times) for times in latencies_of])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    rate = len(latencies) * batch_size / elapsed
    return Load(batch_size, callers, len(latencies), float(rate), float(p50), float(p99))
