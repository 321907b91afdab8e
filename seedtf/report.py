"""The one way to print: a label and a text per line, which Python callers can silence."""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from seedtf.errors import OutputError

__all__ = [
    "format_bytes",
    "format_duration",
    "is_silent",
    "one_line",
    "report",
    "report_error",
    "report_result",
    "report_text",
    "silent",
    "warn",
]

_LABEL_WIDTH = 10
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_silent = False


def report(label: str, text: str) -> None:
    """Prints one line, ``text`` behind a ``label`` of ten columns, to stdout; flushes.

    Control characters, such as a file name can have, are escaped. Nothing is printed inside
    ``silent()``.

    Example:
        >>> report("resume", "continuing after epoch 3")
        resume    continuing after epoch 3
    """
    _print(f"{label:{_LABEL_WIDTH}}{one_line(text)}".rstrip(), sys.stdout)


def one_line(text: str) -> str:
    """``text`` with line ends and other control characters escaped.

    A name with a line end would otherwise look like two messages, and one with an escape sequence
    could change what the terminal shows.

    Example:
        >>> one_line("oak\\nelm/1.jpg")
        'oak\\\\nelm/1.jpg'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def warn(text: str, *, after_progress: bool = False) -> None:
    """Prints a line labelled ``warning`` to stdout.

    Args:
        text: the warning.
        after_progress: whether a progress line may be on the terminal, without a line end; the
            warning is then printed below it.
    """
    if after_progress:
        _print("", sys.stdout)
    report("warning", text)


def report_error(text: str) -> None:
    """Prints a line to stderr: what a user must see even when stdout goes to a file."""
    _print(text, sys.stderr)


def report_text(text: str) -> None:
    """Prints ``text`` without a label to stdout: a help text, a table, a path for a script to read."""
    _print(text, sys.stdout)


def report_result(values: str) -> None:
    """Prints the last line of a command: ``RESULT`` and its values, one JSON object, for programs.

    Example:
        >>> report_result('{"images": 12}')
        RESULT {"images": 12}
    """
    report_text(f"RESULT {values}")


def is_silent() -> bool:
    """Whether output is switched off, for progress bars and live lines that draw by themselves."""
    return _silent


@contextmanager
def silent() -> Iterator[None]:
    """Switches off all console output of seedtf, also progress bars, within the ``with`` block.

    Example:
        >>> with silent():
        ...     report("images", "1,440 in 12 classes")
    """
    global _silent  # noqa: PLW0603  one console per process
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, ``1:02:03``; ``-`` where unknown (NaN).

    Example:
        >>> format_duration(3723.4)
        '1:02:03'
    """
    return "-" if math.isnan(seconds) else str(datetime.timedelta(seconds=round(seconds)))


def format_bytes(count: float) -> str:
    """Megabytes, or gigabytes from 10⁹ bytes on.

    Example:
        >>> format_bytes(14_300_000)
        '14.3 MB'
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _print(line: str, stream: TextIO) -> None:
    if _silent:
        return
    try:
        print(line, file=stream, flush=True)
    except OSError as error:
        # A separate type, so that a caller does not mistake it for an error of one of its files.
        raise OutputError(error) from error
