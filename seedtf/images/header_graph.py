"""``images.header.read_header`` with TensorFlow ops, so that an exported graph checks files itself.

Both give the same result for every file; a test compares them on whole, damaged and hostile files.
There is one more limit here: a file of more than ``MAX_STEPS`` parts is refused as an unsupported
variant, because a graph parses parts slowly and a served file may be hostile. Every sub-block of a
GIF is such a part and has 255 bytes at most, so no GIF of over 4 MB is accepted. AutoGraph converts
the functions, so ``if`` and ``while`` on tensors become graph ops.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from seedtf.compat.tensorflow import DECODES_WEBP
from seedtf.images.bytes_graph import (
    FileBytes,
    int64,
    is_in,
    matches_at,
    open_bytes,
    read_be,
    read_le,
    read_ordered,
    signed,
)
from seedtf.images.header import MAX_PIXELS
from seedtf.images.parts_graph import (
    MAX_STEPS,
    color_table_bytes,
    gif_frames,
    has_many_scans,
    next_marker,
    skip_sub_blocks,
)

__all__ = ["STATUSES", "HeaderStatus", "parse_header_graph"]

STATUSES = (
    "ok",
    "empty file",
    "not an image",
    "truncated",
    "too large",
    "unsupported variant",
    "corrupt",
)
"""Names of the statuses; except for ``ok`` they are the faults of a run's data_report.csv."""

_OK, _EMPTY, _NOT_AN_IMAGE, _TRUNCATED, _TOO_LARGE, _UNSUPPORTED, _CORRUPT = range(len(STATUSES))
_PARSING = -1
# Markers without a length. libjpeg also skips FF 00, which is valid only in entropy-coded data.
_JPEG_STANDALONE = (0x00, 0x01, *range(0xD0, 0xD8))
# The start-of-frame markers. C4, C8 and CC are tables, not frames.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


class HeaderStatus(NamedTuple):
    """A parsed header as scalars, int64 except ``has_alpha`` (bool).

    ``status`` is an index into ``STATUSES``; the other fields are meaningful only where it is 0. They
    are those of ``images.header.Header``: the size is as stored, before the orientation is applied.
    """

    status: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    orientation: tf.Tensor
    has_alpha: tf.Tensor

    @property
    def for_decoder(self) -> tf.Tensor:
        """int32 ``[4]``: width, height, orientation and has_alpha."""
        values = [self.width, self.height, self.orientation, tf.cast(self.has_alpha, tf.int64)]
        return tf.cast(tf.stack(values), tf.int32)


@tf.function(autograph=True, input_signature=[tf.TensorSpec([], tf.string)])
def parse_header_graph(contents: tf.Tensor) -> HeaderStatus:
    """Parses the header of one encoded file, a string scalar, as ``images.header.read_header`` does."""
    file = open_bytes(contents)
    if file.length == 0:
        header = _refused(_EMPTY)
    elif matches_at(file, 0, b"\xff\xd8\xff"):
        header = _jpeg(file)
    elif matches_at(file, 0, b"\x89PNG\r\n\x1a\n"):
        header = _png(file)
    elif matches_at(file, 0, b"GIF8"):
        header = _gif(file)
    elif matches_at(file, 0, b"BM"):
        header = _bmp(file)
    elif matches_at(file, 0, b"RIFF"):
        header = _webp(file) if DECODES_WEBP else _undecodable_webp(file)
    else:
        header = _refused(_NOT_AN_IMAGE)
    return _check_size(header)


def _check_size(header: HeaderStatus) -> HeaderStatus:
    """Refuses an accepted header whose size is zero, negative or too large."""
    status = header.status
    if status == _OK:
        if header.width < 1 or header.height < 1:
            status = int64(_CORRUPT)
        elif header.width * header.height > MAX_PIXELS:
            status = int64(_TOO_LARGE)
    return HeaderStatus(status, *header[1:])


def _jpeg(file: FileBytes) -> HeaderStatus:
    status, position, steps = int64(_PARSING), int64(2), int64(0)
    width, height, orientation = int64(0), int64(0), int64(1)
    while status == _PARSING:
        marker = read_be(file, position + 1, 1)
        after = position + 2
        if after > file.length:
            status = int64(_TRUNCATED)
        elif read_be(file, position, 1) != 0xFF or marker == 0xFF:
            position = next_marker(file, position)
        elif is_in(marker, _JPEG_STANDALONE):
            position = after
        elif is_in(marker, (0xD9, 0xDA)):
            status = int64(_CORRUPT)
        elif after + 2 > file.length:
            status = int64(_TRUNCATED)
        elif is_in(marker, _JPEG_FRAMES):
            height, width = read_be(file, after + 3, 2), read_be(file, after + 5, 2)
            if after + 7 > file.length:
                status = int64(_TRUNCATED)
            elif read_be(file, after + 2, 1) != 8 or has_many_scans(
                file, after + read_be(file, after, 2)
            ):
                status = int64(_UNSUPPORTED)
            else:
                status = int64(_OK)
        else:
            segment = read_be(file, after, 2)
            if marker == 0xE1 and matches_at(file, after + 2, b"Exif\0\0"):
                orientation = _exif_orientation(file, after + 8, after + segment)
            position = after + segment
        status, steps = _count_step(status, steps)
    return HeaderStatus(status, width, height, orientation, tf.constant(False))


