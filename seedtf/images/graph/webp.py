"""Parses the chunks of a WebP with TensorFlow ops, as ``images.formats.webp`` does in Python."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from seedtf.images.graph.chains import WINDOW, follow_chain
from seedtf.images.graph.file_bytes import (
    FileBytes,
    field,
    int64,
    is_in,
    little_endian,
    little_endian_bytes,
    matches_at,
    peek,
    text_between,
    window,
)
from seedtf.images.graph.orientation import read_exif, read_xmp, upright_orientation
from seedtf.images.graph.status import (
    BY_PILLOW,
    CORRUPT,
    NOT_AN_IMAGE,
    TRUNCATED,
    UNSUPPORTED,
    HeaderStatus,
    first_status,
    make_edits,
    make_header_status,
)

__all__ = ["read_webp"]

# Flags of the chunk VP8X.
_ANIMATION, _XMP, _EXIF, _ALPHA = 0x02, 0x04, 0x08, 0x10
_FRAME_HEADER_BYTES = 16


def _to_code(name: bytes) -> int:
    return int.from_bytes(name, "little")


_LOSSY, _LOSSLESS, _EXTENDED = _to_code(b"VP8 "), _to_code(b"VP8L"), _to_code(b"VP8X")
_ALPHA_PLANE, _FRAME = _to_code(b"ALPH"), _to_code(b"ANMF")
_EXIF_CHUNK, _XMP_CHUNK = _to_code(b"EXIF"), _to_code(b"XMP ")
_IMAGES = (_LOSSY, _LOSSLESS, _ALPHA_PLANE, _FRAME)


def read_webp(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts with ``RIFF``."""
    head = peek(file, 8, 22)
    kind, flags = little_endian(head[4:8]), head[12]
    is_extended, is_lossless = kind == _EXTENDED, kind == _LOSSLESS
    # Width and height, if the first chunk is VP8X, VP8L or VP8.
    canvas = little_endian(head[16:19]) + 1, little_endian(head[19:22]) + 1
    packed = little_endian(head[13:17])
    lossless = packed % 0x4000 + 1, packed // 0x4000 % 0x4000 + 1
    lossy = little_endian(head[18:20]) % 0x4000, little_endian(head[20:22]) % 0x4000
    width, height = (
        tf.where(is_extended, canvas[i], tf.where(is_lossless, lossless[i], lossy[i]))
        for i in (0, 1)
    )
    # Without a chunk VP8X there are no flags, so the search looks for the image only.
    found = _find_chunks(file, tf.where(is_extended, flags, 0))
    image, image_kind = found.image, found.image_kind
    is_animated = is_extended & _has_flag(flags, _ANIMATION)
    # In an animation, the image is a frame, which has a header and then the chunk with the pixels.
    frame = peek(file, image, _FRAME_HEADER_BYTES + 4)
    payload = tf.where(is_animated, image + _FRAME_HEADER_BYTES + 8, image)
    image_code = tf.where(is_animated, little_endian(frame[_FRAME_HEADER_BYTES:]), image_kind)
    has_alpha_plane = is_extended & (image_code == _ALPHA_PLANE)
    has_alpha_flag = is_extended & _has_flag(flags, _ALPHA)
    # A lossless image (VP8L) has a transparency bit of its own.
    has_lossless_bit = peek(file, payload + 4, 1)[0] // 16 % 2 == 1
    has_plane_or_flag = tf.where(is_animated, has_alpha_plane, has_alpha_flag)
    has_alpha = tf.where(image_code == _LOSSLESS, has_lossless_bit, has_plane_or_flag)

    length = little_endian(peek(file, image - 4, 4))
    end, first = image + length, image + _FRAME_HEADER_BYTES
    has_size = (little_endian(frame[6:9]) + 1 == width) & (little_endian(frame[9:12]) + 1 == height)
    is_whole = (little_endian(frame[:6]) == 0) & has_size
    status = first_status(
        (~matches_at(file, 8, b"WEBP"), NOT_AN_IMAGE),
        (~is_extended & ~is_lossless & (kind != _LOSSY), CORRUPT),
        # The last field that is read ends at byte 25 or 30 of the file.
        (file.length < tf.where(is_lossless, int64(25), int64(30)), TRUNCATED),
        (is_animated & (image_kind != _FRAME), CORRUPT),
        (is_animated & ((end > file.length) | (length < _FRAME_HEADER_BYTES + 8)), TRUNCATED),
        (is_animated & ~is_whole, BY_PILLOW),
        (has_alpha_plane & ~has_alpha_flag, UNSUPPORTED),
    )
    # The first frame of an animation becomes a still image. In front of its chunks are "WEBP" (4 bytes)
    # and a chunk VP8X (18 bytes), which together are the 22 bytes below.
    first_flags = tf.where(has_alpha, bytes([_ALPHA, 0, 0, 0]), bytes(4))
    size = text_between(file, int64(24), int64(30))
    riff = [b"RIFF", little_endian_bytes(22 + end - first, 4), b"WEBPVP8X", bytes([10, 0, 0, 0])]
    still = tf.where(is_animated, tf.strings.join([*riff, first_flags, size]), b"")
    end = tf.where(is_animated, tf.minimum(end, file.length), file.length)
    first = tf.where(is_animated, tf.minimum(first, end), file.length)
    start = tf.where(is_animated, int64(0), file.length)
    edits = make_edits(file, (start, first, still), (end, file.length, b""))
    return make_header_status(
        file,
        status,
        width,
        height,
        orientation=upright_orientation(found.exif, found.xmp),
        has_alpha=has_alpha,
        edits=edits,
    )


