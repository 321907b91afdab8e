"""One trial of a search: its ``seedtf train`` process, its history, and its row in the table.

Nothing here imports TensorFlow: the history.csv that the process writes has all that is needed.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtf.runs.history import best_epoch, read_history
from seedtf.runs.paths import RunPaths

__all__ = [
    "DIVERGED",
    "DONE",
    "FAILED",
    "OUTCOMES",
    "PRUNED",
    "TRAIN",
    "History",
    "TrialProcess",
    "TrialRow",
    "best_row",
    "finished_epochs",
    "last_error_line",
    "lowest_loss",
]

TRAIN = (sys.executable, "-m", "seedtf", "train")
"""The command that trains."""

DONE, PRUNED, DIVERGED, FAILED = "done", "pruned", "diverged", "failed"
OUTCOMES = (DONE, PRUNED, DIVERGED, FAILED)
"""How a trial can end."""

History = Sequence[Mapping[str, float]]
"""The rows of a history.csv, see ``runs.history.read_history``."""

# Saving the state of a large network takes a while on a slow disk.
_GRACE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # prctl(2), Linux


@dataclass(frozen=True)
class TrialRow:
    """A trial that has ended.

    Attributes:
        number: its number in the study, from 0.
        outcome: one of ``OUTCOMES``.
        val_loss, val_accuracy: those of its best epoch, or of its last epoch if it was pruned; NaN if
            there is none.
        epochs: the number of epochs trained.
        seconds: how long its processes ran.
        values: the searched flags as the run got them.
    """

    number: int
    outcome: str
    val_loss: float
    val_accuracy: float
    epochs: int
    seconds: float
    values: Mapping[str, Any]


def best_row(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Returns the trial with the lowest validation loss of those with the outcome ``done``, if any."""
    done = [row for row in rows if row.outcome == DONE]
    return min(done, key=lambda row: (row.val_loss, row.number)) if done else None


def finished_epochs(run_dir: Path) -> list[dict[str, float]]:
    """Returns the rows of a run's history.csv, one for each finished epoch; empty before it exists."""
    try:
        return read_history(RunPaths(run_dir).history)
    except FileNotFoundError:
        return []


def lowest_loss(history: History) -> Mapping[str, float] | None:
    """Returns the row of the lowest finite validation loss, the first of equals; None if no loss
    is finite.

    Example:
        >>> lowest_loss([{"epoch": 1, "val_loss": 0.9}, {"epoch": 2, "val_loss": 0.4}])
        {'epoch': 2, 'val_loss': 0.4}
    """
    finite = [row for row in history if math.isfinite(row["val_loss"])]
    best = best_epoch(finite)
    return next((row for row in finite if row["epoch"] == best), None)


def last_error_line(log: Path) -> str:
    """Returns the last error line of ``seedtf train`` in a log, or else the last line of any kind."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("seedtf train: ")]
    return (errors or lines or [""])[-1].removeprefix("seedtf train: ")


class TrialProcess:
    """A process whose output is appended to a file; at the end of the ``with`` body it is stopped.

    The process runs in its own session, so Ctrl-C in the terminal reaches it only through ``end``. On
    Linux the kernel sends it SIGTERM when this process dies, however it dies; it then saves and stops.

    Args:
        command: the command to run.
        log: the file that gets everything that the process prints.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  No other thread is running.
            )

    def __enter__(self) -> TrialProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is None:
            # Only a second Ctrl-C raises KeyboardInterrupt, and that user does not want to wait.
            self.end(grace=0.0 if kind is KeyboardInterrupt else _GRACE_SECONDS)

    def poll(self) -> int | None:
        """Returns its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def end(self, grace: float = _GRACE_SECONDS) -> int:
        """Sends SIGTERM, kills the process after ``grace`` seconds, and returns its exit code."""
        deadline = time.monotonic() + grace
        self._process.send_signal(signal.SIGTERM)
        try:
            # Wait in short steps, so that a second Ctrl-C is handled at once.
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        return self._process.returncode


def _die_with_parent() -> Callable[[], None] | None:
    """A function for the new process, which requests SIGTERM at the death of this one; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # The parent died before the request.
            os._exit(1)

    return request_signal
