"""Reads integers and byte strings from an encoded file with TensorFlow ops."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

__all__ = [
    "FileBytes",
    "int64",
    "is_in",
    "matches_at",
    "open_bytes",
    "read_be",
    "read_le",
    "read_ordered",
    "signed",
]

_PADDING = 64


class FileBytes(NamedTuple):
    """The bytes of a file, uint8 ``[length + 64]``: zero-padded, so that a read may cross the end."""

    data: tf.Tensor
    length: tf.Tensor


def open_bytes(contents: tf.Tensor) -> FileBytes:
    """Converts a string scalar to ``FileBytes``; ``length`` is int64 and excludes the padding."""
    padded = tf.strings.join([contents, tf.constant(b"\0" * _PADDING)])
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    return FileBytes(tf.io.decode_raw(padded, tf.uint8), length)


def matches_at(file: FileBytes, position: tf.Tensor | int, text: bytes) -> tf.Tensor:
    """Whether the file has ``text``, of at most 64 bytes, at ``position``."""
    return tf.reduce_all(_bytes_at(file, position, len(text)) == tf.constant(list(text), tf.int64))


def read_be(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Reads an unsigned big-endian integer of ``count`` bytes as int64."""
    weights = tf.constant([256**power for power in reversed(range(count))], tf.int64)
    return tf.reduce_sum(_bytes_at(file, position, count) * weights)


def read_le(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Reads an unsigned little-endian integer of ``count`` bytes as int64."""
    weights = tf.constant([256**power for power in range(count)], tf.int64)
    return tf.reduce_sum(_bytes_at(file, position, count) * weights)


def read_ordered(
    file: FileBytes, position: tf.Tensor, count: int, is_little: tf.Tensor
) -> tf.Tensor:
    """Reads an integer whose byte order is a tensor: little-endian if ``is_little``."""
    return tf.where(is_little, read_le(file, position, count), read_be(file, position, count))


def signed(value: tf.Tensor) -> tf.Tensor:
    """Reinterprets an unsigned 32-bit integer as two's complement."""
    return tf.where(value >= 2**31, value - 2**32, value)


def is_in(value: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    """Whether ``value`` is one of ``choices``."""
    return tf.reduce_any(value == tf.constant(choices, tf.int64))


def int64(value: int) -> tf.Tensor:
    """An int64 scalar."""
    return tf.constant(value, tf.int64)


def _bytes_at(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """``count`` bytes as int64; a byte beyond the end of the file is 0."""
    start = tf.minimum(tf.cast(position, tf.int64), file.length)
    return tf.cast(tf.slice(file.data, [start], [count]), tf.int64)
