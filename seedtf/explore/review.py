"""What a person should look at: suspected labels, twins, outliers, poor images and groups, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seedtf.data.check.quality import find_poor
from seedtf.explore.geometry import find_outliers, nearest
from seedtf.explore.label_quality import likely_wrong, self_confidence
from seedtf.explore.sources import Explored
from seedtf.files import csv_line

__all__ = ["COLUMNS", "Review", "choose_shown", "review", "table_lines"]

NEIGHBOURS = 10
SHOWN_NEIGHBOURS = 3
MAX_ON_MAP = 5_000
"""Images on the page; of more, all suspects, outliers, twins and poor ones, and a sample."""
MAX_SUSPECTS = 400

_ODD = frozenset({"tiny", "extreme aspect", "damaged"})

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
        quality: float ``[N]``, the probability of the given label.
        ranking: int64 ``[N]``, all images, the most suspect first.
        proposed: int64 ``[N]``, the most probable class other than the given label.
        wrong: bool ``[N]``, whether confident learning holds the label for wrong.
        suspects: int64, the images of the list "to decide", in its order.
        neighbours, distances: the nearest images of each and their mean distance.
        outliers: int64, the farthest from all others first.
        twins: lists of indices that look alike; those on two sides, then those with two labels first.
        across: for each of these lists whether its images are on different sides.
        poor: index to the faults and details of its quality.
        groups: name, images, share that is predicted as labelled, suspects; the lowest share first.
    """

    quality: np.ndarray
    ranking: np.ndarray
    proposed: np.ndarray
    wrong: np.ndarray
    suspects: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    outliers: np.ndarray
    twins: list[list[int]]
    across: list[bool]
    poor: dict[int, list[tuple[str, str]]]
    groups: list[tuple[str, int, float, int]]


def review(explored: Explored) -> Review:
    """Ranks and groups the images.

    The list to decide has the images whose most probable class is not their label, at most
    ``MAX_SUSPECTS``, without those that an earlier review has decided.
    """
    labels, probabilities = explored.catalog.labels, explored.probabilities
    quality = self_confidence(labels, probabilities)
    ranking = np.lexsort((np.arange(len(labels)), quality))
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    differs = (probabilities.argmax(axis=1) != labels) & ~explored.reviewed
    suspects = ranking[differs[ranking]][:MAX_SUSPECTS]
    neighbours, distances = nearest(explored.features, NEIGHBOURS)
    mean, outliers = find_outliers(distances)
    twins, across = _twins(explored)
    poor: dict[int, list[tuple[str, str]]] = {}
    for index, fault, detail in find_poor(explored.facts.quality):
        poor.setdefault(index, []).append((fault, detail))
    for index, traits in explored.facts.traits.items():
        if odd := [trait for trait in traits if trait[0] in _ODD]:
            poor.setdefault(index, []).extend(odd)
    return Review(
        quality,
        ranking,
        others.argmax(axis=1),
        likely_wrong(labels, probabilities),
        suspects,
        neighbours,
        mean,
        outliers,
        twins,
        across,
        poor,
        _groups(explored, suspects),
    )


def _twins(explored: Explored) -> tuple[list[list[int]], list[bool]]:
    order = np.argsort(explored.twins, kind="stable")
    starts = np.flatnonzero(np.diff(explored.twins[order], prepend=-1))
    parts = [part.tolist() for part in np.split(order, starts[1:]) if len(part) > 1]
    labels, sides = explored.catalog.labels, explored.sides
    across = {part[0]: len({sides[index] for index in part}) > 1 for part in parts}
    clashing = {part[0]: len(set(labels[part].tolist())) > 1 for part in parts}
    parts.sort(key=lambda part: (not across[part[0]], not clashing[part[0]], part[0]))
    return parts, [across[part[0]] for part in parts]


def _groups(explored: Explored, suspects: np.ndarray) -> list[tuple[str, int, float, int]]:
    if not any(explored.groups):
        return []
    names, index = np.unique(np.array(explored.groups), return_inverse=True)
    right = explored.probabilities.argmax(axis=1) == explored.catalog.labels
    images, hits = np.bincount(index), np.bincount(index, weights=right)
    found = np.bincount(index[suspects], minlength=len(names))
    shares = hits / images
    return [
        (str(names[place]), int(images[place]), float(shares[place]), int(found[place]))
        for place in np.lexsort((-images, shares))
        if names[place]
    ]


def choose_shown(explored: Explored, found: Review, limit: int = MAX_ON_MAP) -> np.ndarray:
    """The images on the page, int64 and sorted: all, or those worth a look and a stratified sample.

    Their nearest neighbours that the cards show belong to those worth a look.
    """
    count = len(explored.catalog)
    if count <= limit:
        return np.arange(count)
    near = found.neighbours[found.suspects, :SHOWN_NEIGHBOURS].ravel()
    twins = np.array([index for part in found.twins for index in part], np.int64)
    poor = np.array(sorted(found.poor), np.int64)
    first = np.concatenate([found.suspects, near, found.outliers, twins, poor])
    # A random order of each class, dealt out by rank, is a sample of the same shares.
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(count)
    labels = explored.catalog.labels[shuffled]
    place = np.empty(count)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    wanted = np.concatenate([first, shuffled[np.argsort(place, kind="stable")]])
    _, at = np.unique(wanted, return_index=True)
    return np.sort(wanted[np.sort(at)][:limit])


def table_lines(
    explored: Explored, found: Review, points: np.ndarray, shown: np.ndarray
) -> Iterator[str]:
    """The lines of ``explore.csv``: every image, the most suspect first; x and y only on the map."""
    catalog, names = explored.catalog, explored.catalog.class_names
    twins = {index: number for number, part in enumerate(found.twins, 1) for index in part}
    outliers = set(found.outliers.tolist())
    point_of = dict(zip(shown.tolist(), points.tolist(), strict=True))
    yield csv_line(*COLUMNS)
    for rank, index in enumerate(found.ranking.tolist(), 1):
        near = found.neighbours[index, :SHOWN_NEIGHBOURS].tolist()
        point = point_of.get(index)
        yield csv_line(
            catalog.paths[index],
            names[catalog.labels[index]],
            str(rank),
            f"{found.quality[index]:.6g}",
            names[found.proposed[index]],
            f"{explored.probabilities[index, found.proposed[index]]:.6g}",
            str(int(found.wrong[index])),
            "|".join(catalog.paths[each] for each in near),
            "|".join(names[catalog.labels[each]] for each in near),
            f"{found.distances[index]:.4g}",
            str(int(index in outliers)),
            str(twins.get(index, "")),
            ", ".join(fault for fault, _ in found.poor.get(index, ())),
            explored.groups[index],
            explored.sides[index],
            *(["", ""] if point is None else [f"{value:.4f}" for value in point]),
            str(int(point is not None)),
        )
