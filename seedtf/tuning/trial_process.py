"""One trial's ``seedtf train`` in a process of its own: started, looked after and ended.

Nothing here imports TensorFlow: what the process learns is read from its history.csv.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedtf.runs.history import read_history

__all__ = [
    "TRAIN",
    "Epoch",
    "TrialProcess",
    "best_of",
    "last_error_line",
    "read_epochs",
]

TRAIN = (sys.executable, "-m", "seedtf", "train")
"""The command that trains."""

# saving the state of a large network takes a while on a slow disk
_GRACE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # prctl(2), Linux


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv: epoch from 1, validation loss (may be NaN) and accuracy in [0, 1]."""

    epoch: int
    val_loss: float
    val_accuracy: float


def read_epochs(path: Path) -> list[Epoch]:
    """The finished epochs of a history.csv; empty before the file exists."""
    try:
        rows = read_history(path)
    except FileNotFoundError:
        return []
    return [Epoch(int(row["epoch"]), row["val_loss"], row["val_accuracy"]) for row in rows]


def best_of(epochs: Sequence[Epoch]) -> Epoch | None:
    """The one with the lowest finite validation loss, the first of equals; None where there is none."""
    known = [each for each in epochs if math.isfinite(each.val_loss)]
    return min(known, key=lambda each: each.val_loss) if known else None


def last_error_line(log: Path) -> str:
    """The last line that ``seedtf train`` wrote of its own about its end, else the last at all."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    own = [line for line in lines if line.startswith("seedtf train: ")]
    return (own or lines or [""])[-1].removeprefix("seedtf train: ")


class TrialProcess:
    """A process whose output goes to the end of a file; left, it has saved and is gone.

    It is in a session of its own, so that Ctrl-C in the terminal reaches it only through ``end``. On
    Linux it is told to save and stop when this process dies, however that comes.

    Args:
        command: what to run.
        log: gets everything it prints.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  no other thread is running
            )

    def __enter__(self) -> TrialProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is None:
            # who interrupts a second time does not want to wait
            self.end(grace=0.0 if kind is KeyboardInterrupt else _GRACE_SECONDS)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def end(self, grace: float = _GRACE_SECONDS) -> int:
        """Asks it to save and stop, and kills it after ``grace`` seconds; its exit code."""
        deadline = time.monotonic() + grace
        self._process.send_signal(signal.SIGTERM)
        try:
            # waited for in small steps, so that a second Ctrl-C is heard
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        return self._process.returncode


def _die_with_parent() -> Callable[[], None] | None:
    """What the new process does first: asks the kernel for SIGTERM at the death of this one."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return bind
