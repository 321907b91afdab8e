"""A ``seedtf train`` process that another command starts, watches and stops.

Nothing here imports TensorFlow. The progress of the process is read from its history.csv.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from seedtf.config.train_config import TrainConfig
from seedtf.files import write_text
from seedtf.runs.folder import is_run_locked
from seedtf.runs.history import read_history
from seedtf.runs.paths import RunPaths

__all__ = [
    "POLL_SECONDS",
    "TRAIN_COMMAND",
    "TrainProcess",
    "finished_epochs",
    "flags_to_train",
    "last_error_line",
]

TRAIN_COMMAND = (sys.executable, "-m", "seedtf", "train")
"""``seedtf train`` without its flags."""

POLL_SECONDS = 0.2
"""The time between two checks of a process."""

# After SIGTERM, a process has this much time before it is killed, because saving a large state to a
# slow disk takes a while.
_GRACE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # the option of Linux's prctl(2) that requests a signal at the parent's death


def flags_to_train(
    config: TrainConfig, run_dir: Path, flagfile: Path, while_locked: Callable[[], None]
) -> list[str]:
    """Returns the flags of ``seedtf train`` that start a run, or resume it if it was interrupted.

    While another process trains the run, this function waits. For example, a process that was told to
    stop may still be saving its state.

    Args:
        config: the flags of a new run.
        run_dir: the folder of the run. If it contains no config.json, training has not begun, so the
            folder is removed and the run starts again.
        flagfile: the file to which the flags of a new run are written.
        while_locked: called every ``POLL_SECONDS`` while another process trains the run.
    """
    while is_run_locked(run_dir):
        while_locked()
        time.sleep(POLL_SECONDS)
    if RunPaths(run_dir).config.exists():
        return [f"--resume={run_dir}"]
    shutil.rmtree(run_dir, ignore_errors=True)
    write_text(flagfile, f"{config.to_flagfile()}--run_dir={run_dir}\n")
    return [f"--flagfile={flagfile}"]


def finished_epochs(run_dir: Path) -> list[dict[str, float]]:
    """Returns the rows of a run's history.csv, one for each finished epoch; ``[]`` without the file."""
    try:
        return read_history(RunPaths(run_dir).history)
    except FileNotFoundError:
        return []


def last_error_line(log: Path) -> str:
    """Returns seedtf's last error message in the file ``log``, without the name of the command.

    If there is no such message, the last line that is not blank is returned; if there is no such line
    or no file, an empty string.
    """
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if re.match(r"seedtf \w+: ", line)]
    return re.sub(r"^seedtf \w+: ", "", (errors or lines or [""])[-1])


class TrainProcess:
    """A process that appends its output to a file, and is stopped at the end of the ``with`` block.

    The process runs in an operating-system session of its own, so Ctrl-C in the terminal does not reach
    it; ``end`` stops it. On Linux, if its parent process dies for any reason, the kernel sends SIGTERM
    to the process. A training then saves its state and stops.

    Args:
        command: the command to run.
        log: the file to which everything that the process prints is appended.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A preexec_fn can deadlock if threads are running, such as those of trackers. This one
                # cannot, because it only calls the kernel.
                preexec_fn=_make_signal_request(),  # noqa: PLW1509
            )

    def __enter__(self) -> TrainProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is None:
            # `StopSignal` only records the first Ctrl-C. The second one raises KeyboardInterrupt, after
            # which the user does not want to wait.
            self.end(grace=0.0 if kind is KeyboardInterrupt else _GRACE_SECONDS)

    def poll(self) -> int | None:
        """Returns the exit code of the process, negative for a signal; None while it runs."""
        return self._process.poll()

    def end(self, grace: float = _GRACE_SECONDS) -> int:
        """Sends SIGTERM, and SIGKILL if the process still runs ``grace`` seconds later.

        Returns:
            The exit code of the process, negative for a signal.
        """
        deadline = time.monotonic() + grace
        self._process.send_signal(signal.SIGTERM)
        try:
            # Wait in short steps, so that a second Ctrl-C takes effect at once.
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        return self._process.returncode


def _make_signal_request() -> Callable[[], None] | None:
    """Returns a function that asks the kernel to send SIGTERM when the parent of its process dies.

    The new process calls this function before it runs its command. None on systems other than Linux,
    which have no such request.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # the parent process died before the request
            os._exit(1)

    return request_signal
