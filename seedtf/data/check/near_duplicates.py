"""Images that look alike though their bytes differ: resized, re-encoded, barely edited copies.

Two images must agree in a 64-bit difference hash (N. Krawetz, "Kind of like that", 2013) and in a
small colour thumbnail: to miss a pair is better than to accuse two different images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["FINGERPRINT_SIZE", "THUMBNAIL", "find_lookalikes", "fingerprint"]

FINGERPRINT_SIZE = 72
"""Side in pixels of the squares that ``fingerprint`` takes: 8 rows of 9 blocks fit in exactly."""

THUMBNAIL = (12, 12, 3)
"""Shape of a thumbnail."""

_MOST_BITS = 6
# of 255; measured: half-size copies at JPEG quality 60 stay below 3.5, different images of one
# series (seedlings on the same gravel) are above 8
_MOST_DIFFERENCE = 4.0
# a hash of an image without structure is noise
_LEAST_CONTRAST = 4.0
_BANDS = 4
_BAND_BITS = 16
_NEIGHBOURS = 32


def fingerprint(image: np.ndarray) -> tuple[np.uint64, np.ndarray]:
    """The hash and the thumbnail of one image.

    Args:
        image: uint8 ``[72, 72, 3]``, the whole image squeezed into a square.

    Returns:
        The difference hash: for 8 rows of 9 blocks, whether each is brighter than its left neighbour;
        and the thumbnail, uint8 ``[12, 12, 3]``.
    """
    blocks = image.mean(-1).reshape(8, 9, 9, 8).mean((1, 3))
    bits = blocks[:, 1:] > blocks[:, :-1]
    thumbnail = image.reshape(12, 6, 12, 6, 3).mean((1, 3)).round().astype(np.uint8)
    return np.packbits(bits).view(np.uint64)[0], thumbnail


def find_lookalikes(hashes: np.ndarray, thumbnails: np.ndarray) -> dict[int, int]:
    """Images with a lookalike before them in the list, and the first such.

    Each hash is cut into four bands; hashes that differ in up to three bits agree in one band at
    least, those that differ in up to six mostly do. So the list is sorted by each band in turn and
    every image compared with the next few of the same band: the work grows as N log N.

    Args:
        hashes: uint64 ``[N]`` from ``fingerprint``.
        thumbnails: uint8 ``[N, 12, 12, 3]``.
    """
    contrast = thumbnails.reshape(len(thumbnails), -1, 3).std(1).max(-1, initial=0)
    usable = np.flatnonzero(contrast >= _LEAST_CONTRAST)
    found: dict[int, int] = {}
    for pairs in _candidates(hashes[usable]):
        first, second = np.sort(usable[pairs], axis=0)
        difference = np.abs(thumbnails[first].astype(np.int16) - thumbnails[second])
        alike = difference.mean((1, 2, 3)) <= _MOST_DIFFERENCE
        for one, two in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
            found[two] = min(one, found.get(two, two))
    return found


def _candidates(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of positions, int64 ``[2, n]``, whose hashes differ in few bits."""
    for band in range(_BANDS):
        shift = np.uint64(_BAND_BITS * band)
        # the band comes to the top, the rest of the hash sorts those that agree in it
        turned = (hashes << shift) | (hashes >> (np.uint64(64) - shift)) if band else hashes
        order = np.argsort(turned, kind="stable")
        keys = turned[order]
        for step in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
            differing = keys[step:] ^ keys[:-step]
            at = np.flatnonzero(differing >> np.uint64(64 - _BAND_BITS) == 0)
            bits = np.unpackbits(differing[at].view(np.uint8).reshape(-1, 8), axis=1).sum(1)
            at = at[bits <= _MOST_BITS]
            yield np.stack([order[at], order[at + step]])
