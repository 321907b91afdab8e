"""Counts the scans of a JPEG and measures all frames of a GIF with TensorFlow ops.

A scan or frame of a few bytes may cost the decoder a whole image. The results are those of
``images.header``, except that the functions stop after ``MAX_STEPS`` parts. AutoGraph converts them,
so ``if`` and ``while`` on tensors become graph ops.
"""

from __future__ import annotations

import tensorflow as tf

from seedtf.images.bytes_graph import FileBytes, int64, is_in, read_be, read_le
from seedtf.images.header import MAX_PIXELS, MAX_SCANS

__all__ = [
    "MAX_STEPS",
    "color_table_bytes",
    "gif_frames",
    "has_many_scans",
    "next_marker",
    "skip_sub_blocks",
]

MAX_STEPS = 16_384
"""Largest number of JPEG segments, PNG chunks, or GIF blocks and sub-blocks parsed in one file."""

_WINDOW_BYTES = 1 << 16


def next_marker(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """The position of the first JPEG marker from ``position`` on, without its fill bytes.

    If the next 65,536 bytes have none, the position after them is returned.
    """
    window = file.data[position : position + _WINDOW_BYTES + 1]
    is_marker = (window[:-1] == 0xFF) & (window[1:] != 0xFF)
    first = tf.argmax(tf.cast(is_marker, tf.uint8))
    return position + tf.where(tf.reduce_any(is_marker), first, tf.size(is_marker, tf.int64))


def has_many_scans(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """Whether more than ``MAX_SCANS`` scans or ``MAX_STEPS`` segments follow ``position``; bool."""
    position = tf.minimum(position, file.length)
    scans = (file.data[position:-1] == 0xFF) & (file.data[position + 1 :] == 0xDA)
    has_many = tf.math.count_nonzero(scans) > MAX_SCANS
    if has_many:
        # Some of these bytes may be inside other segments, or after the end of the image.
        has_many = _count_scans(file, position)
    return has_many


def _count_scans(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """The exact count for ``has_many_scans``: parses segment after segment."""
    markers = _markers_after_scan(file, position)
    scans, steps, walking = int64(0), int64(0), tf.constant(True)
    while walking and scans <= MAX_SCANS and steps < MAX_STEPS:
        marker = markers[tf.searchsorted(markers, position[tf.newaxis])[0]]
        code, after = read_be(file, marker + 1, 1), marker + 2
        walking = code != 0xD9 and after + 2 <= file.length
        scans += tf.cast(walking and code == 0xDA, tf.int64)
        position = tf.minimum(after + read_be(file, after, 2), file.length)
        steps += 1
    return scans > MAX_SCANS or steps >= MAX_STEPS


def _markers_after_scan(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """Positions of all markers except stuffed zeros and restarts, then the end of the file; int64."""
    codes = file.data[position + 1 :]
    restart = (codes >= 0xD0) & (codes <= 0xD7)
    marker = (file.data[position:-1] == 0xFF) & (codes > 1) & (codes != 0xFF) & ~restart
    return tf.concat([position + tf.where(marker)[:, 0], file.length[tf.newaxis]], 0)


def gif_frames(
    file: FileBytes, position: tf.Tensor, steps: tf.Tensor, width: tf.Tensor, height: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Measures the frames of a GIF that follow ``position``.

    It ends where the file is damaged, as decoding does, or once there are over ``MAX_PIXELS``.

    Returns:
        The sum of width × height, int64; whether a frame is wider than ``width`` or higher than
        ``height``; and ``steps`` increased by the number of blocks that were parsed.
    """
    pixels, block = int64(0), read_be(file, position, 1)
    is_larger = tf.constant(False)
    while is_in(block, (0x21, 0x2C)) and pixels <= MAX_PIXELS and steps < MAX_STEPS:
        is_image = block == 0x2C
        is_frame = is_image and position + 10 <= file.length
        frame_width, frame_height = read_le(file, position + 5, 2), read_le(file, position + 7, 2)
        pixels += tf.where(is_frame, frame_width * frame_height, 0)
        is_larger |= is_frame and (frame_width > width or frame_height > height)
        after = position + 11 + color_table_bytes(read_be(file, position + 9, 1))
        chain = tf.where(is_image, after, position + 2)
        position, steps = skip_sub_blocks(file, chain, steps + 1)
        block = read_be(file, position, 1)
    return pixels, is_larger, steps


def skip_sub_blocks(
    file: FileBytes, position: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The position after a chain of GIF sub-blocks; beyond the file if the chain has no end."""
    size = read_be(file, position, 1)
    while size != 0 and position < file.length and steps < MAX_STEPS:
        position += 1 + size
        size = read_be(file, position, 1)
        steps += 1
    return position + 1, steps


def color_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """The length of the colour table that a GIF's ``flags`` byte declares."""
    return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)
