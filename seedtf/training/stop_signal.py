"""``StopSignal``: records SIGTERM and SIGINT, so that a loop can stop between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from seedtf.report import report_error

__all__ = ["StopSignal"]


class StopSignal:
    """Records SIGTERM and SIGINT. A SIGINT after the first signal raises KeyboardInterrupt at once.

    Attributes:
        signal_name: name of the last signal that was received; empty if no signal was received.
    """

    def __init__(self, notice: str = "saving after this step") -> None:
        """Starts without a signal; ``notice`` is printed when a signal is received."""
        self.signal_name = ""
        self._notice = notice

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Records the signals inside the ``with`` block; outside the main thread, does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous_handlers = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, self._receive)
        try:
            yield self
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        report_error(f"\n{self.signal_name}: {self._notice} …")
