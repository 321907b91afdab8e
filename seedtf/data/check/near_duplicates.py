"""Finds images that look alike although their bytes differ: resized, re-encoded or edited copies.

Two images must agree in a 64-bit difference hash (N. Krawetz, "Kind of like that", 2013) and in a
small colour thumbnail. The thresholds prefer to miss a pair over reporting two different images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["FINGERPRINT_SIZE", "THUMBNAIL", "find_near_duplicates", "fingerprint"]

FINGERPRINT_SIZE = 72
"""Side in pixels of the images that ``fingerprint`` takes; a multiple of both 8 and 9."""

THUMBNAIL = (12, 12, 3)
"""Shape of a thumbnail."""

_MAX_BITS = 6
# Mean absolute difference of two thumbnails, of 255. Measured: half-size copies at JPEG quality 60
# stay below 3.5; different images of one series (seedlings on the same gravel) are above 8.
_MAX_DIFFERENCE = 4.0
# Standard deviation of a thumbnail, of 255: the hash of an image without structure is noise.
_MIN_CONTRAST = 4.0
_BANDS = 4
_BAND_BITS = 16
_NEIGHBOURS = 32


def fingerprint(image: np.ndarray) -> tuple[np.uint64, np.ndarray]:
    """Computes the difference hash and the thumbnail of one image.

    Args:
        image: uint8 ``[72, 72, 3]``, the whole image resized to a square.

    Returns:
        The hash, one bit for each of 8 × 8 blocks: whether the block is brighter than its left
        neighbour; and the thumbnail, uint8 ``[12, 12, 3]``.

    Example:
        >>> gradient = np.arange(72, dtype=np.uint8)[None, :, None].repeat(72, 0).repeat(3, 2)
        >>> bits, thumbnail = fingerprint(gradient)
        >>> hex(bits), thumbnail.shape
        ('0xffffffffffffffff', (12, 12, 3))
    """
    blocks = image.mean(-1).reshape(8, 9, 9, 8).mean((1, 3))
    bits = blocks[:, 1:] > blocks[:, :-1]
    thumbnail = image.reshape(12, 6, 12, 6, 3).mean((1, 3)).round().astype(np.uint8)
    return np.packbits(bits).view(np.uint64)[0], thumbnail


def find_near_duplicates(hashes: np.ndarray, thumbnails: np.ndarray) -> dict[int, int]:
    """Finds the images that look like an earlier one.

    Each hash is split into four bands. Hashes that differ in at most three bits agree in at least
    one band; most of those that differ in up to six do so too. The list is therefore sorted by each
    band, and each image is compared with the next few of the same band: O(N log N).

    Args:
        hashes: uint64 ``[N]`` from ``fingerprint``.
        thumbnails: uint8 ``[N, 12, 12, 3]``.

    Returns:
        For the index of each such image the smallest index of an image that it looks like.
    """
    contrast = thumbnails.reshape(len(thumbnails), -1, 3).std(1).max(-1, initial=0)
    usable = np.flatnonzero(contrast >= _MIN_CONTRAST)
    duplicates: dict[int, int] = {}
    for pairs in _candidates(hashes[usable]):
        first, second = np.sort(usable[pairs], axis=0)
        difference = np.abs(thumbnails[first].astype(np.int16) - thumbnails[second])
        alike = difference.mean((1, 2, 3)) <= _MAX_DIFFERENCE
        for earlier, later in zip(first[alike].tolist(), second[alike].tolist(), strict=True):
            duplicates[later] = min(earlier, duplicates.get(later, later))
    return duplicates


def _candidates(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields pairs of positions, int64 ``[2, n]``, whose hashes differ in few bits."""
    for band in range(_BANDS):
        shift = np.uint64(_BAND_BITS * band)
        # Rotate the band to the top bits; the other bits then order the hashes that agree in it.
        rotated = (hashes << shift) | (hashes >> (np.uint64(64) - shift)) if band else hashes
        order = np.argsort(rotated, kind="stable")
        keys = rotated[order]
        for step in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
            differing = keys[step:] ^ keys[:-step]
            at = np.flatnonzero(differing >> np.uint64(64 - _BAND_BITS) == 0)
            bits = np.unpackbits(differing[at].view(np.uint8).reshape(-1, 8), axis=1).sum(1)
            at = at[bits <= _MAX_BITS]
            yield np.stack([order[at], order[at + step]])
