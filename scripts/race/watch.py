"""Runs a training in a child process and records the end of each epoch, CPU time and memory."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

POLL_SECONDS, MEMORY_POLL_SECONDS = 0.2, 2.0
"""Seconds between two reads of the accuracies, and between two measurements of the memory."""


@dataclass
class Record:
    """What was recorded of a training; times are seconds since the start of its process.

    Attributes:
        history: for each epoch a row with epoch (from 1), seconds, cpu_seconds, accuracy.
        first_step: when the first training step ended; None if that was not recorded.
        peak_bytes: the largest measured memory (proportional set size, PSS) of the process and all of
            its children together.
        seconds: when the process ended.
        cpu_seconds: CPU time of the process and its children.
        exit_code: 0 if it succeeded; negative if a signal ended it.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    first_step: float | None = None
    peak_bytes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    exit_code: int | None = None


def read_accuracies(path: Path, column: str, scale: float) -> list[float]:
    """The values of a CSV column times ``scale``, one for each epoch that the tool has written so far.

    A last line without a line end is left out, because the tool is still writing it. The header may
    occur more than once, because some tools write it again when a second ``fit`` appends to the file.
    """
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rows = csv.reader(lines)
    index = next((row.index(column) for row in rows if column in row), None)
    if index is None:
        return []
    return [float(row[index]) * scale for row in rows if row and row[index] != column]


def watch(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    get_accuracies: Callable[[], list[float]],
    get_first_step: Callable[[], float | None],
    limit_seconds: float,
) -> Record:
    """Runs ``command`` to its end, or kills it after ``limit_seconds``; returns what was recorded.

    Args:
        command: program and arguments.
        environment: its environment variables.
        log: file for its output.
        get_accuracies: returns the accuracies of the epochs that have ended.
        get_first_step: returns the ``time.time()`` of the end of the first step, or None before it.
        limit_seconds: after this time the process and its children are killed.
    """
    record, cpu_before = Record(), _reaped_cpu_seconds()
    start, next_memory = time.time(), 0.0
    with log.open("wb") as output:
        process = psutil.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        is_running = True
        while is_running and record.seconds < limit_seconds:
            is_running = process.poll() is None  # after its end, the files are read once more
            record.seconds = time.time() - start
            if record.first_step is None and (step_end := get_first_step()) is not None:
                record.first_step = step_end - start
            for accuracy in get_accuracies()[len(record.history) :]:
                row = {"epoch": len(record.history) + 1, "seconds": record.seconds}
                cpu = _cpu_seconds(process) if is_running else _reaped_cpu_seconds() - cpu_before
                record.history.append({**row, "cpu_seconds": cpu, "accuracy": accuracy})
            if record.seconds >= next_memory:
                record.peak_bytes = max(record.peak_bytes, _memory(process))
                next_memory = record.seconds + MEMORY_POLL_SECONDS
            time.sleep(POLL_SECONDS if is_running else 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        record.exit_code = process.wait()
    record.seconds = time.time() - start
    record.cpu_seconds = _reaped_cpu_seconds() - cpu_before
    return record


def _with_children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def _cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process and its children, including children that have ended."""
    total = 0.0
    for member in _with_children(process):
        with suppress(psutil.NoSuchProcess):
            total += sum(member.cpu_times()[:4])
    return total


def _reaped_cpu_seconds() -> float:
    """User and system time of all children of this process that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _memory(process: psutil.Process) -> int:
    """Bytes of memory of a process and its children; shared pages count once."""
    total = 0
    for member in _with_children(process):
        with suppress(psutil.NoSuchProcess):
            total += member.memory_full_info().pss
    return total
