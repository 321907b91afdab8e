"""Finds the images to look at: suspected labels, near duplicates, outliers, poor images and groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seedtf.data.check.quality import find_poor
from seedtf.explore.geometry import find_nearest, find_outliers
from seedtf.explore.label_quality import find_wrong_labels, self_confidence
from seedtf.explore.sources import Explored
from seedtf.files import csv_line

__all__ = ["COLUMNS", "Review", "choose_shown", "review", "table_lines"]

NUM_NEIGHBOURS = 10
"""Number of nearest neighbours that are found for each image."""
NUM_SHOWN_NEIGHBOURS = 3
"""Number of nearest neighbours that the page and explore.csv show."""
MAX_ON_PAGE = 5_000
"""Largest number of images on the page."""
MAX_SUSPECTS = 400
"""Largest number of images in the section "To decide" of the page."""

# The unusual properties (traits) found by ``data.check.traits`` that make an image poor.
_POOR_TRAITS = frozenset({"tiny", "extreme aspect", "damaged"})

COLUMNS = (
    *("path", "label", "rank", "quality", "proposed", "probability", "likely_wrong"),
    *("neighbours", "neighbour_labels", "distance", "outlier", "twins", "poor"),
    *("group", "side", "x", "y", "on_page"),
)
"""The columns of ``explore.csv``."""


@dataclass(frozen=True)
class Review:
    """What was found about N images.

    Attributes:
        quality: float ``[N]``, the predicted probability of the label.
        ranking: int64 ``[N]``, the indices of all images, the most suspect label first.
        proposed: int64 ``[N]``, the most probable class other than the label.
        wrong: bool ``[N]``, whether the label is wrong according to confident learning.
        suspects: int64, the indices of the images in the section "To decide" of the page, in the order
            of the page.
        neighbours: int64 ``[N, k]``, the indices of the nearest images.
        distances: float ``[N]``, the mean distance of the image to its neighbours.
        outliers: int64, the indices of the outliers, the farthest first.
        near_duplicates: sets of near duplicates, as lists of indices. Sets whose images are on
            different sides of the split come first, then sets whose images have different labels.
        across: for each set of ``near_duplicates``, whether its images are on different sides of the
            split.
        poor: the faults of each poor image, by its index; a fault is a pair of name and details.
        groups: for each group its name, number of images, fraction of images that are predicted as
            labelled, and number of suspects; the group with the lowest fraction first.
    """

    quality: np.ndarray
    ranking: np.ndarray
    proposed: np.ndarray
    wrong: np.ndarray
    suspects: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    outliers: np.ndarray
    near_duplicates: list[list[int]]
    across: list[bool]
    poor: dict[int, list[tuple[str, str]]]
    groups: list[tuple[str, int, float, int]]


def review(explored: Explored) -> Review:
    """Finds suspects, near duplicates, outliers and poor images, and ranks them.

    Suspects are images whose most probable class is not their label. Images that an earlier review has
    decided are left out. There are at most ``MAX_SUSPECTS`` suspects.
    """
    labels, probabilities = explored.catalog.labels, explored.probabilities
    quality = self_confidence(labels, probabilities)
    ranking = np.lexsort((np.arange(len(labels)), quality))
    other_probabilities = probabilities.copy()
    other_probabilities[np.arange(len(labels)), labels] = -1
    differs = (probabilities.argmax(axis=1) != labels) & ~explored.reviewed
    suspects = ranking[differs[ranking]][:MAX_SUSPECTS]
    neighbours, distances = find_nearest(explored.features, NUM_NEIGHBOURS)
    mean_distances, outliers = find_outliers(distances)
    near_duplicates, across = _near_duplicate_sets(explored)
    poor: dict[int, list[tuple[str, str]]] = {}
    for index, fault, detail in find_poor(explored.facts.quality):
        poor.setdefault(index, []).append((fault, detail))
    for index, traits in explored.facts.traits.items():
        if faults := [trait for trait in traits if trait[0] in _POOR_TRAITS]:
            poor.setdefault(index, []).extend(faults)
    return Review(
        quality,
        ranking,
        other_probabilities.argmax(axis=1),
        find_wrong_labels(labels, probabilities),
        suspects,
        neighbours,
        mean_distances,
        outliers,
        near_duplicates,
        across,
        poor,
        _rank_groups(explored, suspects),
    )


def _near_duplicate_sets(explored: Explored) -> tuple[list[list[int]], list[bool]]:
    """The attributes ``near_duplicates`` and ``across`` of a ``Review``."""
    order = np.argsort(explored.near_duplicates, kind="stable")
    starts = np.flatnonzero(np.diff(explored.near_duplicates[order], prepend=-1))
    parts = [part.tolist() for part in np.split(order, starts[1:]) if len(part) > 1]
    labels, sides = explored.catalog.labels, explored.sides
    across = {part[0]: len({sides[index] for index in part}) > 1 for part in parts}
    clashing = {part[0]: len(set(labels[part].tolist())) > 1 for part in parts}
    parts.sort(key=lambda part: (not across[part[0]], not clashing[part[0]], part[0]))
    return parts, [across[part[0]] for part in parts]


def _rank_groups(explored: Explored, suspects: np.ndarray) -> list[tuple[str, int, float, int]]:
    """The attribute ``groups`` of a ``Review``."""
    if not any(explored.groups):
        return []
    names, group_of = np.unique(np.array(explored.groups), return_inverse=True)
    correct = explored.probabilities.argmax(axis=1) == explored.catalog.labels
    num_images, num_correct = np.bincount(group_of), np.bincount(group_of, weights=correct)
    num_suspects = np.bincount(group_of[suspects], minlength=len(names))
    fractions = num_correct / num_images
    return [
        (
            str(names[group]),
            int(num_images[group]),
            float(fractions[group]),
            int(num_suspects[group]),
        )
        for group in np.lexsort((-num_images, fractions))
        if names[group]
    ]


def choose_shown(explored: Explored, result: Review, limit: int = MAX_ON_PAGE) -> np.ndarray:
    """Chooses the images on the page; returns their indices, int64, sorted.

    If there are more than ``limit`` images, the first ``limit`` distinct images of this list are
    chosen: suspects, the neighbours that are shown with suspects, outliers, near duplicates, poor
    images, and a stratified sample of all images.
    """
    count = len(explored.catalog)
    if count <= limit:
        return np.arange(count)
    neighbours = result.neighbours[result.suspects, :NUM_SHOWN_NEIGHBOURS].ravel()
    near_duplicates = np.array(
        [index for part in result.near_duplicates for index in part], np.int64
    )
    poor = np.array(sorted(result.poor), np.int64)
    notable = np.concatenate([result.suspects, neighbours, result.outliers, near_duplicates, poor])
    # The images of each class get evenly spaced numbers in [0, 1). When all images are sorted by these
    # numbers, the first n images have the class proportions of all images, for any n.
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(count)
    labels = explored.catalog.labels[shuffled]
    numbers = np.empty(count)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        numbers[members] = (np.arange(len(members)) + rng.random()) / len(members)
    ordered = np.concatenate([notable, shuffled[np.argsort(numbers, kind="stable")]])
    _, first_occurrence = np.unique(ordered, return_index=True)
    return np.sort(ordered[np.sort(first_occurrence)][:limit])


def table_lines(
    explored: Explored, result: Review, points: np.ndarray, shown: np.ndarray
) -> Iterator[str]:
    """The lines of ``explore.csv``, with every image, the most suspect label first.

    Args:
        explored: the images.
        result: the review of these images.
        points: float ``[n, 2]``, x and y on the map of the images ``shown``.
        shown: int64 ``[n]``, the indices of the images on the page. For all other images, the cells x
            and y are empty.
    """
    catalog, names = explored.catalog, explored.catalog.class_names
    set_of = {
        index: number for number, part in enumerate(result.near_duplicates, 1) for index in part
    }
    outliers = set(result.outliers.tolist())
    point_of = dict(zip(shown.tolist(), points.tolist(), strict=True))
    yield csv_line(*COLUMNS)
    for rank, index in enumerate(result.ranking.tolist(), 1):
        neighbours = result.neighbours[index, :NUM_SHOWN_NEIGHBOURS].tolist()
        point = point_of.get(index)
        yield csv_line(
            catalog.paths[index],
            names[catalog.labels[index]],
            str(rank),
            f"{result.quality[index]:.6g}",
            names[result.proposed[index]],
            f"{explored.probabilities[index, result.proposed[index]]:.6g}",
            str(int(result.wrong[index])),
            "|".join(catalog.paths[neighbour] for neighbour in neighbours),
            "|".join(names[catalog.labels[neighbour]] for neighbour in neighbours),
            f"{result.distances[index]:.4g}",
            str(int(index in outliers)),
            str(set_of.get(index, "")),
            ", ".join(fault for fault, _ in result.poor.get(index, ())),
            explored.groups[index],
            explored.sides[index],
            *(["", ""] if point is None else [f"{value:.4f}" for value in point]),
            str(int(point is not None)),
        )
