"""Draws the split of a run, or checks the split that the user gives.

In a drawn split, images that belong together are on one side.
"""

from __future__ import annotations

import numpy as np

from seedtf.data.catalog import Catalog
from seedtf.data.groups import Grouping
from seedtf.data.related import Related
from seedtf.data.split import (
    Split,
    check_split,
    check_trainable,
    groups_with_two_labels,
    split_catalog,
    split_groups,
)
from seedtf.errors import UserError
from seedtf.report import format_count

__all__ = ["check_given_split", "count_across", "draw_split"]


def draw_split(
    catalog: Catalog,
    given: Split | None,
    related: Related,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Split:
    """Draws the validation images, and the test images unless ``given`` has some.

    If the user named no groups and no test images are drawn, ``split_catalog`` draws the split, so that
    runs without near duplicates have the same split as in earlier versions.

    Args:
        catalog: N usable files.
        given: if the data has test images, a split with these in ``test`` and all others in ``train``.
        related: which images belong together.
        val_fraction, test_fraction: wanted fractions of each class.
        seed: root seed of the run.

    Raises:
        UserError: a class has too few images; no image is left for validation; ``test_fraction`` is not
            0 although ``given`` has test images; or all images of a class belong together and the user
            named groups or wants test images.
    """
    if given is not None and len(given.test):
        if test_fraction:
            raise UserError(
                f"--test_fraction={test_fraction:g}: the data has "
                f"{format_count(len(given.test), 'test image')} already; leave the flag out"
            )
        drawn = _draw(catalog, given.train, related, (val_fraction, 0.0), seed)
        return Split(drawn.train, drawn.val, given.test)
    all_images = np.arange(len(catalog), dtype=np.int64)
    return _draw(catalog, all_images, related, (val_fraction, test_fraction), seed)


def _draw(
    catalog: Catalog,
    records: np.ndarray,
    related: Related,
    fractions: tuple[float, float],
    seed: int,
) -> Split:
    """A split of ``records``, sorted int64 indices, with these fractions of validation and test."""
    val_fraction, test_fraction = fractions
    part = catalog.take(records)
    together = related.together[records]
    if related.user_groups is None and not test_fraction:
        split = split_catalog(part, val_fraction, seed, together)
    else:
        # Images that look alike but have different labels must not be validation or test images.
        conflicting = groups_with_two_labels(part.labels, related.alike[records])
        locked = np.unique(together[np.isin(related.alike[records], conflicting)])
        split = split_groups(part, fractions, seed, groups=together, locked=locked)
    if not len(split.val):
        raise UserError(
            f"--val_fraction={val_fraction:g}: no validation images, because all images of each "
            "class are identical or belong together; add different images or pass --val_dir"
        )
    return Split(*(records[side] for side in split.sides.values()))


def check_given_split(
    catalog: Catalog,
    split: Split,
    source: str,
    user_groups: Grouping | None,
    test_fraction: float,
) -> None:
    """Checks that a split that the user gives has training and validation images, and divides no group.

    Args:
        catalog: the files.
        split: the split of the files.
        source: the flag that gives the split, for messages.
        user_groups: the groups of the images; None if the user named none.
        test_fraction: the value of ``--test_fraction``, which must be 0.

    Raises:
        UserError: the split is not usable, or ``test_fraction`` is not 0; the message names the first
            problem.
    """
    if test_fraction:
        raise UserError(
            f"--test_fraction={test_fraction:g}: {source} gives the split, so nothing is drawn; leave "
            "one of them out"
        )
    check_trainable(catalog, 1)
    check_split(catalog, split, source)
    if user_groups is None:
        return
    across = np.flatnonzero(_is_across(split, user_groups.groups))
    if len(across):
        name = user_groups.names[across[0]]
        count = format_count(len(np.unique(user_groups.groups[across])), "group")
        raise UserError(
            f"{source}: {count} on two sides of the split, first {name!r}; leave the flags of the "
            "groups out, or let seedtf draw the split"
        )


def count_across(split: Split, groups: np.ndarray) -> int:
    """The number of validation and test images that have an image of their group on another side.

    Example:
        >>> split = Split(np.array([0, 1]), np.array([2, 3]))
        >>> count_across(split, np.array([0, 1, 1, 3]))
        1
    """
    across = _is_across(split, groups)
    return int(across[split.val].sum() + across[split.test].sum())


def _is_across(split: Split, groups: np.ndarray) -> np.ndarray:
    """Whether each image is on a side, and its group has images on several sides: bool ``[N]``."""
    sides = list(split.sides.values())
    crossing = [
        np.intersect1d(groups[side], groups[other])
        for number, side in enumerate(sides)
        for other in sides[:number]
    ]
    used = np.zeros(len(groups), bool)
    used[np.concatenate(sides)] = True
    return used & np.isin(groups, np.concatenate(crossing))
