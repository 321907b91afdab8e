"""Measures, in child processes, what a run costs before its first step, in memory and for its cache."""

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

from seedtf.benchmark.children import MARK
from seedtf.errors import UserError

__all__ = [
    "Build",
    "Growth",
    "Start",
    "measure_build",
    "measure_growth",
    "measure_start",
]


@dataclass(frozen=True)
class Start:
    """Median seconds from the start of a process to the end of its first training step.

    Attributes:
        seedtf: of ``seedtf train`` with a warm cache.
        plain: of a script that imports TensorFlow, builds, compiles and takes one step.
        ratio: median over the rounds of seedtf / plain.
    """

    seedtf: float
    plain: float
    ratio: float


@dataclass(frozen=True)
class Build:
    """The cost of building the cache.

    Attributes:
        mode: ``ram`` or ``disk``.
        seconds: median time to build it.
        pass_seconds: median time of one parallel pass of TensorFlow's decoder that keeps nothing.
        ratio: median over the rounds of seconds / pass_seconds.
        peak_bytes: peak memory above what the process had before.
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
        sizes: bytes at the start of every epoch.
    """

    sizes: tuple[int, ...]

    @property
    def fraction(self) -> float:
        """Relative growth from the second quarter of the epochs to the last; 0.01 means 1 %.

        Medians are compared; the first epoch is left out, because nothing was trained before it.

        Example:
            >>> round(Growth((100, 900, *[1000] * 7, *[1010] * 3)).fraction, 3)
            0.01
        """
        steady = self.sizes[1:]
        quarter = max(len(steady) // 4, 1)
        first = statistics.median(steady[quarter : 2 * quarter] or steady)
        return statistics.median(steady[-quarter:]) / first - 1.0


def measure_start(flags: Sequence[str], plain: Sequence[object], rounds: int) -> Start:
    """Starts ``seedtf train`` and a plain Keras script alternately, ``rounds`` times each.

    One more round, which comes first and is not counted, warms the caches.

    Args:
        flags: flags of ``seedtf train``, without ``--run_dir``.
        plain: name of the network in Keras, image size, batch size and number of classes.
        rounds: how often each is started.
    """
    times = []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            seedtf = _seconds_until_result("train", "first_step", *flags, f"--run_dir={folder}/run")
        keras = _seconds_until_result("plain_keras", *(str(value) for value in plain))
        if number:
            times.append((seedtf, keras))
    return Start(*_medians(times))


def measure_build(root: str, size: int, mode: str, rounds: int) -> Build:
    """Alternately builds a cache of the images below ``root`` and decodes them without one.

    One more round, which comes first and is not counted, reads the files into the page cache.
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
    return Build(mode, *_medians(times), int(statistics.median(peaks)), decoded_bytes)


def measure_growth(flags: Sequence[str], epochs: int) -> Growth:
    """Trains ``epochs`` epochs and records the resident memory at the start of each."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*flags, f"--epochs={epochs}", f"--run_dir={folder}/run"]
        return Growth(tuple(_run("train", "memory", *flags)))


def _medians(times: list[tuple[float, float]]) -> tuple[float, float, float]:
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second, statistics.median(a / b for a, b in times)


def _seconds_until_result(child: str, *arguments: str) -> float:
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
    results = [line for line in completed.stdout.splitlines() if line.startswith(MARK)]
    if not results:
        lines = completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"]
        raise UserError(f"a benchmark process failed: {lines[-1]}")
    return json.loads(results[-1].removeprefix(MARK))
