"""The result of parsing a header in a graph: a status, the fields of ``Header``, and its edits."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from seedtf.images.graph.file_bytes import FileBytes, int64

__all__ = [
    "BY_PILLOW",
    "CORRUPT",
    "EMPTY",
    "MAX_EDITS",
    "NOT_AN_IMAGE",
    "OK",
    "PARSING",
    "STATUSES",
    "TOO_LARGE",
    "TRUNCATED",
    "UNSUPPORTED",
    "Edits",
    "HeaderStatus",
    "apply_edits",
    "first_status",
    "has_edits",
    "make_edits",
    "make_header_status",
]

STATUSES = (
    "ok",
    "empty file",
    "not an image",
    "truncated",
    "too large",
    "unsupported variant",
    "corrupt",
)
"""Names of the statuses; all but ``ok`` are also faults in a run's data_report.csv."""

OK, EMPTY, NOT_AN_IMAGE, TRUNCATED, TOO_LARGE, UNSUPPORTED, CORRUPT = range(len(STATUSES))
PARSING = -1
"""The status of a header that is still being parsed."""

BY_PILLOW = len(STATUSES)
"""The status of a complete header of a file that only Pillow decodes; ``header_graph`` replaces this
status by UNSUPPORTED."""

MAX_EDITS = 4
"""The largest number of edits of one file."""


class Edits(NamedTuple):
    """``Header.edits`` as tensors, filled up to ``MAX_EDITS`` with edits that change nothing.

    Attributes:
        spans: int64 ``[MAX_EDITS, 2]``, start and stop of the bytes that each edit replaces.
        texts: string ``[MAX_EDITS]``, the replacements.
    """

    spans: tf.Tensor
    texts: tf.Tensor


class HeaderStatus(NamedTuple):
    """A parsed header: scalars, int64 except ``has_alpha`` (bool), and the edits.

    ``parse_headers_graph`` returns the headers of B files in one ``HeaderStatus``, whose tensors have
    an additional first axis of length B.

    ``status`` is an index into ``STATUSES``, or ``BY_PILLOW`` before ``header_graph`` replaces it. The
    other fields are those of ``images.header.Header``. They are meaningful only if the status is
    ``OK``, except that width and height are meaningful with ``BY_PILLOW`` too.
    """

    status: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    orientation: tf.Tensor
    has_alpha: tf.Tensor
    edits: Edits

    @property
    def for_decoder(self) -> tf.Tensor:
        """Width, height, orientation and has_alpha: int32 ``[4]``, or ``[B, 4]`` for many headers."""
        values = [self.width, self.height, self.orientation, tf.cast(self.has_alpha, tf.int64)]
        return tf.cast(tf.stack(values, axis=-1), tf.int32)


def make_header_status(
    file: FileBytes,
    status: tf.Tensor,
    width: tf.Tensor,
    height: tf.Tensor,
    *,
    orientation: tf.Tensor | int = 1,
    has_alpha: tf.Tensor | bool = False,
    edits: Edits | None = None,
) -> HeaderStatus:
    """Makes a ``HeaderStatus``, by default upright, opaque and without edits."""
    orientation = tf.cast(orientation, tf.int64)
    edits = edits or make_edits(file)
    return HeaderStatus(
        tf.cast(status, tf.int64), width, height, orientation, tf.cast(has_alpha, tf.bool), edits
    )


def first_status(*cases: tuple[tf.Tensor, int], default: int = OK) -> tf.Tensor:
    """The status, int64, of the first case ``(condition, status)`` whose condition is true.

    If no condition is true, the status is ``default``.
    """
    status = int64(default)
    for condition, value in reversed(cases):
        status = tf.where(condition, int64(value), status)
    return status


def make_edits(file: FileBytes, *edits: tuple[tf.Tensor, tf.Tensor, tf.Tensor | bytes]) -> Edits:
    """Converts up to ``MAX_EDITS`` sorted edits ``(start, stop, replacement)`` to ``Edits``."""
    end = file.length
    filled = [*edits, *[(end, end, b"")] * (MAX_EDITS - len(edits))]
    spans = [
        tf.stack([tf.cast(start, tf.int64), tf.cast(stop, tf.int64)]) for start, stop, _ in filled
    ]
    return Edits(tf.stack(spans), tf.stack([tf.convert_to_tensor(text) for *_, text in filled]))


def apply_edits(contents: tf.Tensor, edits: Edits) -> tf.Tensor:
    """Returns ``contents``, a string scalar, with ``edits`` applied; unchanged if there are none."""
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)

    def replace_parts() -> tf.Tensor:
        parts, position = [], tf.constant(0, tf.int64)
        for edit in range(MAX_EDITS):
            start, stop = tf.unstack(edits.spans[edit])
            parts += [tf.strings.substr(contents, position, start - position), edits.texts[edit]]
            position = stop
        rest = tf.strings.substr(contents, position, length - position)
        return tf.strings.join([*parts, rest])

    return tf.cond(has_edits(contents, edits), replace_parts, lambda: contents)


def has_edits(contents: tf.Tensor, edits: Edits) -> tf.Tensor:
    """Whether ``edits`` change ``contents``: a bool for one file, bool ``[B]`` for string ``[B]``."""
    length = tf.cast(tf.strings.length(contents, "BYTE"), tf.int64)
    has_spans = tf.reduce_any(edits.spans != length[..., tf.newaxis, tf.newaxis], [-2, -1])
    return has_spans | tf.reduce_any(edits.texts != b"", -1)
