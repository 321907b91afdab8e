"""Parses the segments of a JPEG with TensorFlow ops, as ``images.formats.jpeg`` does in Python."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from seedtf.images.formats.jpeg import (
    ADOBE_SEGMENT,
    MAX_SCANNED_PIXELS,
    MAX_SCANS,
    MAX_SCANS_IF_LARGE,
    XMP_PREFIX,
)
from seedtf.images.formats.orientation import EXIF_PREFIX
from seedtf.images.graph.chains import WINDOW, follow_chain, sum_along_chain
from seedtf.images.graph.file_bytes import (
    FileBytes,
    big_endian,
    field,
    has_text,
    int64,
    is_in,
    matches_at,
    peek,
    window,
)
from seedtf.images.graph.orientation import read_exif, read_xmp, upright_orientation
from seedtf.images.graph.status import (
    BY_PILLOW,
    CORRUPT,
    OK,
    PARSING,
    TRUNCATED,
    UNSUPPORTED,
    HeaderStatus,
    first_status,
    make_edits,
    make_header_status,
)

__all__ = ["max_scans", "read_jpeg"]

# Markers without a length. libjpeg also skips FF 00, which is valid only in entropy-coded data.
_STANDALONE = (0x00, 0x01, *range(0xD0, 0xD8))
# The start-of-frame markers. C4 and CC define tables, and C8 is reserved.
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_ARITHMETIC = (0xC9, 0xCA)
_END, _SCAN, _APP1, _APP14 = 0xD9, 0xDA, 0xE1, 0xEE
_ADOBE_PREFIX = b"Adobe"
_MIN_ADOBE_BYTES = 14
# The longest text that is compared, XMP_PREFIX, begins 4 bytes after the start of a segment. `window`
# returns the 8 bytes that start at each position. To compare the whole text, `has_text` also needs the
# element with its last 8 bytes, which is this many positions after the start of the segment.
_BYTES_AHEAD = 4 + len(XMP_PREFIX) - 8
_SEARCHED_BYTES = 1 << 16


class _Segments(NamedTuple):
    """What the segments before ``position`` say; scalars, int64 except those that begin with ``has``.

    Attributes:
        status: an index into ``STATUSES``, or PARSING.
        position: where the next segment is searched.
        width, height, components: the fields of the frame, or 0.
        exif, xmp: results of ``read_exif`` and ``read_xmp``; 0 before such a segment was read.
        has_frame, has_exif, has_xmp, has_adobe: whether there was a segment of this kind.
        has_arithmetic: whether the frame is coded arithmetically.
    """

    status: tf.Tensor
    position: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    components: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    has_frame: tf.Tensor
    has_exif: tf.Tensor
    has_xmp: tf.Tensor
    has_adobe: tf.Tensor
    has_arithmetic: tf.Tensor


def read_jpeg(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts as a JPEG."""
    zeros, flags = [int64(0)] * 5, [tf.constant(False)] * 5
    (seen,) = tf.while_loop(
        lambda seen: seen.status == PARSING,
        lambda seen: (_read_segment(file, seen),),
        (_Segments(int64(PARSING), int64(2), *zeros, *flags),),
    )
    is_arithmetic = (seen.status == OK) & seen.has_arithmetic
    status = tf.where(is_arithmetic, int64(BY_PILLOW), seen.status)
    is_inverted = (seen.components == 4) & ~seen.has_adobe
    # An edit at the end of the file that inserts nothing is no edit, see `has_edits`.
    start = tf.where(is_inverted, int64(2), file.length)
    edits = make_edits(file, (start, start, tf.where(is_inverted, ADOBE_SEGMENT, b"")))
    orientation = upright_orientation(seen.exif, seen.xmp)
    return make_header_status(
        file, status, seen.width, seen.height, orientation=orientation, edits=edits
    )


