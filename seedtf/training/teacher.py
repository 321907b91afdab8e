"""Makes soft labels from a cross-validation, so that one network learns what all its runs predict.

This is knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531). The soft label of an
image comes from the run that did not train on this image, because the other runs have learned the label
of the image.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.errors import UserError
from seedtf.report import report
from seedtf.runs.folder import read_class_names
from seedtf.runs.folds import FoldsPaths, is_folds

__all__ = ["soften", "with_teacher"]


def with_teacher(config: TrainConfig, dataset: Dataset) -> Dataset:
    """Returns ``dataset`` with the soft labels of ``--teacher``; without the flag, ``dataset`` itself.

    The training images that are in the cross-validation get soft labels; the other images keep their
    labels. The number of soft labels is printed.

    Raises:
        UserError: ``--teacher`` is not the folder of a finished cross-validation, or the files in this
            folder are damaged; or the cross-validation has other classes than ``dataset``, or
            predictions for none of the training images.
    """
    if not config.teacher:
        return dataset
    catalog, folder = dataset.store.catalog, Path(config.teacher)
    if not is_folds(folder):
        raise UserError(
            f"--teacher={folder}: not a folder of seedtf folds; pass the folder of a finished "
            "cross-validation"
        )
    if read_class_names(folder) != catalog.class_names:
        raise UserError(
            f"--teacher={folder}: has other classes than --data_dir; pass a cross-validation with the "
            "same classes"
        )
    predictions = FoldsPaths(folder).read_predictions(catalog.class_names)
    paths = [os.path.realpath(catalog.absolute_paths()[record]) for record in dataset.split.train]
    probabilities_of = {
        os.path.realpath(path): probabilities for path, (_, probabilities) in predictions.items()
    }
    predicted = [index for index, path in enumerate(paths) if path in probabilities_of]
    if not predicted:
        raise UserError(
            f"--teacher={folder}: has predicted none of the {len(paths)} training images; pass a "
            "cross-validation of these images"
        )
    labels = np.eye(len(catalog.class_names), dtype=np.float32)[catalog.labels]
    records = dataset.split.train[predicted]
    probabilities = np.array([probabilities_of[paths[index]] for index in predicted])
    labels[records] = soften(
        labels[records], probabilities, config.teacher_weight, config.teacher_temperature
    )
    report(
        "teacher",
        f"{folder}: {len(predicted):,} of {len(paths):,} training images have soft labels, in which "
        f"the predicted probabilities have weight {config.teacher_weight:g}, at temperature "
        f"{config.teacher_temperature:g}",
    )
    return replace(dataset, store=replace(dataset.store, soft_labels=labels))


def soften(
    labels: np.ndarray, probabilities: np.ndarray, weight: float, temperature: float
) -> np.ndarray:
    """Returns ``(1 − weight) · labels + weight · softmax(log(probabilities) / temperature)``.

    Args:
        labels: float ``[N, K]``, rows that sum to 1.
        probabilities: float ``[N, K]``, rows that sum to 1.
        weight: the weight of the probabilities, in [0, 1].
        temperature: above 0; a value above 1 makes the probabilities more equal.

    Returns:
        float32 ``[N, K]``.

    Example:
        >>> soften(np.array([[1.0, 0.0]]), np.array([[0.8, 0.2]]), 0.5, 2.0).round(3).tolist()
        [[0.8330000042915344, 0.16699999570846558]]
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    soft = powers / powers.sum(axis=1, keepdims=True)
    return ((1 - weight) * labels + weight * soft).astype(np.float32)