class _Chunks(NamedTuple):
    """What the chunks before ``position`` say; scalars, int64 except the last two.

    Attributes:
        position: where the next chunk is searched.
        image, image_kind: the position of the payload of the first image or frame, and the kind of its
            chunk; 0 if there was none.
        exif, xmp: the orientations in EXIF and in XMP; 0 if missing.
        wants_exif, wants_xmp: bool, whether a flag announces a chunk with EXIF or XMP that was not
            found yet.
    """

    position: tf.Tensor
    image: tf.Tensor
    image_kind: tf.Tensor
    exif: tf.Tensor
    xmp: tf.Tensor
    wants_exif: tf.Tensor
    wants_xmp: tf.Tensor


def _find_chunks(file: FileBytes, flags: tf.Tensor) -> _Chunks:
    """Looks for the first image or frame, and for EXIF and XMP if ``flags`` announce them."""
    end = tf.minimum(file.length, 8 + little_endian(peek(file, 4, 4)))
    zero, wanted = int64(0), (_has_flag(flags, _EXIF), _has_flag(flags, _XMP))
    (found,) = tf.while_loop(
        lambda seen: seen.position + 8 <= end,
        lambda seen: (_read_chunk(file, seen, end),),
        (_Chunks(int64(12), zero, zero, zero, zero, *wanted),),
    )
    return found


def _read_chunk(file: FileBytes, seen: _Chunks, end: tf.Tensor) -> _Chunks:
    """Reads the next chunk that may change the result; the last chunk ends at ``end``."""
    part = window(file, seen.position, WINDOW)
    kind, size = (
        little_endian([field(part, at, 1) for at in range(first, first + 4)]) for first in (0, 4)
    )
    is_image = tf.reduce_any([kind == code for code in _IMAGES], 0)
    is_stop = is_image & (seen.image == 0)
    is_stop |= (kind == _EXIF_CHUNK) & seen.wants_exif
    is_stop |= (kind == _XMP_CHUNK) & seen.wants_xmp
    position = seen.position + follow_chain(8 + size + size % 2, is_stop)
    head = peek(file, position, 8)
    code, length, start = little_endian(head[:4]), little_endian(head[4:]), position + 8
    is_inside = start <= end
    is_exif = is_inside & seen.wants_exif & (code == _EXIF_CHUNK)
    is_xmp = is_inside & seen.wants_xmp & (code == _XMP_CHUNK)
    is_first = is_inside & (seen.image == 0) & is_in(code, _IMAGES)
    return _Chunks(
        position=start + length + length % 2,
        image=tf.where(is_first, start, seen.image),
        image_kind=tf.where(is_first, code, seen.image_kind),
        exif=tf.cond(is_exif, lambda: read_exif(file, start, start + length), lambda: seen.exif),
        xmp=tf.cond(is_xmp, lambda: read_xmp(file, start, start + length), lambda: seen.xmp),
        wants_exif=seen.wants_exif & ~is_exif,
        wants_xmp=seen.wants_xmp & ~is_xmp,
    )


def _has_flag(flags: tf.Tensor, flag: int) -> tf.Tensor:
    return flags // flag % 2 == 1