def _png(file: FileBytes) -> HeaderStatus:
    status, position, steps = int64(_PARSING), int64(8), int64(0)
    color_type, orientation = read_be(file, 25, 1), int64(1)
    has_alpha = is_in(color_type, (4, 6))
    if file.length < 26:
        status = int64(_TRUNCATED)
    elif not matches_at(file, 8, b"\0\0\0\x0dIHDR"):
        # libpng skips chunks before IHDR, so their bytes must not be taken for the size.
        status = int64(_UNSUPPORTED)
    while status == _PARSING:
        length = read_be(file, position, 4)
        kind = read_be(file, position + 4, 4)
        after = position + 12 + length
        if position + 8 > file.length or after > file.length:
            # libpng would allocate the length that a chunk claims, even a gigabyte.
            status = int64(_TRUNCATED)
        elif kind == int.from_bytes(b"IEND", "big"):
            status = int64(_OK)
        elif kind == int.from_bytes(b"tRNS", "big"):
            has_alpha = tf.constant(True)
        elif kind == int.from_bytes(b"eXIf", "big"):
            orientation = _exif_orientation(file, position + 8, position + 8 + length)
        position = after
        status, steps = _count_step(status, steps)
    return HeaderStatus(status, read_be(file, 16, 4), read_be(file, 20, 4), orientation, has_alpha)


def _gif(file: FileBytes) -> HeaderStatus:
    width, height = read_le(file, 6, 2), read_le(file, 8, 2)
    position = 13 + color_table_bytes(read_be(file, 10, 1))
    transparent, steps = tf.constant(False), int64(0)
    while position < file.length and read_be(file, position, 1) == 0x21 and steps < MAX_STEPS:
        control = read_be(file, position + 1, 1) == 0xF9
        transparent |= control and read_be(file, position + 3, 1) % 2 == 1
        position, steps = skip_sub_blocks(file, position + 2, steps + 1)
    frame = tf.stack([read_le(file, position + at, 2) for at in (1, 3, 5, 7)])
    after = position + 11 + color_table_bytes(read_be(file, position + 9, 1))
    end, steps = skip_sub_blocks(file, after, steps)
    if file.length < 11 or position >= file.length:
        status = int64(_TRUNCATED)
    elif steps >= MAX_STEPS:
        status = int64(_UNSUPPORTED)
    elif read_be(file, position, 1) != 0x2C:
        status = int64(_CORRUPT)
    elif position + 10 > file.length:
        status = int64(_TRUNCATED)
    elif tf.reduce_any(frame != tf.stack([int64(0), int64(0), width, height])) or transparent:
        status = int64(_UNSUPPORTED)
    elif end > file.length:
        status = int64(_TRUNCATED)
    else:
        status = int64(_OK)
    header = _check_size(HeaderStatus(status, width, height, int64(1), tf.constant(False)))
    return HeaderStatus(_gif_status(file, header, end, steps), *header[1:])


def _gif_status(
    file: FileBytes, header: HeaderStatus, position: tf.Tensor, steps: tf.Tensor
) -> tf.Tensor:
    """The status with the other frames checked too; ``header`` is the first, up to ``position``."""
    status = header.status
    if status == _OK:
        # TensorFlow decodes every frame, although only the first one is used. It allocates the
        # largest width × the largest height, not the canvas.
        other_pixels, is_larger, steps = gif_frames(
            file, position, steps, header.width, header.height
        )
        if header.width * header.height + other_pixels > MAX_PIXELS:
            status = int64(_TOO_LARGE)
        elif steps >= MAX_STEPS or is_larger:
            status = int64(_UNSUPPORTED)
    return status


def _bmp(file: FileBytes) -> HeaderStatus:
    # Supported: BITMAPINFOHEADER, 24 or 32 bits a pixel, uncompressed.
    is_info_header, bits = read_le(file, 14, 4) == 40, read_le(file, 28, 2)
    is_supported = is_info_header and is_in(bits, (24, 32)) and read_le(file, 30, 4) == 0
    if file.length < 34:
        status = int64(_TRUNCATED)
    elif not is_supported:
        status = int64(_UNSUPPORTED)
    else:
        status = int64(_OK)
    width, height = signed(read_le(file, 18, 4)), tf.abs(signed(read_le(file, 22, 4)))
    return HeaderStatus(status, width, height, int64(1), tf.constant(False))


