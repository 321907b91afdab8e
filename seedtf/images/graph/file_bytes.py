"""Reads integers and byte strings from an encoded file, and makes bytes, with TensorFlow ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

__all__ = [
    "FileBytes",
    "big_endian",
    "big_endian_code",
    "bytes_le",
    "field",
    "int64",
    "is_in",
    "is_text",
    "little_endian",
    "matches_at",
    "open_bytes",
    "peek",
    "signed",
    "text_between",
    "window",
]

_PADDING = 64
_BYTES = [bytes([value]) for value in range(256)]


class FileBytes(NamedTuple):
    """The bytes of a file, uint8 ``[length + 64]``: zero-padded, so that a read may cross the end.

    ``contents`` is the file as a string scalar, ``length`` an int64 scalar.
    """

    data: tf.Tensor
    length: tf.Tensor
    contents: tf.Tensor


def open_bytes(contents: tf.Tensor) -> FileBytes:
    """Converts a string scalar to ``FileBytes``; ``length`` is int64 and excludes the padding."""
    padded = tf.strings.join([contents, tf.constant(b"\0" * _PADDING)])
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    return FileBytes(tf.io.decode_raw(padded, tf.uint8), length, contents)


def peek(file: FileBytes, position: tf.Tensor | int, count: int) -> list[tf.Tensor]:
    """``count`` bytes, 64 at most, as int64 scalars; a byte beyond the end of the file is 0."""
    return tf.unstack(tf.cast(_slice(file, position, count), tf.int64))


def matches_at(file: FileBytes, position: tf.Tensor | int, text: bytes) -> tf.Tensor:
    """Whether the file has ``text``, of at most 64 bytes, at ``position``."""
    return tf.reduce_all(_slice(file, position, len(text)) == tf.constant(list(text), tf.uint8))


def big_endian(digits: Sequence[tf.Tensor]) -> tf.Tensor:
    """The unsigned integer of some bytes from ``peek``, the most significant one first."""
    value = digits[0]
    for digit in digits[1:]:
        value = value * 256 + digit
    return value


def little_endian(digits: Sequence[tf.Tensor]) -> tf.Tensor:
    """The unsigned integer of some bytes from ``peek``, the least significant one first."""
    return big_endian(digits[::-1])


def window(file: FileBytes, start: tf.Tensor, size: int, ahead: int = 0) -> tf.Tensor:
    """Eight bytes at each position of ``[start, start + size)`` and at ``ahead`` positions after it.

    The window ends at the end of the file, but has at least one position.

    Returns:
        int64 ``[n + ahead]``: the bytes of each position, big-endian.
    """
    start = tf.minimum(start, file.length)
    count = tf.clip_by_value(file.length - start, 1, size) + ahead
    value = tf.cast(tf.slice(file.data, [start], [count + 7]), tf.int64)
    for width in (1, 2, 4):
        value = value[:-width] * 256**width + value[width:]
    return value


def field(window: tf.Tensor, first: int, count: int) -> tf.Tensor:
    """Bytes ``first`` to ``first + count`` of the eight bytes of each position, as int64 ``[n]``."""
    shifted = tf.bitwise.right_shift(window, tf.constant(8 * (8 - first - count), tf.int64))
    return tf.bitwise.bitwise_and(shifted, tf.constant(256**count - 1, tf.int64))


def is_text(window: tf.Tensor, first: int, text: bytes, positions: tf.Tensor) -> tf.Tensor:
    """Whether ``text`` stands ``first`` bytes after each of the first ``positions`` of a window."""
    if len(text) < 8:
        value = tf.slice(window, [first], [positions])
        return field(value, 0, len(text)) == big_endian_code(text)
    result = tf.constant(True)
    for start in (*range(0, len(text) - 8, 8), len(text) - 8):
        value = tf.slice(window, [first + start], [positions])
        result &= value == big_endian_code(text[start : start + 8])
    return result


def big_endian_code(name: bytes) -> int:
    """The integer that ``field`` and ``window`` give for up to eight bytes."""
    return int.from_bytes(name, "big", signed=len(name) == 8)


def text_between(file: FileBytes, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The bytes ``[start, end)`` of the file as a string scalar; positions are cut to the file."""
    start, end = tf.minimum(start, file.length), tf.minimum(end, file.length)
    return tf.strings.substr(file.contents, start, tf.maximum(end - start, 0))


def bytes_le(value: tf.Tensor, count: int) -> tf.Tensor:
    """A string scalar: ``value``, int64, as a little-endian integer of ``count`` bytes."""
    shifts = tf.constant([8 * place for place in range(count)], tf.int64)
    digits = tf.bitwise.right_shift(value, shifts) % 256
    return tf.strings.reduce_join(tf.gather(tf.constant(_BYTES), digits))


def signed(value: tf.Tensor) -> tf.Tensor:
    """Reinterprets an unsigned 32-bit integer as two's complement."""
    return tf.where(value >= 2**31, value - 2**32, value)


def is_in(value: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    """Whether ``value``, int64, is one of ``choices``."""
    return tf.reduce_any(value == tf.constant(choices, tf.int64))


def int64(value: int) -> tf.Tensor:
    """An int64 scalar."""
    return tf.constant(value, tf.int64)


def _slice(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """``count`` bytes as uint8; a byte beyond the end of the file is 0."""
    start = tf.clip_by_value(tf.cast(position, tf.int64), 0, file.length)
    return tf.slice(file.data, [start], [count])
