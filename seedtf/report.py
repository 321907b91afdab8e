"""Prints the console output of seedtf: lines that begin with a label, errors, tables and results.

Other modules print the progress bars and the lines of epochs and trials. ``silent`` switches off the
output of all modules.
"""

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
    "format_count",
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
    """Prints ``label``, padded to ten columns, and ``text`` as one line of stdout, and flushes it.

    Control characters, which a file name may contain, are escaped.

    Example:
        >>> report("resume", "continuing after epoch 3")
        resume    continuing after epoch 3
    """
    _print(f"{label:{_LABEL_WIDTH}}{one_line(text)}".rstrip(), sys.stdout)


def one_line(text: str) -> str:
    """``text`` with line ends and other control characters escaped.

    Without this, a file name with a line end would look like two messages, and a file name with an
    escape sequence could change what the terminal shows.

    Example:
        >>> one_line("oak\\nelm/1.jpg")
        'oak\\\\nelm/1.jpg'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def warn(text: str, *, after_progress: bool = False) -> None:
    """Prints a line labelled ``warning`` to stdout.

    Args:
        text: the warning.
        after_progress: whether the terminal may show a progress line without a line end. If so, the
            warning is printed below that line.
    """
    if after_progress:
        _print("", sys.stdout)
    report("warning", text)


def report_error(text: str) -> None:
    """Prints a line to stderr, so that the user sees the line even if stdout goes to a file."""
    _print(text, sys.stderr)


def report_text(text: str) -> None:
    """Prints ``text`` to stdout without a label and unescaped: a help text, a table, a path."""
    _print(text, sys.stdout)


def report_result(json_text: str) -> None:
    """Prints the last line of a command, which programs read: ``RESULT`` and a JSON object.

    Example:
        >>> report_result('{"images": 12}')
        RESULT {"images": 12}
    """
    report_text(f"RESULT {json_text}")


def is_silent() -> bool:
    """Whether ``silent`` has switched the output off; code that draws a progress bar has to check."""
    return _silent


@contextmanager
def silent() -> Iterator[None]:
    """Switches off all console output of seedtf, also progress bars, within the ``with`` block.

    Example:
        >>> with silent():
        ...     report("images", "1,440 in 12 classes")
    """
    global _silent  # noqa: PLW0603  one console per process
    previous, _silent = _silent, True
    try:
        yield
    finally:
        _silent = previous


def format_duration(seconds: float) -> str:
    """``seconds`` as ``1:02:03``, from 24 hours on as ``1 day, 1:02:03``; ``-`` for NaN.

    Example:
        >>> format_duration(3723.4)
        '1:02:03'
    """
    return "-" if math.isnan(seconds) else str(datetime.timedelta(seconds=round(seconds)))


def format_bytes(count: float) -> str:
    """A number of bytes in megabytes (10⁶ bytes), or in gigabytes (10⁹ bytes) from 1 GB on.

    Example:
        >>> format_bytes(14_300_000)
        '14.3 MB'
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def format_count(number: int, noun: str) -> str:
    """``number``, with commas between thousands, and ``noun``, with an s unless the number is 1.

    Example:
        >>> format_count(1, "image"), format_count(4027, "image")
        ('1 image', '4,027 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _print(line: str, stream: TextIO) -> None:
    if _silent:
        return
    try:
        print(line, file=stream, flush=True)
    except OSError as error:
        # A caller may take any OSError for a fault of the file that it reads or writes. OutputError is
        # not an OSError, so the caller does not blame the file.
        raise OutputError(error) from error
