"""Finds the images that belong together, which a split must keep on one side.

Images belong together if their files are identical, if they look alike (``check.near_duplicates``), or
if they are in one of the user's groups (``groups``). Each of these three relations is an array int64
``[N]`` with the number of the group of each image. The number of a group is the smallest index of its
images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog
from seedtf.data.check.near_duplicates import (
    FINGERPRINT_SIZE,
    NUM_VIEWS,
    THUMBNAIL_SHAPE,
    fingerprint,
    near_duplicate_pairs,
)
from seedtf.data.decode_files import Decoded, make_batch_decoder
from seedtf.data.groups import Grouping
from seedtf.data.map_files import map_file_batches
from seedtf.data.paths import RemotePath
from seedtf.data.split import find_duplicates
from seedtf.data.store import cache_key
from seedtf.files import atomic_path
from seedtf.report import report

__all__ = ["Related", "connect", "find_related", "group_pairs", "search_near_duplicates"]

MAX_SEARCHED = 20_000
"""The largest number of images among which ``--twins=auto`` looks for near duplicates."""

# Part of the name of the cache file. Increase the number when the fingerprints or thresholds change.
_FORMAT = "near-duplicates-1"


@dataclass(frozen=True)
class Related:
    """Which of N images belong together.

    Attributes:
        identical: int64 ``[N]``, the groups of files with the same bytes.
        alike: int64 ``[N]``, the groups of images that are identical or look alike.
        together: int64 ``[N]``, the groups that a split must not divide: ``alike``, joined with
            ``user_groups``.
        user_groups: the groups of ``--group_by`` and similar flags; None if the user named none.
    """

    identical: np.ndarray
    alike: np.ndarray
    together: np.ndarray
    user_groups: Grouping | None

    @property
    def num_duplicates(self) -> int:
        """Number of images whose bytes equal those of an earlier image."""
        return len(self.identical) - len(np.unique(self.identical))

    @property
    def num_near_duplicates(self) -> int:
        """Number of images that look like an earlier image; identical files are counted once."""
        return len(np.unique(self.identical)) - len(np.unique(self.alike))


def find_related(
    catalog: Catalog,
    *,
    all_opened: bool,
    twins: str,
    user_groups: Grouping | None,
    cache_dir: Path,
    max_pixels: int,
) -> Related:
    """Finds identical files and near duplicates, and joins them with the user's groups.

    Args:
        catalog: N files.
        all_opened: whether every file was opened before; if not, neither identical files nor near
            duplicates are searched for.
        twins: the value of ``--twins``. With ``together``, all local files are compared for near
            duplicates; with ``auto``, only if there are at most ``MAX_SEARCHED``; with ``ignore``, none
            are. If there are too many files, or they are at a URL, a line says that none are compared.
        user_groups: the groups that the user named; None for none.
        cache_dir: the folder in which the pairs are stored, so that a later run need not search.
        max_pixels: images with more pixels are not compared.
    """
    every_image_alone = np.arange(len(catalog), dtype=np.int64)
    identical = find_duplicates(catalog) if all_opened else every_image_alone
    pairs = np.empty((0, 2), np.int64)
    is_searched = all_opened and twins != "ignore"
    if is_searched and isinstance(catalog.root, RemotePath):
        report(
            "twins",
            "near duplicates are not searched for at a URL; seedtf pack copies the images into a local "
            "folder, in which they are",
        )
    elif is_searched and twins == "auto" and len(catalog) > MAX_SEARCHED:
        report(
            "twins",
            f"near duplicates are not searched for among more than {MAX_SEARCHED:,} images; "
            "--twins=together searches among any number",
        )
    elif is_searched:
        pairs = search_near_duplicates(catalog, cache_dir, max_pixels)
    alike = connect(identical, pairs)
    together = alike
    if user_groups is not None:
        together = connect(alike, group_pairs(user_groups.groups))
    return Related(identical, alike, together, user_groups)


def connect(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The number of the group of each image, int64 ``[N]``, after joining groups by ``pairs``.

    Args:
        groups: int64 ``[N]``, the number of the group of each image, its smallest index.
        pairs: int64 ``[P, 2]``, indices of two images that belong together.

    Example:
        >>> connect(np.array([0, 1, 1, 3, 4]), np.array([[3, 2]])).tolist()
        [0, 1, 1, 1, 4]
    """
    while True:
        ends = groups[pairs]
        low = ends.min(axis=1)
        joined = groups.copy()
        for end in ends.T:
            np.minimum.at(joined, end, low)
        # A group that others were joined to may have been joined itself: follow the numbers to the end.
        while not np.array_equal(smaller := joined[joined], joined):
            joined = smaller
        if np.array_equal(joined, groups):
            return joined
        groups = joined


def search_near_duplicates(catalog: Catalog, cache_dir: Path, max_pixels: int) -> np.ndarray:
    """The pairs of images that look alike, int64 ``[P, 2]``.

    The pairs are cached until a file changes. If the cache cannot be written, the next run searches
    again. The search decodes every file to 72² pixels, whatever the image size of the training is, so
    that runs with different image sizes have the same split.
    """
    size = FINGERPRINT_SIZE
    key = hashlib.blake2b(
        f"{_FORMAT} {cache_key(catalog, size, max_pixels)}".encode(), digest_size=16
    )
    cache_file = cache_dir / f"{key.hexdigest()}.pairs.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.load(cache_file)
    pairs = near_duplicate_pairs(*_fingerprints(catalog, max_pixels))
    with suppress(OSError):
        os.makedirs(cache_dir, exist_ok=True)
        with atomic_path(cache_file) as temporary:
            np.save(temporary, pairs)
    return pairs


def _fingerprints(catalog: Catalog, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashes and the thumbnails of all files; zeros for a file that cannot be decoded."""
    hashes = np.zeros((len(catalog), NUM_VIEWS), np.uint64)
    thumbnails = np.zeros((len(catalog), NUM_VIEWS, *THUMBNAIL_SHAPE), np.uint8)
    decode = make_batch_decoder(FINGERPRINT_SIZE, max_pixels)

    def work(first: int, paths: Sequence[str]) -> Iterator[Decoded]:
        outcomes = list(decode(paths))
        good = {row: image for row, image in enumerate(outcomes) if isinstance(image, np.ndarray)}
        if good:
            rows = first + np.array(list(good))
            hashes[rows], thumbnails[rows] = fingerprint(np.stack(list(good.values())))
        return iter(outcomes)

    map_file_batches(catalog, work, "looking for near duplicates")
    return hashes, thumbnails


def group_pairs(groups: np.ndarray) -> np.ndarray:
    """The pairs (image, first image of its group), except for first images: int64 ``[P, 2]``."""
    others = np.flatnonzero(groups != np.arange(len(groups)))
    return np.stack([others, groups[others]], axis=1)
