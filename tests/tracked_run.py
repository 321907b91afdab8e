"""Runs ``seedtf`` in a process that kills itself after its trackers have logged a certain epoch.

The state of the run does not have this epoch yet. The environment variable ``KILL_AFTER`` is the number
of the epoch, from 1. If the variable is not set, the process ends as usual.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from figures import replace_figures


def main(arguments: list[str]) -> int:
    from seedtf.commands.main import main as run_command_line
    from seedtf.training.callbacks import Track

    fatal_epoch, log_epoch = int(os.environ.get("KILL_AFTER", "0")), Track.on_epoch_end

    def log_and_kill(track: Track, epoch: int, logs: Any = None) -> None:
        log_epoch(track, epoch, logs)
        if epoch + 1 == fatal_epoch:
            track._group._wait(60)
            os.kill(os.getpid(), signal.SIGKILL)

    replace_figures()
    Track.on_epoch_end = log_and_kill  # type: ignore[method-assign]
    return run_command_line(arguments)
