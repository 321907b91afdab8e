"""Reads the orientation of an image with TensorFlow ops, as ``images.formats.orientation`` does."""

from __future__ import annotations

import tensorflow as tf

from seedtf.images.formats.orientation import EXIF_PREFIX, MAX_PREFIXES, ORIENTATION
from seedtf.images.graph.file_bytes import (
    FileBytes,
    big_endian,
    int64,
    is_in,
    little_endian,
    matches_at,
    peek,
    text_between,
)

__all__ = ["read_exif", "read_xmp", "upright_orientation"]

# The first four bytes of a TIFF block: II (little-endian) or MM (big-endian), then the number 42, which
# is accepted in either byte order.
_LITTLE, _BIG = (0x49492A00, 0x4949002A), (0x4D4D002A, 0x4D4D2A00)
# TIFF types of 16 bits and of 32 bits, each without and with a sign.
_SHORTS, _LONGS = (3, 8), (4, 9)
# What may follow the name of the property: an XML attribute (="6) or an XML element (>6).
_XMP_VALUES = tuple(b'="%d' % digit for digit in range(10)) + tuple(
    b">%d" % digit for digit in range(10)
)


_SIGNATURE = [
    FileBytes(
        tf.TensorSpec([None], tf.uint8), tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)
    ),
    tf.TensorSpec([], tf.int64),
    tf.TensorSpec([], tf.int64),
]
# JPEG, PNG and WebP call the same traced function, because tracing it three times takes seconds.
_traced_once = tf.function(autograph=False, input_signature=_SIGNATURE)


def upright_orientation(exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    """The orientation, 1 to 8, from the results of ``read_exif`` and ``read_xmp``; by default 1."""
    value = tf.where(exif != 0, exif, xmp)
    return tf.where((value >= 1) & (value <= 8), value, int64(1))


@_traced_once
def read_exif(file: FileBytes, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The orientation tag of the TIFF block ``[start, end)``; 0 if it is missing."""
    end = tf.minimum(end, file.length)
    for _ in range(MAX_PREFIXES):
        has_prefix = matches_at(file, start, EXIF_PREFIX) & (start + len(EXIF_PREFIX) <= end)
        start = tf.where(has_prefix, start + len(EXIF_PREFIX), start)
    head = peek(file, start, 8)
    byte_order = big_endian(head[:4])
    is_little = is_in(byte_order, _LITTLE)
    is_tiff = (is_little | is_in(byte_order, _BIG)) & (start + 8 <= end)
    # The first entry comes after the two bytes with the number of entries.
    first = start + _to_integer(head[4:], is_little) + 2
    count = _to_integer(peek(file, first - 2, 2), is_little)
    count = tf.clip_by_value((end - first) // 12, 0, tf.where(is_tiff, count, 0))
    # An entry has 12 bytes: its tag, its type, the number of its values, and the values.
    first = tf.minimum(first, file.length)
    entries = tf.cast(tf.slice(file.data, [first], [12 * count]), tf.int32)
    entries = tf.reshape(entries, [-1, 12])
    tags = tf.where(
        is_little, entries[:, 1] * 256 + entries[:, 0], entries[:, 0] * 256 + entries[:, 1]
    )
    index = tf.concat([tf.where(tags == ORIENTATION)[:, 0], [-1]], 0)[0]
    value = _value_of_entry(peek(file, first + 12 * index, 12), is_little)
    return tf.where(index >= 0, value, int64(0))


@_traced_once
def read_xmp(file: FileBytes, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The property ``tiff:Orientation`` of the XMP packet in ``[start, end)``; 0 if it is missing."""
    pieces = tf.strings.split(text_between(file, start, end), "tiff:Orientation")[1:]
    choices = tf.constant(_XMP_VALUES)
    is_value = tf.strings.substr(pieces, 0, 3)[:, tf.newaxis] == choices
    is_value |= tf.strings.substr(pieces, 0, 2)[:, tf.newaxis] == choices
    digits = tf.where(is_value)[:, 1] % 10
    return tf.concat([digits, [0]], 0)[0]


def _value_of_entry(entry: list[tf.Tensor], is_little: tf.Tensor) -> tf.Tensor:
    """The value of an entry of 12 bytes.

    The result is 1 if the value is not usable: if it is 0, if it is not an integer of 16 or 32 bits, or
    if it is a list that is empty or has more than 4 bytes.
    """
    kind, count = _to_integer(entry[2:4], is_little), _to_integer(entry[4:8], is_little)
    is_short = is_in(kind, _SHORTS) & (count >= 1) & (count <= 2)
    is_long = is_in(kind, _LONGS) & (count == 1)
    long = tf.where(is_long, _to_integer(entry[8:], is_little), 1)
    value = tf.where(is_short, _to_integer(entry[8:10], is_little), long)
    return tf.where(value == 0, int64(1), value)


def _to_integer(values: list[tf.Tensor], is_little: tf.Tensor) -> tf.Tensor:
    """The unsigned integer that ``values``, bytes from ``peek``, form in the given byte order."""
    return tf.where(is_little, little_endian(values), big_endian(values))
