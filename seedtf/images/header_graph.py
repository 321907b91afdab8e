"""``images.header.read_header`` with TensorFlow ops, so that an exported graph checks files itself.

Both give the same result for every file; a test compares them on whole, damaged and hostile files.
The one exception is a file that only Pillow can decode: the graph calls it an unsupported variant.
AutoGraph converts the functions, here and in ``images.graph``, so ``if`` and ``while`` on tensors
become graph ops. It does not convert those with ``without_autograph``, which saves time.
"""

from __future__ import annotations

import tensorflow as tf

from seedtf.compat.tensorflow import DECODES_WEBP
from seedtf.images.graph.bmp import read_bmp
from seedtf.images.graph.file_bytes import FileBytes, int64, is_in, matches_at, open_bytes, peek
from seedtf.images.graph.gif import read_gif
from seedtf.images.graph.jpeg import read_jpeg
from seedtf.images.graph.png import read_png
from seedtf.images.graph.status import (
    BY_PILLOW,
    CORRUPT,
    EMPTY,
    NOT_AN_IMAGE,
    OK,
    STATUSES,
    TOO_LARGE,
    UNSUPPORTED,
    Edits,
    HeaderStatus,
    apply_edits,
    first_status,
    parsed,
)
from seedtf.images.graph.webp import read_webp
from seedtf.images.header import MAX_PIXELS
from seedtf.images.kinds import OTHER_MAGIC, PILLOW_BRANDS

__all__ = ["STATUSES", "Edits", "HeaderStatus", "apply_edits", "parse_header_graph"]


@tf.function(
    autograph=True,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
)
def parse_header_graph(
    contents: tf.Tensor, max_pixels: tf.Tensor | int = MAX_PIXELS
) -> HeaderStatus:
    """Parses the header of one encoded file, a string scalar, as ``images.header.read_header`` does.

    If the status is ``OK``, decode ``apply_edits(contents, header.edits)``.
    """
    file = open_bytes(contents)
    # The empty start matches every file, so that `_read_other` gets the files of all other kinds.
    starts = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF", b""]
    matches = tf.stack([matches_at(file, 0, start) for start in starts])
    reader = tf.argmax(tf.cast(matches, tf.uint8), output_type=tf.int32)
    readers = [
        lambda: read_jpeg(file),
        lambda: read_png(file),
        lambda: read_gif(file),
        lambda: read_bmp(file),
        lambda: _read_webp(file),
        lambda: _read_other(file),
    ]
    header = tf.switch_case(reader, readers)
    # Multiply in float64, because the product of two sides may have more than 63 bits.
    pixels = tf.cast(header.width, tf.float64) * tf.cast(header.height, tf.float64)
    needs_pillow = header.status == BY_PILLOW
    is_parsed = (header.status == OK) | needs_pillow
    status = first_status(
        (is_parsed & ((header.width < 1) | (header.height < 1)), CORRUPT),
        (is_parsed & (pixels > tf.cast(max_pixels, tf.float64)), TOO_LARGE),
        (needs_pillow, UNSUPPORTED),
    )
    status = tf.where(is_parsed, status, header.status)
    # The edits of a refused file may lie outside it, so they are replaced by edits that change nothing.
    is_ok = status == OK
    spans, texts = header.edits
    edits = Edits(tf.where(is_ok, spans, file.length), tf.where(is_ok, texts, b""))
    size = (header.width, header.height)
    return HeaderStatus(status, *size, header.orientation, header.has_alpha, edits)


def _read_webp(file: FileBytes) -> HeaderStatus:
    """Parses a WebP, and refuses it if this TensorFlow cannot decode it."""
    header = read_webp(file)
    if DECODES_WEBP:
        return header
    status = tf.where(header.status == OK, int64(BY_PILLOW), header.status)
    return HeaderStatus(status, *header[1:])


def _read_other(file: FileBytes) -> HeaderStatus:
    """The status of a file of another kind: an image that TensorFlow cannot decode, or no image."""
    is_brand = tf.reduce_any([matches_at(file, 8, brand) for brand in PILLOW_BRANDS])
    start = peek(file, 0, 4)
    is_pnm = (start[0] == ord("P")) & is_in(start[1], tuple(b"56"))
    is_pnm &= is_in(start[2], tuple(b"\t\n\v\f\r ")) & is_in(start[3], tuple(b"0123456789#"))
    is_known = tf.reduce_any([matches_at(file, 0, magic) for magic in OTHER_MAGIC])
    status = first_status(
        (file.length == 0, EMPTY),
        (is_known | is_pnm | (matches_at(file, 4, b"ftyp") & is_brand), UNSUPPORTED),
        default=NOT_AN_IMAGE,
    )
    return parsed(file, status, int64(0), int64(0))
