"""Predicts labelled images with one or several models, or with the runs of a cross-validation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.fixes import Fixes
from seedtf.data.paths import Folder
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.evaluation.evaluate import (
    Predictions,
    Report,
    make_mean_predict_fn,
    predict_store,
    top_losses,
)
from seedtf.evaluation.member_images import read_sides
from seedtf.model.activation_map import has_maps, make_map_function
from seedtf.report import format_count, warn
from seedtf.runs.folder import read_settings
from seedtf.runs.folds import TEST_FOLD, FoldsPaths
from seedtf.runs.open import Run, load_run, open_validation

__all__ = [
    "LabelledPredictions",
    "predict_labelled",
    "predict_out_of_fold",
    "warn_of_training_images",
]


@dataclass(frozen=True)
class _Part:
    """Images that were predicted by the weighted mean of the same models.

    Attributes:
        models: the models.
        store: contains the images, and possibly others.
        records: int64 ``[n]``, the indices of the images in ``store``.
        weights: the weight of each model; empty for equal weights.
    """

    models: Sequence[keras.Model]
    store: Store
    records: np.ndarray
    weights: Sequence[float] = ()


@dataclass(frozen=True)
class LabelledPredictions:
    """Labelled images and their predicted probabilities.

    Attributes:
        predictions: the predictions of all images, in the order of ``parts``.
        parts: the same images, divided by the models that predicted them.
    """

    predictions: Predictions
    parts: tuple[_Part, ...]

    @property
    def data_root(self) -> Folder:
        """The folder that the paths are relative to."""
        return self.parts[0].store.catalog.root

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The images that could not be decoded, each with the reason."""
        return tuple(fault for part in self.parts for fault in part.store.catalog.faults)

    def with_fixes(self, fixes: Fixes) -> LabelledPredictions:
        """A copy with the labels of ``fixes`` and without the images that ``fixes`` leaves out."""
        is_kept, predictions = ~fixes.dropped, self.predictions
        parts, start = [], 0
        for part in self.parts:
            end = start + len(part.records)
            parts.append(replace(part, records=part.records[is_kept[start:end]]))
            start = end
        paths = (path for path, kept in zip(predictions.paths, is_kept, strict=True) if kept)
        fixed = Predictions(
            tuple(paths),
            fixes.labels[is_kept],
            predictions.probabilities[is_kept],
            predictions.class_names,
        )
        return LabelledPredictions(fixed, tuple(parts))

    @property
    def catalog(self) -> Catalog:
        """The predicted images with their labels, in the order of the predictions."""
        predictions = self.predictions
        return Catalog(
            self.data_root,
            predictions.paths,
            predictions.labels,
            predictions.class_names,
            self.faults,
        )

    def compute_heatmaps(self, report: Report, limit: int, batch_size: int) -> list[np.ndarray]:
        """Computes class activation maps of the wrong predictions with the highest losses.

        Args:
            report: the metrics of these predictions.
            limit: largest number of maps.
            batch_size: images per batch.

        Returns:
            The map of the predicted class for each image of ``top_losses``, float32 ``[h, w]``. The
            list is empty if one of the networks has no class activation maps.
        """
        if not all(has_maps(model) for part in self.parts for model in part.models):
            return []
        worst, classes = top_losses(report, limit), report.predictions.classes
        map_of: dict[int, np.ndarray] = {}
        start = 0
        for part in self.parts:
            end = start + len(part.records)
            rows = worst[(worst >= start) & (worst < end)]
            compute_maps = make_map_function(part.models, part.weights)
            for first in range(0, len(rows), batch_size):
                batch = rows[first : first + batch_size]
                images = part.store.read(tf.constant(part.records[batch - start]))
                maps = compute_maps(images, classes[batch]).numpy()
                map_of |= dict(zip(batch.tolist(), maps, strict=True))
            start = end
        return [map_of[row] for row in worst.tolist()]


def predict_labelled(
    models: Sequence[keras.Model],
    store: Store,
    records: np.ndarray,
    *,
    tta: int,
    batch_size: int,
    weights: Sequence[float] = (),
) -> LabelledPredictions:
    """Predicts images by the weighted mean of ``models``.

    Args:
        models, tta, weights: as for ``make_mean_predict_fn``.
        store: contains the images.
        records: int64 ``[n]``, the indices of the images in ``store``.
        batch_size: images per batch.

    Raises:
        UserError: a model returns NaN or infinity.
    """
    predict = make_mean_predict_fn(models, tta, weights)
    predictions = predict_store(predict, store, records, batch_size)
    return LabelledPredictions(predictions, (_Part(models, store, records, weights),))


def predict_out_of_fold(run: Run, *, tta: int, batch_size: int) -> LabelledPredictions:
    """Predicts every image of a cross-validation by the one run that did not train on it.

    Raises:
        UserError: a run or an image is missing, an image would be predicted twice or never, or a model
            returns NaN or infinity.
    """
    folds = []
    for member in run.members:
        fold_run = load_run(member.root)
        folds.append(
            predict_labelled(
                [fold_run.load_model()], *open_validation(fold_run), tta=tta, batch_size=batch_size
            )
        )
    predictions = Predictions(
        tuple(path for fold in folds for path in fold.predictions.paths),
        np.concatenate([fold.predictions.labels for fold in folds]),
        np.concatenate([fold.predictions.probabilities for fold in folds]),
        run.class_names,
    )
    unreadable = {fault.path for fold in folds for fault in fold.faults}
    _check_each_once(run, predictions.paths, unreadable)
    return LabelledPredictions(predictions, tuple(part for fold in folds for part in fold.parts))


def _check_each_once(run: Run, paths: Sequence[str], unreadable: set[str]) -> None:
    """Raises UserError unless ``paths`` has every readable non-test image of folds.csv exactly once."""
    folds_paths = FoldsPaths(run.run_dir)
    expected = {row.file for row in folds_paths.read_table() if row.fold != TEST_FOLD} - unreadable
    if len(paths) != len(expected) or set(paths) != expected:
        raise UserError(
            f"{folds_paths.table}: lists other images ({len(expected)}) than the validation images of "
            f"the runs ({len(paths)}); restore the files that seedtf folds wrote"
        )


def warn_of_training_images(run: Run, images: Catalog) -> None:
    """Warns if ``run``, or one of its members, was trained on some of ``images``.

    The accuracy on such images is higher than on new ones. Images are compared by their paths, so a
    copy in another folder is not recognized. A run without split.csv is not checked.
    """
    folder = os.path.realpath(images.root)
    evaluated = {os.path.join(folder, path) for path in images.paths}
    trained_by: dict[str, set[str]] = {}
    for member in run.members or (run.paths,):
        root = read_settings(member.root).get("resolved", {}).get("data_root")
        if root and member.split.is_file():
            train_images = read_sides(member.split, os.path.realpath(root))["train"]
            trained_by[str(member.root)] = evaluated & train_images.keys()
    num_trained = len(set[str]().union(*trained_by.values()))
    if num_trained:
        names = [name for name, trained in trained_by.items() if trained]
        others = format_count(len(names) - 1, "more run")
        more = f" or of {others}" if len(names) > 1 else ""
        warn(
            f"{images.root}: {num_trained:,} of {len(evaluated):,} images are training images of "
            f"{names[0]}{more}; the accuracy on them is higher than on new images"
        )
