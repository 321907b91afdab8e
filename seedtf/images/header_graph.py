"""``images.header.read_header`` with TensorFlow ops, so that an exported graph checks files itself.

The graph and ``read_header`` give the same result for every file; a test compares them on intact,
damaged and hostile files. The one exception is a file of a kind or variant that only Pillow decodes.
The graph reports such a file as an unsupported variant, even if the file is damaged.

The functions here and in ``images.graph`` call ``tf.cond`` and ``tf.while_loop`` themselves. They do
not use AutoGraph, which takes longer to translate a function than TensorFlow takes to trace it.
"""

from __future__ import annotations

import tensorflow as tf

from seedtf.compat.tensorflow import DECODES_WEBP
from seedtf.images.graph.bmp import read_bmp
from seedtf.images.graph.file_bytes import FileBytes, int64, is_in, matches_at, open_bytes, peek
from seedtf.images.graph.gif import read_gif
from seedtf.images.graph.jpeg import read_jpeg
from seedtf.images.graph.plain_jpeg import read_plain_jpegs
from seedtf.images.graph.png import read_png
from seedtf.images.graph.status import (
    BY_PILLOW,
    CORRUPT,
    EMPTY,
    MAX_EDITS,
    NOT_AN_IMAGE,
    OK,
    STATUSES,
    TOO_LARGE,
    UNSUPPORTED,
    Edits,
    HeaderStatus,
    apply_edits,
    first_status,
    has_edits,
    make_header_status,
)
from seedtf.images.graph.webp import read_webp
from seedtf.images.header import MAX_PIXELS
from seedtf.images.kinds import OTHER_MAGIC, PILLOW_BRANDS

__all__ = [
    "STATUSES",
    "Edits",
    "HeaderStatus",
    "apply_edits",
    "has_edits",
    "parse_header_graph",
    "parse_headers_graph",
]

_SCALAR = tf.TensorSpec([], tf.int64)
_EDITS = Edits(tf.TensorSpec([MAX_EDITS, 2], tf.int64), tf.TensorSpec([MAX_EDITS], tf.string))
_HEADER = HeaderStatus(_SCALAR, _SCALAR, _SCALAR, _SCALAR, tf.TensorSpec([], tf.bool), _EDITS)


def parse_headers_graph(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> HeaderStatus:
    """Parses the headers of many files, string ``[B]``; each field of the result is ``[B, …]``.

    The fields are those of ``parse_header_graph`` for each file. Plain JPEGs are parsed together,
    because this takes less time than one file after another.
    """
    limit = tf.constant(max_pixels, tf.int64)
    plain = read_plain_jpegs(contents)
    pixels = plain.width * plain.height
    is_plain = plain.is_plain & (pixels >= 1) & (pixels <= limit)
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    # These edits change nothing: each replaces no bytes, at the end of the file, by an empty text.
    spans = tf.tile(length[:, tf.newaxis, tf.newaxis], [1, MAX_EDITS, 2])
    texts = tf.fill(tf.stack([tf.size(contents), MAX_EDITS]), b"")
    headers = HeaderStatus(
        status=tf.zeros_like(length),
        width=plain.width,
        height=plain.height,
        orientation=tf.ones_like(length),
        has_alpha=tf.zeros_like(is_plain),
        edits=Edits(spans, texts),
    )

    def parse_others() -> HeaderStatus:
        rows = tf.where(~is_plain)
        others = tf.map_fn(
            lambda row: parse_header_graph(contents[row], limit),
            rows[:, 0],
            fn_output_signature=_HEADER,
        )
        return tf.nest.map_structure(
            lambda values, new: tf.tensor_scatter_nd_update(values, rows, new), headers, others
        )

    return tf.cond(tf.reduce_all(is_plain), lambda: headers, parse_others)


@tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
    # Inlining would copy the thousands of operations of this function into the graph of the caller,
    # where they would take time even in a request that does not need them.
    experimental_attributes={"_noinline": True},
)
def parse_header_graph(
    contents: tf.Tensor, max_pixels: tf.Tensor | int = MAX_PIXELS
) -> HeaderStatus:
    """Parses the header of one encoded file, a string scalar, as ``images.header.read_header`` does.

    If the status is ``OK``, decode ``apply_edits(contents, header.edits)``.
    """
    file = open_bytes(contents)
    # The empty last start matches every file, so `_read_other` gets the files of all other kinds.
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
    """Parses a WebP; if this version of TensorFlow cannot decode WebP, the status is ``BY_PILLOW``."""
    header = read_webp(file)
    if DECODES_WEBP:
        return header
    status = tf.where(header.status == OK, int64(BY_PILLOW), header.status)
    return HeaderStatus(status, *header[1:])


def _read_other(file: FileBytes) -> HeaderStatus:
    """The header status of an image of a kind that TensorFlow cannot decode, or of no image."""
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
    return make_header_status(file, status, int64(0), int64(0))
