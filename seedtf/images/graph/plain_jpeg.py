"""Parses the headers of many plain JPEG files at once, with TensorFlow ops.

``read_jpeg`` handles every JPEG, but runs hundreds of operations for each file, which take 1 to 2 ms.
Here each operation handles all files, so 32 headers take about as long as one header. A file that is
not plain (see ``read_plain_jpegs``) is left to ``read_jpeg``.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from seedtf.images.formats.jpeg import MAX_SCANS
from seedtf.images.graph.jpeg import max_scans

__all__ = ["PlainJpegs", "read_plain_jpegs"]

_MAX_SEGMENTS = 32
_SCAN = 0xFFDA
_SKIPPED, _FRAME = 1, 2
# _FRAME: the frames with Huffman coding (baseline, extended and progressive). _SKIPPED: Huffman tables,
# quantization tables, the restart interval, comments, and all APP segments but APP1, which may have an
# orientation.
_KINDS = dict.fromkeys(
    (0xC4, 0xDB, 0xDD, 0xFE, 0xE0, *range(0xE2, 0xF0)), _SKIPPED
) | dict.fromkeys((0xC0, 0xC1, 0xC2), _FRAME)
_KIND_OF_MARKER = [_KINDS.get(marker, 0) for marker in range(256)]


class PlainJpegs(NamedTuple):
    """What was found in B files; ``width`` and ``height`` have a meaning only where ``is_plain``.

    Attributes:
        is_plain: bool ``[B]``. If true, ``read_jpeg`` accepts the file, finds the same size, an upright
            image, and no edits.
        width, height: int64 ``[B]``.
    """

    is_plain: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor


def read_plain_jpegs(contents: tf.Tensor) -> PlainJpegs:
    """Parses files, string ``[B]``, and finds the plain JPEGs among them.

    Before its first scan, a plain JPEG has at most 32 segments of known kinds, each inside the file.
    Exactly one segment is a frame; it has Huffman coding, 8 bits per sample and at most three
    components. No segment is APP1, which has EXIF or XMP. The file has no more scans than ``max_scans``
    allows.
    """
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    zeros = tf.zeros_like(length)
    kinds = tf.constant(_KIND_OF_MARKER)

    def follow(
        position: tf.Tensor, frame: tf.Tensor, is_open: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Goes to the next segment where ``is_open``; ``frame`` is the position of the frame or 0."""
        code, size = _words(contents, length, position, 2)
        kind = tf.gather(kinds, code % 256)
        end = position + 2 + size
        is_frame = is_open & (kind == _FRAME)
        is_open &= (code >= 0xFF00) & (kind > 0) & (size >= 2) & (end <= length)
        is_open &= ~(is_frame & (frame > 0))  # a second frame
        frame = tf.where(is_frame & is_open, position, frame)
        return tf.where(is_open, end, position), frame, is_open

    is_jpeg = _words(contents, length, zeros, 1)[0] == 0xFFD8
    position, frame, _ = tf.while_loop(
        lambda position, frame, is_open: tf.reduce_any(is_open),
        follow,
        (zeros + 2, zeros, is_jpeg),
        maximum_iterations=_MAX_SEGMENTS,
    )
    is_at_scan = _words(contents, length, position, 1)[0] == _SCAN
    # A frame has a marker (2 bytes), its length (2), the bits per sample (1), height (2), width (2) and
    # the number of components (1).
    fields = tf.unstack(_bytes(contents, length, frame, 10), axis=1)
    frame_bytes, height, width = (256 * fields[at] + fields[at + 1] for at in (2, 5, 7))
    is_plain = (frame > 0) & is_at_scan & (frame_bytes >= 8) & (fields[4] == 8) & (fields[9] <= 3)
    # All bytes that look like the start of a scan are counted, so no scan is missed. Some may be other
    # data; if this makes the number too high, the file is left to `read_jpeg`.
    searched = tf.where(is_plain, contents, b"")
    num_scans = tf.strings.split(searched, b"\xff\xda", MAX_SCANS + 1).row_lengths() - 1
    return PlainJpegs(is_plain & (num_scans <= max_scans(width * height)), width, height)


def _words(
    contents: tf.Tensor, length: tf.Tensor, position: tf.Tensor, count: int
) -> list[tf.Tensor]:
    """``count`` big-endian 16-bit integers from ``position`` on, each int64 ``[B]``."""
    values = _bytes(contents, length, position, 2 * count)
    return tf.unstack(256 * values[:, ::2] + values[:, 1::2], axis=1)


def _bytes(contents: tf.Tensor, length: tf.Tensor, position: tf.Tensor, count: int) -> tf.Tensor:
    """``count`` bytes from ``position`` on, int64 ``[B, count]``; 0 beyond the end of a file."""
    start = tf.minimum(position, length)
    text = tf.strings.substr(contents, start, tf.minimum(length - start, count))
    return tf.cast(tf.io.decode_raw(text, tf.uint8, fixed_length=count), tf.int64)
