"""Assigns groups of images to the sides of a split, so that each side gets its fraction of each class.

The result depends only on the arguments. This module does not import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["assign_equal_folds", "assign_groups", "classes_in_one_group"]


def classes_in_one_group(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The classes, int64, whose images are all in one group, so that they cannot be on two sides.

    Example:
        >>> classes_in_one_group(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 3])).tolist()
        [0]
    """
    pairs = np.unique(np.stack([labels.astype(np.int64), groups]), axis=1)[0]
    present, counts = np.unique(pairs, return_counts=True)
    return present[counts == 1]


def assign_equal_folds(
    labels: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Divides the images into ``count`` folds of about equal size, each with every class if possible.

    ``labels``, ``groups`` and ``rng`` are those of ``assign_groups``.

    Returns:
        The fold of each image, int64 ``[N]``.

    Example:
        >>> folds = assign_equal_folds(np.zeros(6, int), np.arange(6), 3, np.random.default_rng(0))
        >>> np.bincount(folds).tolist()
        [2, 2, 2]
    """
    fractions = [1 / count] * count
    return assign_groups(labels, groups, fractions, rng, needed=range(count)).astype(np.int64)


def assign_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    fractions: Sequence[float],
    rng: np.random.Generator,
    *,
    needed: Sequence[int],
    locked: np.ndarray | None = None,
) -> np.ndarray:
    """Assigns each group to one side, so that each side has about its fraction of every class.

    1. Groups of several images are assigned one by one, the largest first, to the side that lacks the
       most images of their classes.
    2. Groups of one image are assigned to the sides that lack images of their class.
    3. If a needed side has no image of a class, a group with such an image is moved there, unless a
       more important needed side would then lose its last image of a class.
    4. A group of several images is moved if it fits better on another side.

    Args:
        labels: int ``[N]``, the class of each image.
        groups: int64 ``[N]``, the number of the group of each image.
        fractions: the wanted fraction of the images for each of S sides; they add up to 1.
        rng: decides between equally good assignments.
        needed: the sides that should have an image of every class, the most important first.
        locked: the numbers of the groups that must be on side 0.

    Returns:
        The side of each image, uint8 ``[N]``.

    Example:
        >>> labels, groups = np.repeat([0, 1], 20), np.arange(40) // 2
        >>> sides = assign_groups(labels, groups, [0.8, 0.2], np.random.default_rng(0), needed=[0, 1])
        >>> [int((sides[labels == label] == 1).sum()) for label in (0, 1)]
        [4, 4]
    """
    table = _Table.of(labels, groups, fractions)
    order = rng.permutation(len(table.sizes))
    order = order[np.argsort(-table.sizes[order], kind="stable")]
    is_locked = np.isin(table.numbers, [] if locked is None else locked)
    for group in np.flatnonzero(is_locked).tolist():
        table.put(group, 0)
    free = order[~is_locked[order]]
    is_single = table.sizes[free] == 1
    several, singles = free[~is_single], free[is_single]
    for group in several:
        table.put(group, table.best_side(group))
    _fill_with_singles(table, singles, needed)
    _add_missing(table, free, needed)
    _improve(table, several, needed)
    return table.sides[table.group_of_image]


@dataclass
class _Table:
    """The groups, the side of each group, and how many images of each class each side has so far.

    Attributes:
        numbers: int64 ``[G]``, the number of each group, ascending.
        group_of_image: int64 ``[N]``, the index in ``numbers`` of the group of each image.
        sizes: int64 ``[G]``, the number of images in each group.
        starts, classes, counts: for each i from ``starts[g]`` to ``starts[g + 1] - 1``, group g has
            ``counts[i]`` images of the class ``classes[i]``.
        sides: uint8 ``[G]``, the side of each group.
        wanted, present: float64 ``[S, K]``, the wanted and the present number of images on each side
            of each class.
        num_groups: int64 ``[S, K]``, the number of groups on each side with images of each class.
        weights: float64 ``[K]``, 1 divided by the number of images of each class.
    """

    numbers: np.ndarray
    group_of_image: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    sides: np.ndarray
    wanted: np.ndarray
    present: np.ndarray
    num_groups: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, groups: np.ndarray, fractions: Sequence[float]) -> _Table:
        """Counts the images of each class in each group; no group is on a side yet."""
        numbers, group_of_image = np.unique(groups, return_inverse=True)
        num_classes = int(labels.max(initial=-1)) + 1
        # A cell is a pair of a group and a class of which the group has images.
        cells = group_of_image * num_classes + labels.astype(np.int64)
        cells, counts = np.unique(cells, return_counts=True)
        group_of_cell, classes = np.divmod(cells, max(num_classes, 1))
        starts = np.searchsorted(group_of_cell, np.arange(len(numbers) + 1))
        totals = np.bincount(labels, minlength=num_classes)
        shape = (len(fractions), num_classes)
        return cls(
            numbers,
            group_of_image,
            np.bincount(group_of_image, minlength=len(numbers)),
            starts,
            classes,
            counts,
            np.zeros(len(numbers), np.uint8),
            np.outer(fractions, totals),
            np.zeros(shape),
            np.zeros(shape, np.int64),
            1 / np.maximum(totals, 1),
        )

    def content(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The classes in a group, and the number of images of each."""
        cells = slice(self.starts[group], self.starts[group + 1])
        return self.classes[cells], self.counts[cells]

    def groups_with(self, label: int) -> np.ndarray:
        """The groups that contain images of a class."""
        cells = np.flatnonzero(self.classes == label)
        return np.searchsorted(self.starts, cells, side="right") - 1

    def put(self, group: int, side: int) -> None:
        """Adds a group to a side."""
        classes, counts = self.content(group)
        self.sides[group] = side
        self.present[side, classes] += counts
        self.num_groups[side, classes] += 1

    def move(self, group: int, side: int) -> None:
        """Moves a group from its side to another."""
        classes, counts = self.content(group)
        self.present[self.sides[group], classes] -= counts
        self.num_groups[self.sides[group], classes] -= 1
        self.put(group, side)

    def costs(self, group: int) -> np.ndarray:
        """How much the squared deviation grows if the group is put on each side: float64 ``[S]``.

        The squared deviation is ``weights · (present − wanted)²``, summed over all sides and classes.
        """
        classes, counts = self.content(group)
        excess = self.present[:, classes] - self.wanted[:, classes]
        return ((2 * excess + counts) * counts * self.weights[classes]).sum(axis=1)

    def best_side(self, group: int) -> int:
        """The side with the lowest cost; the first one if several costs are equal."""
        return int(self.costs(group).argmin())

    def gains(self, group: int) -> np.ndarray:
        """How much the squared deviation shrinks if the group moves to each side: float64 ``[S]``."""
        classes, counts = self.content(group)
        side = self.sides[group]
        excess = self.present[side, classes] - self.wanted[side, classes]
        gains = ((2 * excess - counts) * counts * self.weights[classes]).sum() - self.costs(group)
        gains[side] = 0.0
        return gains

    def may_leave(self, group: int, needed: Sequence[int]) -> bool:
        """Whether the group's side is not needed, or has other groups with each class of the group."""
        side = self.sides[group]
        classes, _ = self.content(group)
        return side not in needed or bool((self.num_groups[side, classes] > 1).all())


def _fill_with_singles(table: _Table, singles: np.ndarray, needed: Sequence[int]) -> None:
    """Assigns the single images of each class to the sides that lack images of the class."""
    labels = table.classes[table.starts[singles]]
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(table.wanted.shape[1] + 1))
    for label in range(table.wanted.shape[1]):
        members = singles[order[bounds[label] : bounds[label + 1]]]
        lacking = table.wanted[:, label] - table.present[:, label]
        has_class = table.num_groups[:, label] > 0
        numbers = _round_to_sum(lacking, len(members), [s for s in needed if not has_class[s]])
        table.sides[members] = np.repeat(np.arange(len(numbers)), numbers)
        table.present[:, label] += numbers
        table.num_groups[:, label] += numbers


