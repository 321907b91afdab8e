"""Parses the header of a BMP with TensorFlow ops, as ``images.formats.bmp`` does in Python."""

from __future__ import annotations

import tensorflow as tf

from seedtf.images.graph.file_bytes import FileBytes, as_signed, int64, is_in, little_endian, peek
from seedtf.images.graph.status import (
    BY_PILLOW,
    NOT_AN_IMAGE,
    TRUNCATED,
    UNSUPPORTED,
    HeaderStatus,
    first_status,
    make_edits,
    make_header_status,
)
from seedtf.images.kinds import BMP_HEADERS

__all__ = ["read_bmp"]

_FILE_HEADER_BYTES, _CORE_HEADER_BYTES = 14, 12


def read_bmp(file: FileBytes) -> HeaderStatus:
    """Parses a file that starts with ``BM``.

    A text can start with ``BM`` too, so the file is an image only if its header has a length of
    ``BMP_HEADERS``.
    """
    # The fields of these bytes: position of the pixels (offset), length of the header, width and height
    # (4 bytes each), planes and bits per pixel (2 bytes each), compression (4 bytes).
    head = peek(file, 10, 24)
    offset, header_bytes, width, height = (little_endian(head[at : at + 4]) for at in (0, 4, 8, 12))
    bits, compression = little_endian(head[18:20]), little_endian(head[20:])
    is_core = header_bytes == _CORE_HEADER_BYTES
    width = tf.where(is_core, little_endian(head[8:10]), as_signed(width))
    height = tf.where(is_core, little_endian(head[10:12]), tf.abs(as_signed(height)))
    needs_pillow = is_core | ~is_in(bits, (24, 32)) | (compression != 0)
    status = first_status(
        (~is_in(header_bytes, BMP_HEADERS), NOT_AN_IMAGE),
        # The last field that is read ends at byte 22 or 34 of the file.
        (file.length < tf.where(is_core, int64(22), int64(34)), TRUNCATED),
        (needs_pillow, BY_PILLOW),
        (offset < _FILE_HEADER_BYTES + header_bytes, UNSUPPORTED),
    )
    row_bytes = (bits * width + 31) // 32 * 4
    # TensorFlow decodes a BMP only if it ends with the pixels, so the bytes after them are cut off.
    end = tf.clip_by_value(offset + row_bytes * height, 0, file.length)
    return make_header_status(
        file, status, width, height, edits=make_edits(file, (end, file.length, b""))
    )
