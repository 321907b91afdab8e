"""Tells who is missing while a worker waits: ``python -m seedtf.training.distributed.waiting NAME…``.

A process of its own, because TensorFlow lets no Python run beside it until all workers are there.
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

__all__ = ["missing", "tell"]

EVERY_SECONDS = 30.0
_ANSWER_SECONDS = 5.0


def missing(names: Sequence[str]) -> list[str]:
    """Those of ``worker 1 (host:port)`` whose port takes no connection."""
    return [name for name in names if not _answers(*_address(name))]


def tell(names: Sequence[str], every: float = EVERY_SECONDS) -> None:
    """Prints a line on stderr every so many seconds, until the process that started this one ends."""
    parent, began = os.getppid(), time.monotonic()
    while True:
        time.sleep(every)
        if os.getppid() != parent:
            return
        absent = ", ".join(missing(names)) or "a worker that waits for a third"
        minutes = (time.monotonic() - began) / 60
        print(f"worker    still waiting, {minutes:.1f} min: {absent}", file=sys.stderr, flush=True)


def _address(name: str) -> tuple[str, int]:
    found = re.search(r"\((.+):(\d+)\)$", name)
    assert found is not None
    return found[1].strip("[]"), int(found[2])


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), _ANSWER_SECONDS):
        return True
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C also comes here; nothing is to be said
    tell(sys.argv[1:])
