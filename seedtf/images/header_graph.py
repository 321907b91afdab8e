"""``data.header.read_header`` again in TensorFlow ops, so that an exported graph judges files itself.

The two give the same verdict for every file; a test compares them on whole, damaged and hostile ones.
One bound is new: a file of more than ``MAX_STEPS`` parts is refused as an unsupported variant, because
a graph walks them slowly and a served file may be hostile. All of a GIF's sub-blocks are such parts,
255 bytes at most, so that no GIF of over 4 MB passes. The functions are converted by AutoGraph: ``if``
and ``while`` on tensors are graph ops.
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
    ordered,
    read_be,
    read_le,
    signed,
)
from seedtf.images.header import MAX_PIXELS
from seedtf.images.parts_graph import (
    MAX_STEPS,
    color_table_bytes,
    gif_pixels,
    has_many_scans,
    skip_sub_blocks,
)

__all__ = ["FAULTS", "Verdict", "judge_header"]

FAULTS = (
    "ok",
    "empty file",
    "not an image",
    "truncated",
    "too large",
    "unsupported variant",
    "corrupt",
)
"""Names of the verdicts, the same words as in a run's data_report.csv."""

_OK, _EMPTY, _NO_IMAGE, _TRUNCATED, _TOO_LARGE, _UNSUPPORTED, _CORRUPT = range(len(FAULTS))
_WALKING = -1
_JPEG_STANDALONE = (0x01, *range(0xD0, 0xD8))
# start-of-frame markers; C4, C8 and CC are tables, not frames
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


class Verdict(NamedTuple):
    """What a header says, as scalars; ``fault`` indexes ``FAULTS``, the rest counts where it is 0.

    int64 but for ``has_alpha`` (bool); sizes are pixels as stored, before orientation.
    """

    fault: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    orientation: tf.Tensor
    has_alpha: tf.Tensor


@tf.function(autograph=True, input_signature=[tf.TensorSpec([], tf.string)])
def judge_header(contents: tf.Tensor) -> Verdict:
    """Judges one encoded file, a string scalar, as ``data.header.read_header`` does."""
    file = open_bytes(contents)
    if file.length == 0:
        found = _verdict(_EMPTY)
    elif matches_at(file, 0, b"\xff\xd8\xff"):
        found = _jpeg(file)
    elif matches_at(file, 0, b"\x89PNG\r\n\x1a\n"):
        found = _png(file)
    elif matches_at(file, 0, b"GIF8"):
        found = _gif(file)
    elif matches_at(file, 0, b"BM"):
        found = _bmp(file)
    elif matches_at(file, 0, b"RIFF"):
        found = _webp(file) if DECODES_WEBP else _refused_webp(file)
    else:
        found = _verdict(_NO_IMAGE)
    return _bounded(found)


def _bounded(found: Verdict) -> Verdict:
    """A good verdict turned down where the size is nothing or too much."""
    fault = found.fault
    if fault == _OK:
        if found.width < 1 or found.height < 1:
            fault = int64(_CORRUPT)
        elif found.width * found.height > MAX_PIXELS:
            fault = int64(_TOO_LARGE)
    return Verdict(fault, *found[1:])


def _jpeg(file: FileBytes) -> Verdict:
    fault, position, steps = int64(_WALKING), int64(2), int64(0)
    width, height, orientation = int64(0), int64(0), int64(1)
    while fault == _WALKING:
        marker = read_be(file, position + 1, 1)
        after = position + 2
        if after > file.length:
            fault = int64(_TRUNCATED)
        elif read_be(file, position, 1) != 0xFF or marker == 0xFF:
            position += 1  # before a marker, or one of the fill bytes that may precede its code
        elif is_in(marker, _JPEG_STANDALONE):
            position = after
        elif is_in(marker, (0xD9, 0xDA)):
            fault = int64(_CORRUPT)
        elif after + 2 > file.length:
            fault = int64(_TRUNCATED)
        elif is_in(marker, _JPEG_FRAMES):
            height, width = read_be(file, after + 3, 2), read_be(file, after + 5, 2)
            if after + 7 > file.length:
                fault = int64(_TRUNCATED)
            elif read_be(file, after + 2, 1) != 8 or has_many_scans(
                file, after + read_be(file, after, 2)
            ):
                fault = int64(_UNSUPPORTED)
            else:
                fault = int64(_OK)
        else:
            segment = read_be(file, after, 2)
            if marker == 0xE1 and matches_at(file, after + 2, b"Exif\0\0"):
                orientation = _exif_orientation(file, after + 8, after + segment)
            position = after + segment
        fault, steps = _count(fault, steps)
    return Verdict(fault, width, height, orientation, tf.constant(False))


def _png(file: FileBytes) -> Verdict:
    fault, position, steps = int64(_WALKING), int64(8), int64(0)
    color_type, orientation = read_be(file, 25, 1), int64(1)
    has_alpha = is_in(color_type, (4, 6))
    if file.length < 26:
        fault = int64(_TRUNCATED)
    while fault == _WALKING:
        length = read_be(file, position, 4)
        kind = read_be(file, position + 4, 4)
        after = position + 12 + length
        if position + 8 > file.length or after > file.length:
            # also stops a tiny file whose chunk claims a gigabyte before anything is allocated
            fault = int64(_TRUNCATED)
        elif kind == int.from_bytes(b"IEND", "big"):
            fault = int64(_OK)
        elif kind == int.from_bytes(b"tRNS", "big"):
            has_alpha = tf.constant(True)
        elif kind == int.from_bytes(b"eXIf", "big"):
            orientation = _exif_orientation(file, position + 8, position + 8 + length)
        position = after
        fault, steps = _count(fault, steps)
    return Verdict(fault, read_be(file, 16, 4), read_be(file, 20, 4), orientation, has_alpha)


