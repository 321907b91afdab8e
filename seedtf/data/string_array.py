"""Stores millions of strings compactly: in one buffer, with the position of each string in it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

__all__ = ["NameFinder", "StringArray"]

# With surrogateescape, a file name that is not valid UTF-8 can be stored and is returned unchanged.
_ENCODING, _ERRORS = "utf-8", "surrogateescape"
# Positions are converted to Python integers in chunks of this length, because a list of integers takes
# several times as much memory as an array.
_CHUNK = 1 << 16


class StringArray(Sequence[str]):
    """An immutable list of strings in compact form.

    A string takes 8 bytes of memory in addition to its UTF-8 bytes; in a Python list, it would take
    about 100. Each access creates a string object.

    Attributes:
        prefix: the common start of all strings, which is stored once.
        data: the strings without ``prefix``, concatenated, in UTF-8.
        ends: int64 ``[N + 1]``, the end of each string in ``data``, after a first 0. String i is
            ``prefix`` followed by ``data[ends[i]:ends[i + 1]]``.

    Example:
        >>> names = StringArray(["maize/1.jpg", "wheat/2.jpg"])
        >>> names.with_prefix("/data/")[1]
        '/data/wheat/2.jpg'
    """

    __slots__ = ("data", "ends", "prefix")

    def __init__(self, names: Iterable[str] = (), prefix: str = "") -> None:
        """Copies ``names``; if they come from an iterator, only one of them is in memory at a time."""
        data, ends = bytearray(), _GrowingArray()
        ends.append(0)
        for name in names:
            data += name.encode(_ENCODING, _ERRORS)
            ends.append(len(data))
        self.data, self.ends, self.prefix = bytes(data), ends.array(), prefix

    @classmethod
    def _of(cls, data: bytes, ends: np.ndarray, prefix: str) -> StringArray:
        array = cls.__new__(cls)
        array.data, array.ends, array.prefix = data, ends, prefix
        return array

    def with_prefix(self, prefix: str) -> StringArray:
        """The same strings with another ``prefix``; nothing is copied."""
        return self._of(self.data, self.ends, prefix)

    def take(self, indices: np.ndarray) -> StringArray:
        """The strings at ``indices``, in that order."""
        if len(indices) == len(self) and np.array_equal(indices, np.arange(len(self))):
            return self
        starts, ends = self.ends[:-1][indices], self.ends[1:][indices]
        data = bytearray()
        for start, end in _pairs(starts, ends):
            data += self.data[start:end]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends - starts)])
        return self._of(bytes(data), offsets, self.prefix)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> StringArray: ...

    def __getitem__(self, index: int | slice) -> str | StringArray:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        index = range(len(self))[operator.index(index)]
        return self._text(self.data[self.ends[index] : self.ends[index + 1]])

    def __iter__(self) -> Iterator[str]:
        for start, end in _pairs(self.ends[:-1], self.ends[1:]):
            yield self._text(self.data[start:end])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (StringArray, tuple, list)):
            return len(self) == len(other) and all(map(operator.eq, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", …" if len(self) > 3 else "")
        return f"StringArray({len(self)}: {shown})"

    def _text(self, data: bytes) -> str:
        return self.prefix + data.decode(_ENCODING, _ERRORS)


class NameFinder:
    """Finds the index of a name in a list, with 16 bytes of memory per name; a dict takes 200."""

    def __init__(self, names: Sequence[str]) -> None:
        """Reads every name once."""
        hashes = np.fromiter(map(hash, names), np.int64, len(names))
        self._names, self._order = names, np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, name: str) -> int:
        """The index of the first occurrence of ``name``, or -1."""
        key = hash(name)
        position = int(np.searchsorted(self._hashes, key))
        while position < len(self._hashes) and self._hashes[position] == key:
            index = int(self._order[position])
            if self._names[index] == name:
                return index
            position += 1
        return -1

    def find_repeated(self) -> int:
        """The index of a name that is equal to an earlier name, or -1 if all names are different."""
        same_hash = np.flatnonzero(self._hashes[1:] == self._hashes[:-1]) + 1
        indices = self._order[same_hash].tolist()
        return next((index for index in indices if self.find(self._names[index]) != index), -1)


class _GrowingArray:
    """An int64 array that grows at its end."""

    def __init__(self) -> None:
        self._values, self._count = np.empty(1024, np.int64), 0

    def append(self, value: int) -> None:
        if self._count == len(self._values):
            self._values = np.resize(self._values, self._count + self._count // 2)
        self._values[self._count] = value
        self._count += 1

    def array(self) -> np.ndarray:
        return self._values[: self._count].copy()


def _pairs(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields the pairs ``(starts[i], ends[i])`` as Python integers."""
    for first in range(0, len(starts), _CHUNK):
        part = slice(first, first + _CHUNK)
        yield from zip(starts[part].tolist(), ends[part].tolist(), strict=True)
