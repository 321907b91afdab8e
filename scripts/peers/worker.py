"""Processes that measure a library on request, and are paused between the requests."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from peers.work import BATCH_SIZE, Batches

# The settings that limit libraries to AVX2. TensorFlow and JAX read XLA_FLAGS.
WITHOUT_AVX512 = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of Python and of the ``packages``, without those that are not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def worker_loop(batches: Batches, packages: tuple[str, ...]) -> None:
    """Measures once for each line of stdin, a number of seconds, and prints the images per second.

    Before that it warms up, and prints a line with ``ready`` and the versions as JSON.
    """
    for _ in range(3):
        next(batches)
    print("ready", json.dumps(versions(packages)), flush=True)
    for line in sys.stdin:
        for _ in range(3):  # the first batches may have been prefetched before the line was read
            next(batches)
        num_images, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(line):
            next(batches)
            num_images += BATCH_SIZE
        print(num_images / (time.perf_counter() - start), flush=True)


def use_cores(cores: str) -> None:
    """Limits this process to ``cores``, whose numbers are separated by commas.

    It must be called before a library is imported, because libraries count the cores at import.
    """
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


class Worker:
    """A process that answers each line on its stdin with one line on its stdout.

    When it is warmed up, it prints a line that begins with ``ready``. The rest of this line is kept as
    ``greeting``. Between the requests its process group is paused (SIGSTOP), because the library may
    have child processes that would otherwise fill their queues while another library is measured.
    """

    def __init__(
        self, name: str, command: Sequence[str], threads: int, variables: Mapping[str, str] = {}
    ) -> None:
        """Starts the process and waits until it is warmed up.

        ``variables`` are added to the environment. Raises SystemExit if the process does not start.
        """
        self._name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **variables},
            start_new_session=True,
        )
        line = ""
        try:
            line = self._read_line()
        finally:
            if not line.startswith("ready"):
                self.kill()
        if not line.startswith("ready"):
            raise SystemExit(f"{name} did not start; see its message above")
        self.greeting = line.removeprefix("ready").strip()
        self._send(signal.SIGSTOP)

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def ask(self, line: str) -> str:
        """Returns the answer of the process to ``line``. Raises SystemExit if the process ended."""
        assert self._process.stdin is not None
        self._send(signal.SIGCONT)
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        if not (answer := self._read_line()):
            raise SystemExit(f"{self._name} ended; see its message above")
        self._send(signal.SIGSTOP)
        return answer

    def kill(self) -> None:
        """Kills the process and its child processes."""
        self._send(signal.SIGKILL)
        self._process.wait()
