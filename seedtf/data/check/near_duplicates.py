"""Finds images that look alike although their bytes differ: resized, edited or rotated copies.

Two images look alike if their 64-bit difference hashes (N. Krawetz, "Kind of like that", 2013) and
their small colour thumbnails are nearly the same. The images are compared as they are, and also after
each was rotated and mirrored so that its bright side is on the right. The thresholds are strict: it is
better to miss a pair than to report two different images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = [
    "FINGERPRINT_SIZE",
    "NUM_VIEWS",
    "THUMBNAIL_SHAPE",
    "find_near_duplicates",
    "fingerprint",
    "near_duplicate_pairs",
]

FINGERPRINT_SIZE = 72
"""Side in pixels of the images that ``fingerprint`` takes; a multiple of 8, 9 and 12."""

THUMBNAIL_SHAPE = (12, 12, 3)
"""Height, width and channels of a thumbnail."""

NUM_VIEWS = 2
"""How many views of an image are compared: the image as it is, and the result of ``_turn``."""

# The largest number of bits in which the hashes of two images that look alike may differ.
_MAX_BITS = 6
# The largest mean absolute difference, of 255, between the thumbnails of two images that look alike.
# Measured: below 3.5 for half-size copies at JPEG quality 60, above 8 for different images of a series
# (seedlings on the same gravel).
_MAX_DIFFERENCE = 4.0
# Images are not compared if the standard deviation of each channel of their thumbnail is below this
# value (of 255), because the hash of an image without structure is noise.
_MIN_CONTRAST = 4.0
# A hash is divided into four bands of 16 bits, see ``near_duplicate_pairs``.
_BANDS = 4
_BAND_BITS = 16
# When the images are sorted by a band, each is compared with at most this many of the next images.
_NEIGHBOURS = 32


def fingerprint(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the difference hash and the thumbnail of both views of each image.

    Args:
        images: uint8 ``[..., 72, 72, 3]``, whole images resized to a square.

    Returns:
        The hashes, uint64 ``[..., 2]``, and the thumbnails, uint8 ``[..., 2, 12, 12, 3]``. A hash has
        one bit for each of 8 × 8 pairs of neighbouring blocks: whether the right one is brighter.

    Example:
        >>> gradient = np.arange(72, dtype=np.uint8)[None, :, None].repeat(72, 0).repeat(3, 2)
        >>> bits, thumbnails = fingerprint(gradient)
        >>> hex(bits[0]), thumbnails.shape
        ('0xffffffffffffffff', (2, 12, 12, 3))
        >>> mirrored_bits, _ = fingerprint(gradient[:, ::-1])
        >>> bool(mirrored_bits[0] == bits[0]), bool(mirrored_bits[1] == bits[1])
        (False, True)
    """
    batch = images.shape[:-3]
    views = np.stack([images, _turn(images)], axis=-4)
    grey = views.mean(-1, dtype=np.float32)
    blocks = grey.reshape(*batch, NUM_VIEWS, 8, 9, 9, 8).mean((-3, -1))
    bits = blocks[..., 1:] > blocks[..., :-1]
    packed = np.packbits(bits.reshape(*batch, NUM_VIEWS, 64), axis=-1)
    means = views.reshape(*batch, NUM_VIEWS, 12, 6, 12, 6, 3).mean((-4, -2), dtype=np.float32)
    return packed.view(np.uint64)[..., 0], means.round().astype(np.uint8)


def find_near_duplicates(hashes: np.ndarray, thumbnails: np.ndarray) -> dict[int, int]:
    """Maps the index of each image that looks like earlier images to the index of the first of these.

    The arguments are those of ``near_duplicate_pairs``.
    """
    duplicates: dict[int, int] = {}
    for earlier, later in near_duplicate_pairs(hashes, thumbnails).tolist():
        duplicates[later] = min(earlier, duplicates.get(later, later))
    return duplicates


def near_duplicate_pairs(hashes: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Finds the pairs of images that look alike.

    Each hash is divided into four bands. Two hashes that differ in at most three bits have at least one
    equal band, and so have most hashes that differ in up to six bits. The hashes are therefore sorted
    by each band, and each image is compared with the next 32 images if they have the same band. This
    takes O(N log N) time.

    Args:
        hashes: uint64 ``[N, 2]`` from ``fingerprint``.
        thumbnails: uint8 ``[N, 2, 12, 12, 3]``.

    Returns:
        int64 ``[P, 2]``, sorted: each pair once, with the smaller index first.
    """
    found = [np.empty((0, 2), np.int64)]
    for view in range(NUM_VIEWS):
        found += _pairs_in_view(hashes[:, view], thumbnails[:, view])
    return np.unique(np.concatenate(found), axis=0)


def _pairs_in_view(hashes: np.ndarray, thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    contrast = thumbnails.reshape(len(thumbnails), -1, 3).std(1).max(-1, initial=0)
    usable = np.flatnonzero(contrast >= _MIN_CONTRAST)
    for pairs in _candidates(hashes[usable]):
        first, second = np.sort(usable[pairs], axis=0)
        difference = np.abs(thumbnails[first].astype(np.int16) - thumbnails[second])
        alike = difference.mean((1, 2, 3)) <= _MAX_DIFFERENCE
        yield np.stack([first[alike], second[alike]], axis=1)


def _turn(images: np.ndarray) -> np.ndarray:
    """The images, each mirrored and transposed so that its right and its lower half are brighter.

    Each image then differs more between left and right than between top and bottom. The eight
    rotations and reflections of an image give the same result, unless two of its sides are equally
    bright. Rotated copies of such an image may be missed.

    Args:
        images: uint8 ``[..., S, S, 3]``.
    """
    size = images.shape[-2]
    offset = np.arange(size, dtype=np.float32) - (size - 1) / 2
    grey = images.mean(-1, dtype=np.float32)
    right = (grey * offset).sum((-2, -1))[..., None, None, None]
    bottom = (grey * offset[:, None]).sum((-2, -1))[..., None, None, None]
    images = np.where(right < 0, images[..., ::-1, :], images)
    images = np.where(bottom < 0, images[..., ::-1, :, :], images)
    return np.where(np.abs(bottom) > np.abs(right), images.swapaxes(-3, -2), images)


def _candidates(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yields pairs of positions, int64 ``[2, n]``, whose hashes differ in ≤ ``_MAX_BITS`` bits."""
    for band in range(_BANDS):
        shift = np.uint64(_BAND_BITS * band)
        # Rotate the band to the highest bits; hashes with the same band are sorted by the other bits.
        rotated = (hashes << shift) | (hashes >> (np.uint64(64) - shift)) if band else hashes
        order = np.argsort(rotated, kind="stable")
        keys = rotated[order]
        for step in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
            differing = keys[step:] ^ keys[:-step]
            rows = np.flatnonzero(differing >> np.uint64(64 - _BAND_BITS) == 0)
            bits = np.unpackbits(differing[rows].view(np.uint8).reshape(-1, 8), axis=1).sum(1)
            rows = rows[bits <= _MAX_BITS]
            yield np.stack([order[rows], order[rows + step]])
