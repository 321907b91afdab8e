"""What stands behind a header, counted in TensorFlow ops: the scans of a JPEG, the frames of a GIF.

Each may be a few bytes that cost a decoder a whole image. The functions are converted by AutoGraph,
as those of ``graph_header``, and count as ``data.header`` does, but stop after ``MAX_STEPS`` parts.
"""

from __future__ import annotations

import tensorflow as tf

from seedtf.images.bytes_graph import FileBytes, int64, is_in, read_be, read_le
from seedtf.images.header import MAX_PIXELS, MOST_SCANS

__all__ = ["MAX_STEPS", "color_table_bytes", "gif_pixels", "has_many_scans", "skip_sub_blocks"]

MAX_STEPS = 16_384
"""Most JPEG segments, PNG chunks or GIF blocks and sub-blocks that are walked in one file."""


def has_many_scans(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG has over 100 scans, or ``MAX_STEPS`` segments, behind ``position``; bool."""
    position = tf.minimum(position, file.length)
    scans = (file.data[position:-1] == 0xFF) & (file.data[position + 1 :] == 0xDA)
    many = tf.math.count_nonzero(scans) > MOST_SCANS
    if many:
        # some may stand inside other segments, or behind the image's end
        many = _walk_scans(file, position)
    return many


def _walk_scans(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    markers = _markers_amid_pixels(file, position)
    scans, steps, walking = int64(0), int64(0), tf.constant(True)
    while walking and scans <= MOST_SCANS and steps < MAX_STEPS:
        found = markers[tf.searchsorted(markers, position[tf.newaxis])[0]]
        code, after = read_be(file, found + 1, 1), found + 2
        walking = code != 0xD9 and after + 2 <= file.length
        scans += tf.cast(walking and code == 0xDA, tf.int64)
        position = tf.minimum(after + read_be(file, after, 2), file.length)
        steps += 1
    return scans > MOST_SCANS or steps >= MAX_STEPS


def _markers_amid_pixels(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """Where each marker stands that is neither a stuffed zero nor a restart, and the file's end."""
    codes = file.data[position + 1 :]
    restart = (codes >= 0xD0) & (codes <= 0xD7)
    marker = (file.data[position:-1] == 0xFF) & (codes > 1) & (codes != 0xFF) & ~restart
    return tf.concat([position + tf.where(marker)[:, 0], file.length[tf.newaxis]], 0)


def gif_pixels(
    file: FileBytes, position: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels of a GIF's frames behind ``position``, and ``steps`` with those made.

    The count ends where the file is damaged, as decoding does, or once it is over ``MAX_PIXELS``.
    """
    pixels, block = int64(0), read_be(file, position, 1)
    while is_in(block, (0x21, 0x2C)) and pixels <= MAX_PIXELS and steps < MAX_STEPS:
        is_frame = block == 0x2C
        size = read_le(file, position + 5, 2) * read_le(file, position + 7, 2)
        pixels += tf.where(is_frame and position + 10 <= file.length, size, 0)
        frame = position + 11 + color_table_bytes(read_be(file, position + 9, 1))
        chain = tf.where(is_frame, frame, position + 2)
        position, steps = skip_sub_blocks(file, chain, steps + 1)
        block = read_be(file, position, 1)
    return pixels, steps


def skip_sub_blocks(
    file: FileBytes, position: tf.Tensor, steps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The position behind a chain of sub-blocks, past the file's end where the chain has none."""
    size = read_be(file, position, 1)
    while size != 0 and position < file.length and steps < MAX_STEPS:
        position += 1 + size
        size = read_be(file, position, 1)
        steps += 1
    return position + 1, steps


def color_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """The length of the colour table that a GIF's ``flags`` announce."""
    return tf.where(flags >= 0x80, 3 * 2 ** (flags % 8 + 1), 0)
