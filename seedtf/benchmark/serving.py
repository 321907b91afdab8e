"""How many images an export answers a second, and how long a caller waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

__all__ = ["Load", "measure", "measure_all"]

_WARM_UP_CALLS = 3

Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@dataclass(frozen=True)
class Load:
    """One load and what was measured under it.

    Attributes:
        batch_size: images in a request.
        callers: threads that each send the next request when the last is answered.
        requests: requests answered in the time.
        images_per_second: images answered a second, all callers together.
        p50_ms, p99_ms: median and 99th percentile of a request's time in milliseconds.
    """

    batch_size: int
    callers: int
    requests: int
    images_per_second: float
    p50_ms: float
    p99_ms: float


def measure_all(
    answer: Answer,
    encoded: bytes,
    batch_sizes: Sequence[int],
    callers: Sequence[int],
    seconds: float,
) -> list[Load]:
    """``measure`` for every batch size and number of callers, in this order."""
    return [measure(answer, encoded, b, c, seconds) for b in batch_sizes for c in callers]


def measure(answer: Answer, encoded: bytes, batch_size: int, callers: int, seconds: float) -> Load:
    """Sends requests of ``batch_size`` copies of a file for about ``seconds``, after a warm-up."""
    request = tf.constant([encoded] * batch_size)
    for _ in range(_WARM_UP_CALLS):
        answer(request)["probabilities"].numpy()
    taken: list[list[float]] = [[] for _ in range(callers)]
    start_line = threading.Barrier(callers + 1)
    stop = threading.Event()

    def call(latencies: list[float]) -> None:
        start_line.wait()
        while not stop.is_set() or not latencies:
            begin = time.perf_counter()
            answer(request)["probabilities"].numpy()
            latencies.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=call, args=(latencies,)) for latencies in taken]
    for thread in threads:
        thread.start()
    start_line.wait()
    begin = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    latencies = np.concatenate([np.array(each) for each in taken])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    rate = len(latencies) * batch_size / elapsed
    return Load(batch_size, callers, len(latencies), float(rate), float(p50), float(p99))
