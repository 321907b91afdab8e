"""Finds damaged JPEG files by the warnings that libjpeg prints while TensorFlow decodes them.

libjpeg also decodes damaged data, and prints a warning to the standard error of the process, without
the name of the file. TensorFlow returns the image like any other.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

__all__ = ["DecoderWarnings"]

Result = TypeVar("Result")

# The warnings of libjpeg about missing or wrong pixels. Its other warnings are about unusual markers.
_DAMAGE = re.compile(rb"(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression).*")
_LIBJPEG = re.compile(
    rb"(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Warning: unknown JFIF|"
    rb"Unknown Adobe color|Invalid SOS parameters).*"
)


class DecoderWarnings:
    """Collects what C libraries print to standard error while several threads decode files.

    What Python prints to standard error, such as a progress bar, is shown as usual. If there is no
    temporary folder, or standard error is closed, no warnings are collected.

    Example:
        >>> warnings = DecoderWarnings()
        >>> with warnings.collect():
        ...     warnings.decode(lambda: os.write(2, b"Corrupt JPEG data: bad Huffman code\\n"))
        (36, 'Corrupt JPEG data: bad Huffman code')
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._changed = threading.Condition()
        self._decoding, self._alone = 0, False

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collects lines in the ``with`` block, and then prints those that are not from libjpeg."""
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed below
            real = os.dup(2)
        except OSError:
            self._file = None
            yield
            return
        python, console = sys.stderr, None
        if python is not None and _descriptor(python) == 2:
            python.flush()
            console = open(os.dup(real), "w", encoding=python.encoding, errors=python.errors)  # noqa: SIM115
            sys.stderr = console
        os.dup2(self._file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            if console is not None:
                sys.stderr = python
                console.close()
            lines = self._since(0).splitlines(keepends=True)
            os.write(real, b"".join(line for line in lines if not _LIBJPEG.match(line)))
            os.close(real)
            self._file.close()
            self._file = None

    def decode(self, function: Callable[[], Result]) -> tuple[Result, str]:
        """Calls a decoder; returns its result and its first warning about damage, or an empty text.

        If any thread prints something in the meantime, the decoder is called again while no other
        thread decodes. A warning is then certainly about the file of this decoder.
        """
        with self._turn(alone=False):
            before = self._size()
            result = function()
            if self._size() == before:
                return result, ""
        with self._turn(alone=True):
            before = self._size()
            result = function()
            damage = _DAMAGE.search(self._since(before))
        return result, damage[0].decode("ascii", "replace") if damage else ""

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        """Waits until the ``with`` block may decode, alone or at the same time as other threads."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not (alone and self._decoding))
            self._decoding, self._alone = self._decoding + 1, alone
        try:
            yield
        finally:
            with self._changed:
                self._decoding, self._alone = self._decoding - 1, False
                self._changed.notify_all()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size if self._file else 0

    def _since(self, start: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), self._size() - start, start)


def _descriptor(stream: Any) -> int:
    """The file descriptor of a stream; -1 for a stream without one, as in a notebook."""
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return -1
