"""Reports which workers are missing: ``python -m seedtf.training.distributed.waiting NAME…``.

This runs in a separate process, because TensorFlow lets no Python code run while it waits for workers.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence

from seedtf.report import report_error

__all__ = ["missing_workers", "report_missing_workers"]

_INTERVAL_SECONDS = 30.0
_CONNECT_SECONDS = 5.0


def missing_workers(names: Sequence[str]) -> list[str]:
    """Returns the names of the workers that accept no connection, such as ``worker 1 (host:port)``."""
    return [name for name in names if not _accepts_connections(*_address(name))]


def report_missing_workers(names: Sequence[str], interval: float = _INTERVAL_SECONDS) -> None:
    """Prints the missing workers to stderr every ``interval`` seconds until the parent process ends."""
    parent, started = os.getppid(), time.monotonic()
    while True:
        time.sleep(interval)
        if os.getppid() != parent:
            return
        # If this machine reaches all workers, some worker cannot reach another one.
        missing = ", ".join(missing_workers(names)) or "a worker that cannot reach another one"
        minutes = (time.monotonic() - started) / 60
        report_error(f"worker    still waiting after {minutes:.1f} min for {missing}")


def _address(name: str) -> tuple[str, int]:
    match = re.search(r"\((.+):(\d+)\)$", name)
    assert match is not None
    return match[1].strip("[]"), int(match[2])


def _accepts_connections(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), _CONNECT_SECONDS):
        return True
    return False


if __name__ == "__main__":
    # A terminal sends SIGINT to this process too. The default action ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    report_missing_workers(sys.argv[1:])
