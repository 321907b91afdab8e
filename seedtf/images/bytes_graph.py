"""Numbers and texts read from a file's bytes in TensorFlow ops."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

__all__ = [
    "FileBytes",
    "int64",
    "is_in",
    "matches_at",
    "open_bytes",
    "ordered",
    "read_be",
    "read_le",
    "signed",
]

_PADDING = 64


class FileBytes(NamedTuple):
    """A file: uint8 ``[length + 64]``, zeros behind the end, so that a short read needs no care."""

    data: tf.Tensor
    length: tf.Tensor


def open_bytes(contents: tf.Tensor) -> FileBytes:
    """A string scalar as ``FileBytes``; ``length`` is int64."""
    padded = tf.strings.join([contents, tf.constant(b"\0" * _PADDING)])
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    return FileBytes(tf.io.decode_raw(padded, tf.uint8), length)


def matches_at(file: FileBytes, position: tf.Tensor | int, text: bytes) -> tf.Tensor:
    """Whether ``text``, of at most 64 bytes, stands at ``position``."""
    return tf.reduce_all(_bytes_at(file, position, len(text)) == tf.constant(list(text), tf.int64))


def read_be(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """An unsigned big-endian number of ``count`` bytes, int64."""
    weights = tf.constant([256**power for power in reversed(range(count))], tf.int64)
    return tf.reduce_sum(_bytes_at(file, position, count) * weights)


def read_le(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """An unsigned little-endian number of ``count`` bytes, int64."""
    weights = tf.constant([256**power for power in range(count)], tf.int64)
    return tf.reduce_sum(_bytes_at(file, position, count) * weights)


def ordered(file: FileBytes, position: tf.Tensor, count: int, is_little: tf.Tensor) -> tf.Tensor:
    """A number whose byte order is known when the graph runs."""
    return tf.where(is_little, read_le(file, position, count), read_be(file, position, count))


def signed(value: tf.Tensor) -> tf.Tensor:
    """An unsigned 32-bit number read as two's complement."""
    return tf.where(value >= 2**31, value - 2**32, value)


def is_in(value: tf.Tensor, choices: tuple[int, ...]) -> tf.Tensor:
    """Whether ``value`` is one of ``choices``."""
    return tf.reduce_any(value == tf.constant(choices, tf.int64))


def int64(value: int) -> tf.Tensor:
    """An int64 scalar."""
    return tf.constant(value, tf.int64)


def _bytes_at(file: FileBytes, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """``count`` bytes, int64; zeros where the file has ended."""
    start = tf.minimum(tf.cast(position, tf.int64), file.length)
    return tf.cast(tf.slice(file.data, [start], [count]), tf.int64)
