"""``StopSignal``: SIGTERM and SIGINT as a name that a loop looks at when it suits it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopSignal"]


class StopSignal:
    """Turns SIGTERM and SIGINT into a name; a second SIGINT ends at once.

    Attributes:
        name: of the signal that came; empty while none did.
    """

    def __init__(self, notice: str = "saving after this step") -> None:
        """Nothing was received yet; ``notice`` is what the user then reads will happen."""
        self.name = ""
        self._notice = notice

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Handles both signals inside; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, self._receive)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        print(f"\n{self.name}: {self._notice} …", file=sys.stderr, flush=True)
