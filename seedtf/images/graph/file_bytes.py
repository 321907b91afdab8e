"""Reads integers and byte strings from an encoded file, with TensorFlow ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

__all__ = [
    "FileBytes",
    "as_signed",
    "big_endian",
    "big_endian_code",
    "field",
    "has_text",
    "int64",
    "is_in",
    "little_endian",
    "little_endian_bytes",
    "matches_at",
    "open_bytes",
    "peek",
    "text_between",
    "window",
]

_PADDING = 64  # the zeros after the bytes of a file, see `FileBytes`
_BYTES = [bytes([value]) for value in range(256)]


class FileBytes(NamedTuple):
    """An encoded file as tensors.

    Attributes:
        data: uint8 ``[length + 64]``, the bytes of the file and 64 zeros, so that a read may cross the
            end of the file.
        length: int64 scalar, the number of bytes of the file.
        contents: string scalar, the bytes of the file.
    """

    data: tf.Tensor
    length: tf.Tensor
    contents: tf.Tensor


def open_bytes(contents: tf.Tensor) -> FileBytes:
    """Converts a string scalar to ``FileBytes``."""
    padded = tf.strings.join([contents, tf.constant(b"\0" * _PADDING)])
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    return FileBytes(tf.io.decode_raw(padded, tf.uint8), length, contents)


def peek(file: FileBytes, position: tf.Tensor | int, count: int) -> list[tf.Tensor]:
    """``count`` bytes from ``position`` on, at most 64, as int64 scalars; 0 beyond the file's end."""
    return tf.unstack(tf.cast(_slice(file, position, count), tf.int64))


def matches_at(file: FileBytes, position: tf.Tensor | int, text: bytes) -> tf.Tensor:
    """Whether the file has ``text``, of at most 64 bytes, at ``position``."""
    return tf.reduce_all(_slice(file, position, len(text)) == tf.constant(list(text), tf.uint8))


def big_endian(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The unsigned integer that bytes from ``peek`` form, the most significant byte first."""
    integer = values[0]
    for value in values[1:]:
        integer = integer * 256 + value
    return integer


def little_endian(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The unsigned integer that bytes from ``peek`` form, the least significant byte first."""
    return big_endian(values[::-1])


def window(file: FileBytes, start: tf.Tensor, size: int, ahead: int = 0) -> tf.Tensor:
    """Reads the eight bytes that start at each of many consecutive positions.

    The positions are the n positions of ``[start, start + size)`` that are in the file (at least one),
    and the ``ahead`` positions that follow them.

    Returns:
        int64 ``[n + ahead]``: the eight bytes at each position as one big-endian integer.
    """
    start = tf.minimum(start, file.length)
    count = tf.clip_by_value(file.length - start, 1, size) + ahead
    value = tf.cast(tf.slice(file.data, [start], [count + 7]), tf.int64)
    # Join each byte with the next one, then each pair with the next pair, then four bytes with four.
    for width in (1, 2, 4):
        value = value[:-width] * 256**width + value[width:]
    return value


def field(values: tf.Tensor, first: int, count: int) -> tf.Tensor:
    """The integer in bytes ``first`` to ``first + count - 1`` of each element of a ``window``.

    Both ``values`` and the result are int64 ``[n]``.
    """
    shifted = tf.bitwise.right_shift(values, tf.constant(8 * (8 - first - count), tf.int64))
    return tf.bitwise.bitwise_and(shifted, tf.constant(256**count - 1, tf.int64))


def has_text(values: tf.Tensor, first: int, text: bytes, count: tf.Tensor) -> tf.Tensor:
    """Whether ``text`` begins ``first`` bytes after each of the first ``count`` positions of a window.

    ``values`` is the result of ``window``, int64; the result is bool ``[count]``.
    """
    if len(text) < 8:
        value = tf.slice(values, [first], [count])
        return field(value, 0, len(text)) == big_endian_code(text)
    result = tf.constant(True)
    for start in (*range(0, len(text) - 8, 8), len(text) - 8):
        value = tf.slice(values, [first + start], [count])
        result &= value == big_endian_code(text[start : start + 8])
    return result


def big_endian_code(name: bytes) -> int:
    """The integer that ``field`` or ``window`` returns for the bytes ``name``, at most eight."""
    return int.from_bytes(name, "big", signed=len(name) == 8)


def text_between(file: FileBytes, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The bytes ``[start, end)`` that are in the file, as a string scalar."""
    start, end = tf.minimum(start, file.length), tf.minimum(end, file.length)
    return tf.strings.substr(file.contents, start, tf.maximum(end - start, 0))


def little_endian_bytes(value: tf.Tensor, count: int) -> tf.Tensor:
    """Encodes ``value``, int64, as a little-endian integer of ``count`` bytes: a string scalar."""
    shifts = tf.constant([8 * place for place in range(count)], tf.int64)
    values = tf.bitwise.right_shift(value, shifts) % 256
    return tf.strings.reduce_join(tf.gather(tf.constant(_BYTES), values))


def as_signed(value: tf.Tensor) -> tf.Tensor:
    """Reinterprets an unsigned 32-bit integer as two's complement."""
    return tf.where(value >= 2**31, value - 2**32, value)


def is_in(value: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    """Whether each element of ``value``, int64 of any shape, is one of ``choices``: a bool for each."""
    return tf.reduce_any(value[..., tf.newaxis] == tf.constant(choices, tf.int64), axis=-1)


def int64(value: int) -> tf.Tensor:
    """``value`` as an int64 scalar."""
    return tf.constant(value, tf.int64)


def _slice(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """``count`` bytes from ``position`` on as uint8; 0 beyond the end of the file."""
    start = tf.clip_by_value(tf.cast(position, tf.int64), 0, file.length)
    return tf.slice(file.data, [start], [count])