def _read_segment(file: FileBytes, seen: _Segments) -> _Segments:
    """Reads the next segment that changes the result."""
    position = _skip_irrelevant(file, seen)
    part = peek(file, position, 10)
    # After the marker, at `after`, are two bytes with the length of the segment, then its payload. The
    # payload of a frame starts with bits per sample (1 byte), height (2), width (2), components (1).
    marker, size, after = part[1], big_endian(part[2:4]), position + 2
    is_marker = (part[0] == 0xFF) & (marker != 0xFF)
    is_standalone = is_in(marker, _STANDALONE)
    is_last = is_in(marker, (_END, _SCAN))
    has_payload = is_marker & ~is_standalone & ~is_last
    is_frame = has_payload & is_in(marker, _FRAMES) & ~seen.has_frame
    is_app1 = has_payload & (marker == _APP1)
    is_exif = is_app1 & ~seen.has_exif & _payload_starts(file, after, size, EXIF_PREFIX)
    is_xmp = is_app1 & ~seen.has_xmp & _payload_starts(file, after, size, XMP_PREFIX)
    is_adobe = has_payload & (marker == _APP14) & (size >= _MIN_ADOBE_BYTES)
    is_adobe &= _payload_starts(file, after, size, _ADOBE_PREFIX)
    height, width = big_endian(part[5:7]), big_endian(part[7:9])
    has_many_scans = tf.cond(
        is_frame & (part[4] == 8),
        lambda: _has_many_scans(file, after + size, max_scans(height * width)),
        lambda: tf.constant(False),
    )
    status = first_status(
        (after > file.length, TRUNCATED),
        (~is_marker | is_standalone, PARSING),
        (is_last & seen.has_frame, OK),
        (is_last, CORRUPT),
        (after + 2 > file.length, TRUNCATED),
        (~is_frame, PARSING),
        (after + 8 > file.length, TRUNCATED),
        ((part[4] != 8) | has_many_scans, UNSUPPORTED),
        default=PARSING,
    )
    return _Segments(
        status=status,
        position=tf.cond(
            is_marker,
            lambda: tf.where(is_standalone, after, after + size),
            lambda: _next_marker(file, position),
        ),
        width=tf.where(is_frame, width, seen.width),
        height=tf.where(is_frame, height, seen.height),
        components=tf.where(is_frame, part[9], seen.components),
        exif=tf.cond(is_exif, lambda: read_exif(file, after + 2, after + size), lambda: seen.exif),
        xmp=tf.cond(is_xmp, lambda: read_xmp(file, after + 2, after + size), lambda: seen.xmp),
        has_frame=seen.has_frame | is_frame,
        has_exif=seen.has_exif | is_exif,
        has_xmp=seen.has_xmp | is_xmp,
        has_adobe=seen.has_adobe | is_adobe,
        has_arithmetic=seen.has_arithmetic | (is_frame & is_in(marker, _ARITHMETIC)),
    )


def _payload_starts(file: FileBytes, after: tf.Tensor, size: tf.Tensor, prefix: bytes) -> tf.Tensor:
    """Whether the payload of a segment starts with ``prefix``, all of it inside the file.

    ``after`` is the position after the marker, where the two bytes of the length are.
    """
    end = tf.minimum(after + size, file.length)
    return matches_at(file, after + 2, prefix) & (after + 2 + len(prefix) <= end)


