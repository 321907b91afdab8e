"""Reads the images to explore, each with a prediction by a model that did not train on the image.

The images are in a folder, or in the data of a finished ``seedtf folds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from seedtf.explore.label_quality import cross_val_predict
from seedtf.images.decode import make_decoder
from seedtf.images.header import STRETCH
from seedtf.model.activation_map import has_maps, make_map_function
from seedtf.report import report
from seedtf.runs.folder import read_class_names, read_settings
from seedtf.runs.folds import TEST_FOLD, FoldsPaths, read_folds
from seedtf.runs.open import load_run
from seedtf.training.setup import data_folder

__all__ = ["Explored", "open_folder", "open_folds"]

HeatmapFn = Callable[[Sequence[int], np.ndarray], Iterator[np.ndarray | None]]
"""Takes the indices of n images and a class for each image, int ``[n]``; yields n heat maps.

A heat map is a class activation map, float ``[h, w]``, or None if the network has no such maps.
"""

_BATCH_SIZE = 32


@dataclass(frozen=True)
class Explored:
    """N images to explore, and what is known about them.

    Attributes:
        catalog: the images; ``catalog.faults`` names the files that cannot be used.
        facts: digests, thumbnails, quality and unusual properties of the images.
        near_duplicates: int64 ``[N]``, for each image the smallest index among the image itself and its
            near duplicates.
        features: float ``[N, D]``.
        probabilities: float ``[N, K]``, for each image from a model that did not train on it.
        sides: the fold or side of the split of each image; empty strings without a split.
        groups: the group of each image (``--group_by``), or an empty string.
        reviewed: bool ``[N]``, whether ``--fixes`` has a row for the image.
        earlier: the rows of ``--fixes``, each with path, action and label.
        compute_heatmaps: see ``HeatmapFn``.
        predicted_by: the model that the probabilities are from, as text for the page.
        fit: how images are made square for the networks, see ``images.decode.resize_image``.
    """

    catalog: Catalog
    facts: Facts
    near_duplicates: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray
    sides: tuple[str, ...]
    groups: tuple[str, ...]
    reviewed: np.ndarray
    earlier: tuple[tuple[str, str, str], ...]
    compute_heatmaps: HeatmapFn
    predicted_by: str
    fit: str = STRETCH


def open_folds(folder: Path, *, fixes: str = "", max_pixels: int) -> Explored:
    """Reads the images of a finished cross-validation, with the probabilities in its ``oof.csv``.

    Args:
        folder: a folder of ``seedtf folds``.
        fixes: a table of earlier decisions; empty for the table that the cross-validation used, if any.
        max_pixels: images with a larger width × height are left out.

    Raises:
        UserError: a fold is not finished, a file is missing or damaged, or ``fixes`` has a wrong row.
    """
    paths = FoldsPaths(folder)
    runs = read_folds(folder)
    names = read_class_names(folder)
    predicted = paths.read_predictions(names)  # the label and the probabilities, by absolute path
    root = folder_at(read_settings(runs[0].root)["resolved"]["data_root"])
    rows = [row for row in paths.read_table() if row.fold != TEST_FOLD]
    rows = [row for row in rows if str(root / row.file) in predicted]
    index_of = {name: index for index, name in enumerate(names)}
    labels = np.array([index_of[predicted[str(root / row.file)][0]] for row in rows], np.int32)
    fixes = fixes or str(paths.read_settings()["flags"].get("fixes", ""))
    listed = Catalog(root, [row.file for row in rows], labels, names)
    catalog, facts, kept, reviewed, earlier = _read_images(listed, fixes, "", max_pixels)
    rows = [rows[index] for index in kept]
    probabilities = np.array([predicted[str(root / row.file)][1] for row in rows])
    folds = np.array([int(row.fold) for row in rows])
    embedders = [open_embedder(str(run.root)) for run in runs]
    features = []
    for number, embedder in enumerate(embedders):
        report("features", f"of the network of fold {number}")
        features.append(_embed(catalog, embedder, max_pixels))
    sides = tuple(f"fold {row.fold}" for row in rows)

    def compute_heatmaps(
        indices: Sequence[int], classes: np.ndarray
    ) -> Iterator[np.ndarray | None]:
        map_of: dict[int, np.ndarray | None] = {}
        for number, run_paths in enumerate(runs):
            places = [place for place, index in enumerate(indices) if folds[index] == number]
            if not places:
                continue
            run = load_run(run_paths.root)
            model = run.load_model()
            if not has_maps(model):
                continue
            compute_maps = make_map_function([model])
            decode = make_decoder(run.image_size, max_pixels, run.fit)
            for batch, pixels in _batches(catalog, indices, places, decode, max_pixels):
                maps = compute_maps(pixels, tf.constant(classes[batch])).numpy()
                map_of |= dict(zip(batch, maps, strict=True))
        yield from (map_of.get(place) for place in range(len(indices)))

    return Explored(
        catalog,
        facts,
        _group_near_duplicates(facts),
        np.concatenate(features, axis=1),
        probabilities,
        sides,
        tuple(row.group for row in rows),
        reviewed,
        earlier,
        compute_heatmaps,
        "the run that did not train on it",
        embedders[0].fit,  # all folds have the same
    )


def open_folder(
    config: TrainConfig, model: str, image_size: int, weights: str, *, max_pixels: int
) -> Explored:
    """Reads the images of a folder, and predicts them by linear classifiers on a network's features.

    Args:
        config: says where the images, labels, groups and fixes are; other flags are not used.
        model, image_size, weights: as for ``open_embedder``.
        max_pixels: images with a larger width × height are left out.

    Raises:
        UserError: the folder, a table or the network cannot be used, or all images have the same class,
            are in the same group or look alike.
    """
    embedder = open_embedder(model, image_size, weights)
    columns = Columns(config.file_column, config.label_column, config.split_column)
    folder = data_folder(config)
    listed, split = list_files(folder, config.labels_csv, columns, config.layout, min_images=1)
    sides = np.full(len(listed), "", dtype=object)
    if split is not None:
        # Without validation images, the split of the data only separates the test images. In this case
        # the other images have no side.
        for side, records in split.sides.items():
            sides[records] = side if side != "train" or len(split.val) else ""
    catalog, facts, kept, reviewed, earlier = _read_images(listed, config.fixes, folder, max_pixels)
    grouping = read_groups(catalog, GroupFlags.of(config))
    groups = grouping.names if grouping else ("",) * len(catalog)
    near_duplicates = _group_near_duplicates(facts)
    group_of = (
        near_duplicates
        if grouping is None
        else connect(near_duplicates, group_pairs(grouping.groups))
    )
    if len(np.unique(group_of)) == 1:
        raise UserError(
            f"{folder}: all {len(catalog)} images are in one group or look alike, so none can be "
            "predicted from the others; choose other groups"
        )
    report("features", f"of {embedder.name} at {embedder.image_size} pixels")
    features = _embed(catalog, embedder, max_pixels)
    num_classes = len(catalog.class_names)
    predictions = cross_val_predict(features, catalog.labels, num_classes, group_of)

    def compute_heatmaps(
        indices: Sequence[int], classes: np.ndarray
    ) -> Iterator[np.ndarray | None]:
        pooled_body = embedder.build()
        body = keras.Model(pooled_body.input, pooled_body.get_layer("pool").input)
        places = list(range(len(indices)))
        decode = make_decoder(embedder.image_size, max_pixels, embedder.fit)
        for batch, pixels in _batches(catalog, indices, places, decode, max_pixels):
            feature_maps = body(pixels, training=False).numpy()
            for place, feature_map in zip(batch, feature_maps, strict=True):
                fold = predictions.folds[indices[place]]
                kernel = predictions.kernels[fold][:, classes[place]]
                yield feature_map.astype(np.float32) @ kernel.astype(np.float32)

    return Explored(
        catalog,
        facts,
        near_duplicates,
        features,
        predictions.probabilities,
        tuple(sides[kept]),
        groups,
        reviewed,
        earlier,
        compute_heatmaps,
        f"a linear classifier on features of {embedder.name} that was fitted without it",
        embedder.fit,
    )


def _read_images(
    listed: Catalog, fixes: str, folder: str, max_pixels: int
) -> tuple[Catalog, Facts, np.ndarray, np.ndarray, tuple[tuple[str, str, str], ...]]:
    """Opens every file and applies ``--fixes``.

    Returns:
        The images that can be read and are not dropped; the facts about these images; their indices in
        ``listed``; for each of these images, whether ``--fixes`` has a row for it; and the rows of
        ``--fixes``.
    """
    if len(listed.class_names) < 2:
        raise UserError(
            f"{listed.root}: only one class ({listed.class_names[0]!r}); explore needs at least two"
        )
    table = FixTable(fixes) if fixes else None
    reviewed = np.zeros(len(listed), bool)
    if table is not None:
        found_fixes = table.find(listed, folder, others_allowed=True)
        report("fixes", f"{fixes}: {found_fixes.describe()}")
        listed, reviewed = found_fixes.relabel(listed), found_fixes.reviewed
        not_dropped = ~found_fixes.dropped
    else:
        not_dropped = np.ones(len(listed), bool)
    facts, readable, faults = read_facts(listed, max_pixels)
    kept = readable[not_dropped[readable]]
    if not len(kept):
        raise UserError(
            f"{listed.root}: none of {len(listed)} images can be used; see seedtf check"
        )
    catalog = listed.take(kept, faults)
    return catalog, facts.take(kept), kept, reviewed[kept], tuple(table.rows if table else ())


def _embed(catalog: Catalog, embedder: Embedder, max_pixels: int) -> np.ndarray:
    # All images of the catalog are within `max_pixels`. The limit of a run may be lower.
    embedder = replace(embedder, max_pixels=max_pixels)
    embeddings = embed_catalog(catalog, embedder, default_cache_dir(), _BATCH_SIZE)
    if len(embeddings.features) != len(catalog):
        lost: Fault = embeddings.catalog.faults[-1]
        raise UserError(f"{lost.path}: became unreadable ({lost.fault}); run the command again")
    return np.asarray(embeddings.features)


def _group_near_duplicates(facts: Facts) -> np.ndarray:
    """Returns ``near_duplicates`` of ``Explored``; identical files count as near duplicates."""
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
    """Yields ``places`` in batches, each with the pixels of its images, float32 ``[n, S, S, 3]``.

    The image at a place has the index ``indices[place]`` in ``catalog``.
    """
    paths = catalog.absolute_paths()
    for start in range(0, len(places), _BATCH_SIZE):
        batch = list(places[start : start + _BATCH_SIZE])
        pixels = [decode(read_file(paths[indices[place]], max_pixels)) for place in batch]
        yield batch, tf.cast(tf.stack(pixels), tf.float32)
