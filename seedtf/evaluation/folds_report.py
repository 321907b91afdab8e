"""What only the report of a cross-validation has: metrics of folds and groups, and ``oof.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from seedtf.evaluation.evaluate import Predictions, Report
from seedtf.files import csv_line, write_lines
from seedtf.intervals import wilson_interval
from seedtf.runs.folds import FoldRow, FoldsPaths
from seedtf.runs.history import best_epoch, read_history
from seedtf.runs.open import Run

__all__ = ["folds_values", "group_interval", "write_out_of_fold"]

_MAX_WORST_GROUPS = 30
_RESAMPLES = 2000


def folds_values(run: Run, report: Report) -> dict[str, Any]:
    """Computes the metrics of each fold and of the worst groups, as JSON for the page and report.json.

    The accuracy of a fold is None if ``--fixes`` leaves out all its images. The standard deviation of
    the accuracies is None if only one fold has images.

    Args:
        run: a folder of ``seedtf folds``.
        report: the metrics of all images, each predicted by the run that did not train on it.
    """
    predictions = report.predictions
    rows = _read_rows(run)
    correct = predictions.classes == predictions.labels
    fold_of = np.array([int(rows[path].fold) for path in predictions.paths])
    folds = []
    for number, paths in enumerate(run.members):
        is_in_fold = fold_of == number
        num_correct, num_images = int(correct[is_in_fold].sum()), int(is_in_fold.sum())
        interval = list(wilson_interval(num_correct, num_images)) if num_images else None
        history = read_history(paths.history)
        folds.append(
            {
                "fold": number,
                "images": num_images,
                "correct": num_correct,
                "accuracy": num_correct / num_images if num_images else None,
                "accuracy_interval_95": interval,
                "best_epoch": best_epoch(history),
                "epochs": len(history),
            }
        )
    accuracies = np.array([fold["accuracy"] for fold in folds if fold["images"]])
    return {
        "folds": folds,
        "accuracy_mean": float(accuracies.mean()),
        "accuracy_deviation": float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        "groups": _group_values([rows[path].group for path in predictions.paths], correct),
    }


def _group_values(groups: list[str], correct: np.ndarray) -> dict[str, Any] | None:
    """The number of groups, an interval of the accuracy, and the worst groups; None without groups."""
    if not any(groups):
        return None
    # Each image without a group counts as a group of one image, here with a name that starts with \0.
    names = np.array([group or f"\0{row}" for row, group in enumerate(groups)])
    unique, group_of = np.unique(names, return_inverse=True)
    num_images = np.bincount(group_of)
    num_correct = np.bincount(group_of, weights=correct).astype(int)
    accuracies = num_correct / num_images
    order = np.lexsort((-num_images, accuracies))
    worst = [group for group in order if not unique[group].startswith("\0")][:_MAX_WORST_GROUPS]
    return {
        "number": len(unique),
        "accuracy_interval_95": list(group_interval(num_correct, num_images)),
        "worst": [
            {
                "group": str(unique[group]),
                "images": int(num_images[group]),
                "accuracy": float(accuracies[group]),
            }
            for group in worst
        ],
    }


def group_interval(num_correct: np.ndarray, num_images: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the accuracy that does not assume independent images within a group.

    The interval is a percentile bootstrap over groups (Field and Welsh 2007) with a fixed seed. It is
    wider than a Wilson interval if the predictions for a group, such as the images of one plant, tend
    to be all correct or all wrong.

    Args:
        num_correct: int ``[G]``, how many images of each group are predicted correctly.
        num_images: int ``[G]``, how many images each group has.

    Example:
        >>> low, high = group_interval(np.array([8, 9, 10]), np.array([10, 10, 10]))
        >>> 0.8 <= low <= 0.9 <= high <= 1.0
        True
    """
    rng = np.random.default_rng(0)
    accuracies = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        drawn = rng.integers(0, len(num_images), len(num_images))
        accuracies[number] = num_correct[drawn].sum() / num_images[drawn].sum()
    low, high = np.quantile(accuracies, [0.025, 0.975])
    return float(low), float(high)


def write_out_of_fold(run: Run, predictions: Predictions) -> None:
    """Writes ``oof.csv``: path, true, group, fold, top1 and the probability of every class.

    Every readable image of the folds has one row, with the probabilities from the run that did not
    train on it. The rows are sorted by path.
    """
    write_lines(FoldsPaths(run.run_dir).predictions, _out_of_fold_lines(run, predictions))


def _out_of_fold_lines(run: Run, predictions: Predictions) -> Iterator[str]:
    rows, names = _read_rows(run), predictions.class_names
    yield csv_line("path", "true", "group", "fold", "top1", *(f"p:{name}" for name in names))
    classes = predictions.classes
    for index in sorted(range(len(predictions.paths)), key=predictions.paths.__getitem__):
        row = rows[predictions.paths[index]]
        probabilities = (str(value) for value in predictions.probabilities[index])
        yield csv_line(
            row.file,
            names[predictions.labels[index]],
            row.group,
            row.fold,
            names[classes[index]],
            *probabilities,
        )


def _read_rows(run: Run) -> dict[str, FoldRow]:
    return {row.file: row for row in FoldsPaths(run.run_dir).read_table()}