def _skip_irrelevant(file: FileBytes, seen: _Segments) -> tf.Tensor:
    """The position of the next segment in a window that may change the result.

    If there is none, the position of the last segment in the window. A second frame, EXIF block, XMP
    packet or segment of Adobe does not change the result.
    """
    part = window(file, seen.position, WINDOW, _BYTES_AHEAD)
    count = tf.size(part) - _BYTES_AHEAD
    marker, size = field(part[:count], 0, 2), field(part[:count], 2, 2)
    is_marker = (marker >= 0xFF00) & (marker != 0xFFFF)
    is_standalone = (marker <= 0xFF01) | ((marker >= 0xFFD0) & (marker <= 0xFFD7))
    steps = tf.where(is_marker, tf.where(is_standalone, int64(2), 2 + size), 1)
    is_table = (marker == 0xFFC4) | (marker == 0xFFC8) | (marker == 0xFFCC)
    is_stop = (marker >= 0xFFC0) & (marker <= 0xFFCF) & ~is_table & ~seen.has_frame
    is_stop |= (marker == 0xFFD9) | (marker == 0xFFDA)
    # Compare the whole prefixes. Each stop costs a loop step, and with a shorter comparison a hostile
    # file could have many stops.
    for code, prefix, min_size, is_seen in (
        (0xFFE1, EXIF_PREFIX, 2 + len(EXIF_PREFIX), seen.has_exif),
        (0xFFE1, XMP_PREFIX, 2 + len(XMP_PREFIX), seen.has_xmp),
        (0xFFEE, _ADOBE_PREFIX, _MIN_ADOBE_BYTES, seen.has_adobe),
    ):
        has_prefix = (marker == code) & (size >= min_size) & has_text(part, 4, prefix, count)
        is_stop |= has_prefix & ~is_seen
    return seen.position + follow_chain(steps, is_stop)


def _next_marker(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """The position of the first marker from ``position`` on, after its fill bytes.

    If the next 65,536 bytes have no marker, the position after them is returned.
    """
    position = tf.minimum(position, file.length)
    part = file.data[position : position + _SEARCHED_BYTES + 1]
    is_marker = (part[:-1] == 0xFF) & (part[1:] != 0xFF)
    first = tf.argmax(tf.cast(is_marker, tf.uint8))
    return position + tf.where(tf.reduce_any(is_marker), first, tf.size(is_marker, tf.int64))


def max_scans(pixels: tf.Tensor) -> tf.Tensor:
    """``formats.jpeg.max_scans`` of each number of pixels: int64 of the shape of ``pixels``."""
    scans = int64(MAX_SCANNED_PIXELS) // tf.maximum(pixels, 1)
    return tf.clip_by_value(scans, int64(MAX_SCANS_IF_LARGE), int64(MAX_SCANS))


def _has_many_scans(file: FileBytes, position: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """Whether more than ``limit`` scans follow ``position``: a bool scalar."""
    position = tf.minimum(position, file.length)
    looks_like_scan = (file.data[position:-1] == 0xFF) & (file.data[position + 1 :] == _SCAN)
    # Some of these bytes may be inside other segments or after the image. So if there are more than
    # `limit` such places, the scans are counted exactly, which takes longer.
    return tf.cond(
        tf.math.count_nonzero(looks_like_scan) > limit,
        lambda: tf.cast(_count_scans(file, position), tf.int64) > limit,
        lambda: tf.constant(False),
    )


def _count_scans(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """The number of scans after ``position``, int32."""
    markers = _markers_after_scan(file, position)
    code, high, low = (
        tf.cast(tf.gather(file.data, markers + place), tf.int64) for place in (1, 2, 3)
    )
    is_end = (code == _END) | (markers + 4 > file.length)
    target = tf.minimum(markers + 2 + 256 * high + low, file.length)
    # A marker is followed by the first marker after its segment.
    following = tf.where(is_end, tf.range(tf.size(markers)), tf.searchsorted(markers, target))
    return sum_along_chain(following, tf.cast((code == _SCAN) & ~is_end, tf.int32))


def _markers_after_scan(file: FileBytes, position: tf.Tensor) -> tf.Tensor:
    """Positions, int64, of all markers that end a scan, then the end of the file."""
    codes = file.data[position + 1 :]
    restart = (codes >= 0xD0) & (codes <= 0xD7)
    marker = (file.data[position:-1] == 0xFF) & (codes > 1) & (codes != 0xFF) & ~restart
    return tf.concat([position + tf.where(marker)[:, 0], file.length[tf.newaxis]], 0)
