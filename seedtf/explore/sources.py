"""The images to explore, each with answers of models that did not see it: a folder, or seedtf folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from seedtf.config.flags import default_cache_dir
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog, Fault
from seedtf.data.check.check import Facts, read_facts
from seedtf.data.check.near_duplicates import near_duplicate_pairs
from seedtf.data.columns import Columns
from seedtf.data.fixes import FixTable
from seedtf.data.groups import GroupFlags, read_groups
from seedtf.data.listing import list_files
from seedtf.data.paths import folder_at, read_file
from seedtf.data.related import connect, group_pairs
from seedtf.errors import UserError
from seedtf.evaluation.embed import embed_catalog
from seedtf.evaluation.embedder import Embedder, open_embedder
from seedtf.explore.label_quality import predict_out_of_fold
from seedtf.images.decode import make_decoder
from seedtf.model.activation_map import has_maps, mean_maps
from seedtf.report import report
from seedtf.runs.folder import read_class_names, read_settings
from seedtf.runs.folds import TEST_FOLD, FoldsPaths, read_folds
from seedtf.runs.open import load_run
from seedtf.training.setup import data_folder

__all__ = ["Explored", "open_folder", "open_folds"]

Heat = Callable[[Sequence[int], np.ndarray], Iterator[np.ndarray | None]]
"""Indices of images and a class for each, int ``[n]``, to class activation maps, float ``[h, w]``."""

_BATCH_SIZE = 32


@dataclass(frozen=True)
class Explored:
    """N images and what is known of them.

    Attributes:
        catalog: the images; those that cannot be read are in ``faults``.
        facts: look and quality of each.
        twins: int64 ``[N]``, for each image the smallest index of those that look alike.
        features: float ``[N, D]``.
        probabilities: float ``[N, K]``, of a model that did not train on the image.
        sides: the fold or side of each image; empty where there is no split.
        groups: the user's group of each image, or empty.
        reviewed: bool ``[N]``, the images for which ``--fixes`` already has a row.
        earlier: the rows of ``--fixes``.
        heat: class activation maps of images.
        answered_by: what gave the probabilities, for people.
    """

    catalog: Catalog
    facts: Facts
    twins: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray
    sides: tuple[str, ...]
    groups: tuple[str, ...]
    reviewed: np.ndarray
    earlier: tuple[tuple[str, str, str], ...]
    heat: Heat
    answered_by: str


def open_folds(folder: Path, *, fixes: str = "", max_pixels: int) -> Explored:
    """The images of a finished cross-validation, with the probabilities in its ``oof.csv``.

    Args:
        folder: of ``seedtf folds``.
        fixes: a table of earlier decisions; the one of the folds is taken as well.
        max_pixels: larger images are left out.

    Raises:
        UserError: a fold is not finished, or a file is missing or damaged.
    """
    paths = FoldsPaths(folder)
    runs = read_folds(folder)
    names = read_class_names(folder)
    known = paths.read_predictions(names)
    root = folder_at(read_settings(runs[0].root)["resolved"]["data_root"])
    rows = [row for row in paths.read_table() if row.fold != TEST_FOLD]
    rows = [row for row in rows if str(root / row.file) in known]
    index_of = {name: index for index, name in enumerate(names)}
    labels = np.array([index_of[known[str(root / row.file)][0]] for row in rows], np.int32)
    given = fixes or str(paths.read_settings()["flags"].get("fixes", ""))
    listed = Catalog(root, [row.file for row in rows], labels, names)
    catalog, facts, kept, reviewed, earlier = _read(listed, given, "", max_pixels)
    rows = [rows[index] for index in kept]
    probabilities = np.array([known[str(root / row.file)][1] for row in rows])
    folds = np.array([int(row.fold) for row in rows])
    parts = []
    for number, run in enumerate(runs):
        report("features", f"of the network of fold {number}")
        parts.append(_embed(catalog, open_embedder(str(run.root))))
    sides = tuple(f"fold {row.fold}" for row in rows)

    def heat(indices: Sequence[int], classes: np.ndarray) -> Iterator[np.ndarray | None]:
        drawn: dict[int, np.ndarray | None] = {}
        for number, run in enumerate(runs):
            places = [place for place, index in enumerate(indices) if folds[index] == number]
            if not places:
                continue
            opened = load_run(run.root)
            model = opened.load_model()
            if not has_maps(model):
                continue
            maps = mean_maps([model])
            decode = make_decoder(opened.image_size, max_pixels, opened.fit)
            for some, pixels in _batches(catalog, indices, places, decode, max_pixels):
                found = maps(pixels, tf.constant(classes[some])).numpy()
                drawn |= dict(zip(some, found, strict=True))
        yield from (drawn.get(place) for place in range(len(indices)))

    return Explored(
        catalog,
        facts,
        _find_twins(facts),
        np.concatenate(parts, axis=1),
        probabilities,
        sides,
        tuple(row.group for row in rows),
        reviewed,
        earlier,
        heat,
        "the run that did not train on it",
    )


def open_folder(
    config: TrainConfig, model: str, image_size: int, weights: str, *, max_pixels: int
) -> Explored:
    """The images of a folder, with answers of linear classifiers on the features of a network.

    Args:
        config: the flags of the data: folder, layout, table, groups, fixes.
        model, image_size, weights: as for ``open_embedder``.
        max_pixels: larger images are left out.

    Raises:
        UserError: the folder or the network cannot be used, or has only one class or one group.
    """
    embedder = open_embedder(model, image_size, weights)
    columns = Columns(config.file_column, config.label_column, config.split_column)
    folder = data_folder(config)
    listed, split = list_files(folder, config.labels_csv, columns, config.layout, min_images=1)
    names = np.full(len(listed), "", dtype=object)
    if split is not None:
        for side, records in split.sides.items():
            names[records] = side if side != "train" or len(split.val) else ""
    catalog, facts, kept, reviewed, earlier = _read(listed, config.fixes, folder, max_pixels)
    grouping = read_groups(catalog, GroupFlags.of(config))
    groups = grouping.names if grouping else ("",) * len(catalog)
    twins = _find_twins(facts)
    together = twins if grouping is None else connect(twins, group_pairs(grouping.groups))
    if len(np.unique(together)) == 1:
        raise UserError(
            f"{folder}: all {len(catalog)} images are in one group or look alike, so none can be "
            "predicted from the others; group otherwise"
        )
    report("features", f"of {embedder.name} at {embedder.image_size} pixels")
    features = _embed(catalog, embedder)
    num_classes = len(catalog.class_names)
    answers = predict_out_of_fold(features, catalog.labels, num_classes, together)

    def heat(indices: Sequence[int], classes: np.ndarray) -> Iterator[np.ndarray | None]:
        pooled = embedder.build()
        body = keras.Model(pooled.input, pooled.get_layer("pool").input)
        places = list(range(len(indices)))
        decode = make_decoder(embedder.image_size, max_pixels, embedder.fit)
        for some, pixels in _batches(catalog, indices, places, decode, max_pixels):
            places_of = body(pixels, training=False).numpy()
            for place, values in zip(some, places_of, strict=True):
                kernel = answers.kernels[answers.folds[indices[place]]][:, classes[place]]
                yield values.astype(np.float32) @ kernel.astype(np.float32)

    return Explored(
        catalog,
        facts,
        twins,
        features,
        answers.probabilities,
        tuple(names[kept]),
        groups,
        reviewed,
        earlier,
        heat,
        f"a linear classifier on features of {embedder.name} that was fitted without it",
    )


def _read(
    listed: Catalog, fixes: str, folder: str, max_pixels: int
) -> tuple[Catalog, Facts, np.ndarray, np.ndarray, tuple[tuple[str, str, str], ...]]:
    """Opens every file, and applies ``--fixes``: the images that are left, and their indices."""
    if len(listed.class_names) < 2:
        raise UserError(
            f"{listed.root}: only one class ({listed.class_names[0]!r}); explore needs at least two"
        )
    table = FixTable(fixes) if fixes else None
    reviewed = np.zeros(len(listed), bool)
    if table is not None:
        found = table.find(listed, folder, others_allowed=True)
        report("fixes", f"{fixes}: {found.describe()}")
        listed, reviewed = found.relabel(listed), found.reviewed
        left = ~found.dropped
    else:
        left = np.ones(len(listed), bool)
    facts, good, faults = read_facts(listed, max_pixels)
    kept = good[left[good]]
    if not len(kept):
        raise UserError(
            f"{listed.root}: none of {len(listed)} images can be used; see seedtf check"
        )
    catalog = listed.take(kept, faults)
    return catalog, facts.take(kept), kept, reviewed[kept], tuple(table.rows if table else ())


def _embed(catalog: Catalog, embedder: Embedder) -> np.ndarray:
    found = embed_catalog(catalog, embedder, default_cache_dir(), _BATCH_SIZE)
    if len(found.features) != len(catalog):
        lost: Fault = found.catalog.faults[-1]
        raise UserError(f"{lost.path}: became unreadable ({lost.fault}); start again")
    return np.asarray(found.features)


def _find_twins(facts: Facts) -> np.ndarray:
    """For each image the smallest index of those that are identical or look alike: int64 ``[N]``."""
    _, first, inverse = np.unique(facts.digests, return_index=True, return_inverse=True)
    pairs = near_duplicate_pairs(facts.hashes, facts.thumbnails)
    return connect(first[inverse], pairs)


def _batches(
    catalog: Catalog,
    indices: Sequence[int],
    places: Sequence[int],
    decode: Callable[[bytes], tf.Tensor],
    max_pixels: int,
) -> Iterator[tuple[list[int], tf.Tensor]]:
    """Yields some of the ``places`` of ``indices``, and their pixels, float32 ``[n, S, S, 3]``."""
    paths = catalog.absolute_paths()
    for start in range(0, len(places), _BATCH_SIZE):
        some = list(places[start : start + _BATCH_SIZE])
        pixels = [decode(read_file(paths[indices[place]], max_pixels)) for place in some]
        yield some, tf.cast(tf.stack(pixels), tf.float32)
