"""Measures the time to the first step of a run, the cost of its cache, and the growth of its memory.

Each measurement runs in a new process, a program of ``benchmark.children``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedtf.benchmark.children import RESULT_PREFIX
from seedtf.errors import UserError

__all__ = [
    "CacheBuild",
    "Growth",
    "StartTimes",
    "measure_cache_build",
    "measure_growth",
    "measure_start",
]


@dataclass(frozen=True)
class StartTimes:
    """Median seconds from the start of a process to the end of its first training step.

    Attributes:
        seedtf: seconds of ``seedtf train``, which finds the decoded images in its cache.
        plain: seconds of a Keras script that imports, builds, compiles and takes one step.
        ratio: the ratio ``seedtf / plain`` of each round, as the median over the rounds.
    """

    seedtf: float
    plain: float
    ratio: float


@dataclass(frozen=True)
class CacheBuild:
    """The cost of building the cache.

    Attributes:
        mode: where the cache is kept, ``ram`` or ``disk``.
        seconds: median seconds to build the cache.
        pass_seconds: median seconds in which TensorFlow decodes the same files once, in parallel and
            without a cache.
        ratio: the ratio ``seconds / pass_seconds`` of each round, as the median over the rounds.
        peak_bytes: peak memory of the process minus its memory before the build.
        decoded_bytes: size of all decoded images.
    """

    mode: str
    seconds: float
    pass_seconds: float
    ratio: float
    peak_bytes: int
    decoded_bytes: int

    @property
    def memory_ratio(self) -> float:
        """``peak_bytes`` relative to ``decoded_bytes``."""
        return self.peak_bytes / self.decoded_bytes


@dataclass(frozen=True)
class Growth:
    """Resident memory during a training.

    Attributes:
        sizes: the resident memory in bytes at the start of each epoch.
    """

    sizes: tuple[int, ...]

    @property
    def fraction(self) -> float:
        """Relative growth from the second quarter of the epochs to the last quarter; 0.01 means 1 %.

        The medians of the two quarters are compared. The first epoch is left out, because its memory
        was measured before any training. At least four epochs are needed for two different quarters.

        Example:
            >>> round(Growth((100, 900, *[1000] * 7, *[1010] * 3)).fraction, 3)
            0.01
        """
        steady = self.sizes[1:]
        quarter = max(len(steady) // 4, 1)
        first = statistics.median(steady[quarter : 2 * quarter])
        return statistics.median(steady[-quarter:]) / first - 1.0


def measure_start(
    flags: Sequence[str], keras_arguments: Sequence[object], rounds: int
) -> StartTimes:
    """Measures the time to the first step of ``seedtf train`` and of a plain Keras script.

    The two are started alternately. The first start of each is not counted, because it fills the
    caches.

    Args:
        flags: flags of ``seedtf train``, without ``--run_dir``.
        keras_arguments: the arguments of the Keras script: name of the network, image size, batch size
            and number of classes.
        rounds: how many starts of each are counted.
    """
    times = []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            seedtf_seconds = _seconds_until_result(
                "train", "first_step", *flags, f"--run_dir={folder}/run"
            )
        keras_seconds = _seconds_until_result("plain_keras", *map(str, keras_arguments))
        if number:
            times.append((seedtf_seconds, keras_seconds))
    return StartTimes(*_medians(times))


def measure_cache_build(root: str, size: int, mode: str, rounds: int) -> CacheBuild:
    """Measures how long it takes to cache the images below ``root``, and to decode them uncached.

    The two are done alternately. The first round is not one of ``rounds`` and is not counted, because
    it reads the files into the page cache of the operating system.
    """
    times, peaks = [], []
    decoded_bytes = 1
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak, decoded_bytes = _run("cache", "build", root, str(size), mode, folder)
        pass_seconds = _run("cache", "decode", root, str(size))
        if number:
            times.append((seconds, pass_seconds))
            peaks.append(peak)
    return CacheBuild(mode, *_medians(times), int(statistics.median(peaks)), decoded_bytes)


def measure_growth(flags: Sequence[str], epochs: int) -> Growth:
    """Trains for ``epochs`` epochs, and measures the resident memory at the start of each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*flags, f"--epochs={epochs}", f"--run_dir={folder}/run"]
        return Growth(tuple(_run("train", "memory", *flags)))


def _medians(times: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Three medians over the pairs: of the first value, of the second value, and of their ratio."""
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second, statistics.median(a / b for a, b in times)


def _seconds_until_result(child: str, *arguments: str) -> float:
    """Runs a module whose result is a ``time.time()``; returns the seconds from the start to it."""
    start = time.time()
    return _run(child, *arguments) - start


def _run(child: str, *arguments: str) -> Any:
    """Runs a module of ``benchmark.children`` in a new process and returns its result.

    Raises:
        UserError: the process failed; the message has the last line of its stderr.
    """
    completed = subprocess.run(
        [sys.executable, "-m", f"seedtf.benchmark.children.{child}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    results = [line for line in completed.stdout.splitlines() if line.startswith(RESULT_PREFIX)]
    if not results:
        lines = completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"]
        raise UserError(f"a benchmark process failed: {lines[-1]}")
    return json.loads(results[-1].removeprefix(RESULT_PREFIX))