def _gif(file: FileBytes) -> Verdict:
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
        fault = int64(_TRUNCATED)
    elif steps >= MAX_STEPS:
        fault = int64(_UNSUPPORTED)
    elif read_be(file, position, 1) != 0x2C:
        fault = int64(_CORRUPT)
    elif position + 10 > file.length:
        fault = int64(_TRUNCATED)
    elif tf.reduce_any(frame != tf.stack([int64(0), int64(0), width, height])) or transparent:
        fault = int64(_UNSUPPORTED)
    elif end > file.length:
        fault = int64(_TRUNCATED)
    else:
        fault = int64(_OK)
    found = _bounded(Verdict(fault, width, height, int64(1), tf.constant(False)))
    return Verdict(_gif_frames(file, found, end, steps), *found[1:])


def _gif_frames(
    file: FileBytes, found: Verdict, position: tf.Tensor, steps: tf.Tensor
) -> tf.Tensor:
    """The fault of a GIF whose first frame is ``found`` and ends at ``position``: of all its frames."""
    fault = found.fault
    if fault == _OK:
        # the decoder unpacks every frame, though the first alone is shown
        others, steps = gif_pixels(file, position, steps)
        if found.width * found.height + others > MAX_PIXELS:
            fault = int64(_TOO_LARGE)
        elif steps >= MAX_STEPS:
            fault = int64(_UNSUPPORTED)
    return fault


def _bmp(file: FileBytes) -> Verdict:
    bits, plain = read_le(file, 28, 2), read_le(file, 14, 4) == 40
    plain = plain and is_in(bits, (24, 32)) and read_le(file, 30, 4) == 0
    if file.length < 34:
        fault = int64(_TRUNCATED)
    elif not plain:
        fault = int64(_UNSUPPORTED)
    else:
        fault = int64(_OK)
    width, height = signed(read_le(file, 18, 4)), tf.abs(signed(read_le(file, 22, 4)))
    return Verdict(fault, width, height, int64(1), tf.constant(False))


def _webp(file: FileBytes) -> Verdict:
    if not matches_at(file, 8, b"WEBP"):
        found = _verdict(_NO_IMAGE)
    elif matches_at(file, 12, b"VP8 "):
        width, height = read_le(file, 26, 2) % 0x4000, read_le(file, 28, 2) % 0x4000
        found = _complete(file, 30, False, width, height)
    elif matches_at(file, 12, b"VP8L"):
        packed = read_le(file, 21, 4)
        width, height = packed % 0x4000 + 1, packed // 0x4000 % 0x4000 + 1
        found = _complete(file, 25, packed // 2**28 % 2 == 1, width, height)
    elif matches_at(file, 12, b"VP8X"):
        flags = read_be(file, 20, 1)  # bit 1 animation, bit 4 alpha
        refused = tf.logical_or(flags // 2 % 2 == 1, flags // 16 % 2 == 1)
        width, height = read_le(file, 24, 3) + 1, read_le(file, 27, 3) + 1
        found = _complete(file, 21, refused, width, height)
        found = Verdict(*found[:3], _webp_orientation(file), found.has_alpha)
    else:
        found = _verdict(_CORRUPT)
    return found


def _refused_webp(file: FileBytes) -> Verdict:
    """For a TensorFlow that cannot decode the format: what would be accepted is unsupported."""
    found = _webp(file)
    fault = tf.where(found.fault == _OK, int64(_UNSUPPORTED), found.fault)
    return Verdict(fault, *found[1:])


def _complete(
    file: FileBytes, needed: int, refused: tf.Tensor, width: tf.Tensor, height: tf.Tensor
) -> Verdict:
    """The verdict on a header of fixed size whose variant is ``refused`` or not."""
    if file.length < needed:
        fault = int64(_TRUNCATED)
    elif refused:
        fault = int64(_UNSUPPORTED)
    else:
        fault = int64(_OK)
    return Verdict(fault, width, height, int64(1), tf.constant(False))


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
    """The orientation tag of a TIFF block ``[start, end)`` (TIFF 6.0, section 2), or 1."""
    end = tf.minimum(end, file.length)
    if matches_at(file, start, b"Exif\0\0") and start + 6 <= end:
        start += 6
    is_little = matches_at(file, start, b"II")
    known = (is_little or matches_at(file, start, b"MM")) and start + 8 <= end
    first = start + ordered(file, start + 4, 4, is_little) + 2
    count = tf.minimum(ordered(file, first - 2, 2, is_little), (end - first + 2) // 12)
    orientation = int64(1)
    if known and first <= end and count > 0:
        # an entry is 12 bytes: tag, type, count, value; the orientation lies in the first two of value
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


def _count(fault: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    steps += 1
    return tf.where(fault == _WALKING and steps >= MAX_STEPS, int64(_UNSUPPORTED), fault), steps


def _verdict(fault: int) -> Verdict:
    return Verdict(int64(fault), int64(0), int64(0), int64(1), tf.constant(False))