def _webp(file: FileBytes) -> HeaderStatus:
    if not matches_at(file, 8, b"WEBP"):
        header = _refused(_NOT_AN_IMAGE)
    elif matches_at(file, 12, b"VP8 "):
        width, height = read_le(file, 26, 2) % 0x4000, read_le(file, 28, 2) % 0x4000
        header = _fixed_header(file, 30, False, width, height)
    elif matches_at(file, 12, b"VP8L"):
        packed = read_le(file, 21, 4)
        width, height = packed % 0x4000 + 1, packed // 0x4000 % 0x4000 + 1
        header = _fixed_header(file, 25, packed // 2**28 % 2 == 1, width, height)
    elif matches_at(file, 12, b"VP8X"):
        flags = read_be(file, 20, 1)  # bit 1 animation, bit 4 alpha
        is_unsupported = tf.logical_or(flags // 2 % 2 == 1, flags // 16 % 2 == 1)
        width, height = read_le(file, 24, 3) + 1, read_le(file, 27, 3) + 1
        header = _fixed_header(file, 21, is_unsupported, width, height)
        header = HeaderStatus(*header[:3], _webp_orientation(file), header.has_alpha)
    else:
        header = _refused(_CORRUPT)
    return header


def _undecodable_webp(file: FileBytes) -> HeaderStatus:
    """For a TensorFlow that cannot decode WebP: refuses what ``_webp`` accepts."""
    header = _webp(file)
    status = tf.where(header.status == _OK, int64(_UNSUPPORTED), header.status)
    return HeaderStatus(status, *header[1:])


def _fixed_header(
    file: FileBytes, needed: int, is_unsupported: tf.Tensor, width: tf.Tensor, height: tf.Tensor
) -> HeaderStatus:
    """The result for a format whose header has ``needed`` bytes; refuses a shorter file."""
    if file.length < needed:
        status = int64(_TRUNCATED)
    elif is_unsupported:
        status = int64(_UNSUPPORTED)
    else:
        status = int64(_OK)
    return HeaderStatus(status, width, height, int64(1), tf.constant(False))


def _webp_orientation(file: FileBytes) -> tf.Tensor:
    position, orientation, steps = int64(12), int64(1), int64(0)
    while position + 8 <= file.length and steps < MAX_STEPS:
        length = read_le(file, position + 4, 4)
        if matches_at(file, position, b"EXIF"):
            orientation = _exif_orientation(file, position + 8, position + 8 + length)
            position = file.length
        else:
            position += 8 + length + length % 2
        steps += 1
    return orientation


def _exif_orientation(file: FileBytes, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The orientation tag of the TIFF block ``[start, end)`` (TIFF 6.0, section 2), or 1."""
    end = tf.minimum(end, file.length)
    if matches_at(file, start, b"Exif\0\0") and start + 6 <= end:
        start += 6
    is_little = matches_at(file, start, b"II")
    is_tiff = (is_little or matches_at(file, start, b"MM")) and start + 8 <= end
    first = start + read_ordered(file, start + 4, 4, is_little) + 2
    count = tf.minimum(read_ordered(file, first - 2, 2, is_little), (end - first + 2) // 12)
    orientation = int64(1)
    if is_tiff and first <= end and count > 0:
        # An entry has 12 bytes: tag, type, count, value. The orientation is in the value's first 2.
        entries = tf.cast(file.data[first : first + 12 * count], tf.int64)
        entries = tf.reshape(entries, [-1, 12])
        weights = tf.where(
            is_little, tf.constant([1, 256], tf.int64), tf.constant([256, 1], tf.int64)
        )
        tags = tf.reduce_sum(entries[:, :2] * weights, 1)
        values = tf.reduce_sum(entries[:, 8:10] * weights, 1)
        value = tf.concat([tf.boolean_mask(values, tags == 0x0112), [1]], 0)[0]
        orientation = tf.where(value >= 1 and value <= 8, value, 1)
    return orientation


def _count_step(status: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds a step; the status becomes unsupported at ``MAX_STEPS``."""
    steps += 1
    return tf.where(status == _PARSING and steps >= MAX_STEPS, int64(_UNSUPPORTED), status), steps


def _refused(status: int) -> HeaderStatus:
    """A header that was not parsed."""
    return HeaderStatus(int64(status), int64(0), int64(0), int64(1), tf.constant(False))
