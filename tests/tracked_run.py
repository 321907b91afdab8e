"""``seedtf`` in a process that kills itself when its trackers have an epoch that its state lacks.

``KILL_AFTER`` in the environment is this epoch, counted from 1; without it, the process ends as usual.
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

    def log_and_die(track: Track, epoch: int, logs: Any = None) -> None:
        log_epoch(track, epoch, logs)
        if epoch + 1 == fatal_epoch:
            track._group._wait(60)
            os.kill(os.getpid(), signal.SIGKILL)

    replace_figures()
    Track.on_epoch_end = log_and_die  # type: ignore[method-assign]
    return run_command_line(arguments)
