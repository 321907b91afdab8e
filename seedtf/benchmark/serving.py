"""Measures throughput and latency of requests to an exported model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Load", "Send", "measure", "measure_all"]

_WARM_UP_CALLS = 3

Send = Callable[[], object]
"""Sends a request and waits for its answer."""


@dataclass(frozen=True)
class Load:
    """The throughput and latency of one batch size and one number of callers.

    Attributes:
        batch_size: images per request.
        callers: number of threads; each sends a request as soon as its previous one is answered.
        requests: number of requests that were answered.
        images_per_second: throughput of all callers together.
        p50_ms: median latency of a request in milliseconds.
        p99_ms: 99th percentile of the latency of a request in milliseconds.
    """

    batch_size: int
    callers: int
    requests: int
    images_per_second: float
    p50_ms: float
    p99_ms: float


def measure_all(
    make_send: Callable[[int], Send],
    batch_sizes: Sequence[int],
    callers: Sequence[int],
    seconds: float,
) -> list[Load]:
    """The result of ``measure`` for every combination of a batch size and a number of callers.

    Args:
        make_send: takes a batch size, and returns a function that sends a request of so many images.
        batch_sizes: the batch sizes.
        callers: the numbers of callers.
        seconds: the duration of each measurement.
    """
    return [
        measure(make_send(batch_size), batch_size, num_callers, seconds)
        for batch_size in batch_sizes
        for num_callers in callers
    ]


def measure(send: Send, batch_size: int, callers: int, seconds: float) -> Load:
    """Sends requests for about ``seconds`` after a warm-up, and measures throughput and latency.

    Args:
        send: sends a request and waits for its answer; several threads call it at the same time.
        batch_size: images in a request.
        callers: number of threads that send requests at the same time.
        seconds: the time after which no caller starts another request. Each caller sends at least one
            request.

    Example:
        >>> load = measure(lambda: time.sleep(0.001), batch_size=8, callers=2, seconds=0.01)
        >>> load.requests >= 2, 1.0 <= load.p50_ms <= load.p99_ms
        (True, True)
    """
    for _ in range(_WARM_UP_CALLS):
        send()
    latencies_of_callers: list[list[float]] = [[] for _ in range(callers)]
    barrier = threading.Barrier(callers + 1)  # so that all threads start at the same time
    stop = threading.Event()

    def send_until_stopped(latencies: list[float]) -> None:
        barrier.wait()
        while not stop.is_set() or not latencies:
            begin = time.perf_counter()
            send()
            latencies.append(time.perf_counter() - begin)

    threads = [
        threading.Thread(target=send_until_stopped, args=(latencies,))
        for latencies in latencies_of_callers
    ]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    latencies = np.concatenate([np.array(times) for times in latencies_of_callers])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    images_per_second = len(latencies) * batch_size / elapsed
    return Load(
        batch_size, callers, len(latencies), float(images_per_second), float(p50), float(p99)
    )
