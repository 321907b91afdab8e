"""Runs ``seedtf folds`` and the commands that it starts in forks, so that TensorFlow is imported once.

A forked command differs from one in a new interpreter only in the imported modules and the replaced
figures. Like a command in a new interpreter, it leads a process session of its own (``os.setsid``),
writes to its own log, and gets a signal when its parent dies.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any

from figures import replace_figures

from seedtf.commands.main import main as run_command_line
from seedtf.training import process as process_module


class ForkedCommand:
    """Replaces ``subprocess.Popen`` for the command ``python -m seedtf ARGUMENT…``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: IO[bytes],
        preexec_fn: Callable[[], None] | None,
        **_: Any,
    ) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "seedtf"]
        self.returncode: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            if preexec_fn is not None:
                preexec_fn()
            exit_code = 1
            try:
                exit_code = run_command_line(list(command[3:]))
            finally:  # an exception must not reach the callers of the parent, which fork has copied
                sys.stdout.flush()
                os._exit(exit_code)

    def poll(self) -> int | None:
        return self.returncode if self.returncode is not None else self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self.returncode if self.returncode is not None else self._wait(0)

    def send_signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        pid, status = os.waitpid(self._pid, options)
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def main(arguments: list[str]) -> int:
    """Runs ``seedtf ARGUMENT…`` without figures, and returns its exit code."""
    replace_figures()
    process_module.subprocess.Popen = ForkedCommand  # type: ignore[misc]
    return run_command_line(arguments)