def _round_to_sum(lacking: np.ndarray, total: int, needed: Sequence[int]) -> np.ndarray:
    """Whole numbers ``[S]`` near ``lacking`` that add up to ``total``, at least 1 on ``needed`` sides.

    If ``total`` is less than the number of needed sides, only the first of these sides get 1.
    """
    wanted = np.maximum(lacking, 0.0)
    if wanted.sum() > 0:
        wanted *= total / wanted.sum()
    numbers = np.floor(wanted).astype(np.int64)
    # Round up where the remainder is largest; among equal remainders, on the last sides.
    by_remainder = np.argsort(-(wanted - numbers)[::-1], kind="stable")
    rest = total - int(numbers.sum())
    for position in range(rest):
        numbers[len(numbers) - 1 - by_remainder[position % len(numbers)]] += 1
    for rank, side in enumerate(needed):
        if numbers[side] == 0:
            giver = int(numbers.argmax())
            keeps = 1 if giver in needed[:rank] else 0
            if numbers[giver] > keeps:
                numbers[giver] -= 1
                numbers[side] += 1
    return numbers


def _add_missing(table: _Table, free: np.ndarray, needed: Sequence[int]) -> None:
    """Moves a group to each needed side without images of a class: the group that fits there best."""
    is_free = np.zeros(len(table.numbers), bool)
    is_free[free] = True
    for rank, side in enumerate(needed):
        for label in np.flatnonzero(table.num_groups[side] == 0).tolist():
            movable = [
                group
                for group in table.groups_with(label)
                if is_free[group]
                and (table.may_leave(group, needed) or table.sides[group] in needed[rank + 1 :])
            ]
            if movable:
                table.move(max(movable, key=lambda group: table.gains(group)[side]), side)


def _improve(table: _Table, several: np.ndarray, needed: Sequence[int], rounds: int = 3) -> None:
    """Moves groups of several images to other sides if this lowers the squared deviation."""
    for _ in range(rounds):
        has_moved = False
        for group in several:
            gains = table.gains(group)
            side = int(gains.argmax())
            if gains[side] > 1e-9 and table.may_leave(group, needed):
                table.move(group, side)
                has_moved = True
        if not has_moved:
            return
