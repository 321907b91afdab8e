"""Parses the header of a binary PGM or PPM (Netpbm, P5 and P6)."""

from __future__ import annotations

import re

from seedtf.images.formats.base import Header, RefusedError

__all__ = ["read_pnm"]

_SPACE = rb"(?:[\t-\r ]|#[^\n\r]*[\n\r])+"
_HEADER = re.compile(
    rb"P([56])" + _SPACE + rb"(\d{1,10})" + _SPACE + rb"(\d{1,10})" + _SPACE + rb"(\d{1,5})[\t-\r ]"
)
# The header must end within this many bytes. Without the limit, a hostile file with long comments could
# make the search take long.
_SEARCHED_BYTES = 4096


def read_pnm(data: bytes) -> Header:
    """Parses a file that starts as a binary PGM or PPM.

    Samples of 8 bits are accepted, and grey samples of 16 bits. Samples with another range are refused,
    because Pillow converts each of them in Python, which takes a second for each megapixel.

    Raises:
        RefusedError: the header is damaged, the samples have another range, or the file is too short.
    """
    match = _HEADER.match(data[:_SEARCHED_BYTES])
    if match is None:
        raise RefusedError("corrupt", "PGM or PPM with a damaged header")
    kind, width, height, largest = (int(group) for group in match.groups())
    channels = 3 if kind == 6 else 1
    if largest != 255 and (largest != 65535 or channels == 3):
        raise RefusedError(
            "unsupported variant", f"PGM or PPM of samples up to {largest}; save it as PNG"
        )
    samples = width * height * channels
    if len(data) - match.end() < samples * (2 if largest > 255 else 1):
        raise RefusedError("truncated", f"PGM or PPM with fewer than {samples} samples")
    return Header("pnm", width, height, needs_pillow=True)
