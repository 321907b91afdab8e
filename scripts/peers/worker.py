"""A process that answers requests, for example to measure a library, and is paused between them."""

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
    """The version of Python, and of those ``packages`` that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def worker_loop(batches: Batches, packages: tuple[str, ...]) -> None:
    """Makes batches for as many seconds as each line of stdin says, and prints images per second.

    The first line that it prints, when the library is warmed up, is ``ready`` and the versions as JSON.
    """
    for _ in range(3):
        next(batches)
    print("ready", json.dumps(versions(packages)), flush=True)
    for line in sys.stdin:
        for _ in range(3):  # these may have been prefetched before this line was read
            next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(line):
            next(batches)
            count += BATCH_SIZE
        print(count / (time.perf_counter() - start), flush=True)


def use_cores(cores: str) -> None:
    """Limits this process to ``cores``, separated by commas, before it imports a library.

    Libraries count the cores when they are imported.
    """
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


class Worker:
    """A process that answers each line with a line, in a process group of its own.

    When it is warmed up, it prints a line that begins with ``ready``; ``greeting`` is the rest of it.
    Between the requests the whole group is paused (SIGSTOP), because the library may have processes of
    its own that would otherwise fill their queues while another library is measured.
    """

    def __init__(
        self, name: str, command: Sequence[str], threads: int, variables: Mapping[str, str] = {}
    ) -> None:
        """Starts the process, with more environment ``variables``, and waits until it is warmed up."""
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
        """Lets the process run until it has answered ``line``; returns the answer."""
        assert self._process.stdin is not None
        self._send(signal.SIGCONT)
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        if not (answer := self._read_line()):
            raise SystemExit(f"{self._name} ended; see its message above")
        self._send(signal.SIGSTOP)
        return answer

    def kill(self) -> None:
        """Kills the process and those that it started."""
        self._send(signal.SIGKILL)
        self._process.wait()
