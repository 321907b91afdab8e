"""``seedtf ensemble``: averages the probabilities of several runs, with weights that it fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.errors import UserError
from seedtf.evaluation.labelled import predict_labelled
from seedtf.evaluation.metrics import fit_weights
from seedtf.runs.ensembles import is_ensemble, write_ensemble
from seedtf.runs.folds import FoldsPaths
from seedtf.runs.open import Run, load_run, open_validation
from seedtf.runs.paths import RunPaths

__all__ = ["Ensemble", "make_weighted_ensemble"]

_MIN_IMAGES = 50

_Unseen = dict[str, tuple[str, np.ndarray]]
"""Label and probabilities, float ``[K]``, of each image, by a model that has not trained on it.

The keys are absolute paths.
"""


@dataclass(frozen=True)
class Ensemble:
    """An ensemble that was written.

    Attributes:
        members: the runs and folders of ``seedtf folds`` that the user named.
        weights: the weight of each member; they add up to 1.
        images: number of images that the weights were fitted on; 0 if the weights are equal.
        accuracies: the accuracies on these images, of each member and then of the ensemble; empty if
            there are no such images.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    images: int
    accuracies: tuple[float, ...]


def make_weighted_ensemble(
    members: Sequence[str], out: str, *, equal_weights: bool = False, batch_size: int = 64
) -> Ensemble:
    """Writes the folder of an ensemble, which ``predict``, ``evaluate`` and ``export`` accept.

    The weights are fitted on images that no member has trained on: the validation images of a run.
    Every image of a cross-validation counts as such, because ``oof.csv`` has its prediction by the run
    that did not train on it. If the members have fewer than 50 such images in common, all weights are
    equal.

    Args:
        members: at least two runs or folders of ``seedtf folds``.
        out: the new folder.
        equal_weights: whether all members get the same weight, instead of fitted weights.
        batch_size: images per batch; changes the speed, not the predictions.

    Raises:
        UserError: there are fewer than two members, their classes or their ``--fit`` differ, or
            ``out`` exists.
    """
    folder = Path(out)
    if len(members) < 2:
        raise UserError("RUNS: an ensemble needs two runs or more; name them one after another")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out={folder}: already exists; pass a new folder")
    runs = [_open_member(member) for member in members]
    first = runs[0]
    for member, run in zip(members, runs, strict=True):
        if run.class_names != first.class_names:
            raise UserError(f"{member}: has other classes than {members[0]}; retrain one of them")
        if run.fit != first.fit:
            raise UserError(
                f"{member}: was trained with --fit={run.fit}, and {members[0]} with --fit={first.fit}; "
                "retrain one of them"
            )
    unseen: list[_Unseen] = [{}]
    if not equal_weights:
        unseen = [_predict_unseen(run, batch_size) for run in runs]
    shared = sorted(set.intersection(*map(set, unseen)))
    if len(shared) < _MIN_IMAGES:
        shared = []
    weights = np.full(len(runs), 1 / len(runs))
    accuracies: tuple[float, ...] = ()
    if shared:
        weights, accuracies = _fit_weights(unseen, shared, first.class_names)
    _write_members(folder, runs, weights, len(shared))
    return Ensemble(tuple(members), tuple(weights.tolist()), len(shared), accuracies)


def _open_member(member: str) -> Run:
    if is_ensemble(member):
        raise UserError(f"{member}: is an ensemble itself; name its runs instead")
    return load_run(member)


def _fit_weights(
    unseen: Sequence[_Unseen], shared: Sequence[str], class_names: Sequence[str]
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the weights, and the accuracies of each member and of the weighted mean."""
    position = {name: index for index, name in enumerate(class_names)}
    labels = np.array([position[unseen[0][path][0]] for path in shared])
    probabilities = np.array([[member[path][1] for path in shared] for member in unseen])
    weights = fit_weights(probabilities[:, np.arange(len(shared)), labels])
    mean = np.average(probabilities, axis=0, weights=weights)
    accuracies = [float((p.argmax(axis=1) == labels).mean()) for p in (*probabilities, mean)]
    return weights, tuple(accuracies)


def _write_members(folder: Path, runs: Sequence[Run], weights: np.ndarray, num_images: int) -> None:
    """Writes the ensemble; the weight of a cross-validation is divided equally among its runs."""
    paths: list[RunPaths] = []
    member_weights: list[float] = []
    for run, weight in zip(runs, weights.tolist(), strict=True):
        members = run.members or (run.paths,)
        paths += members
        member_weights += [weight / len(members)] * len(members)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_ensemble(folder, paths, member_weights, runs[0].class_names, num_images)
    except OSError as error:
        raise UserError(
            f"--out={folder}: {error.strerror or error}; pass another folder"
        ) from error


def _predict_unseen(run: Run, batch_size: int) -> _Unseen:
    """Predicts the images that a member has not trained on; reads ``oof.csv`` of a cross-validation."""
    if run.is_folds:
        return FoldsPaths(run.run_dir).read_predictions(run.class_names)
    labelled = predict_labelled(
        run.load_members(use_snapshots=False), *open_validation(run), tta=1, batch_size=batch_size
    )
    predictions = labelled.predictions
    rows = zip(predictions.paths, predictions.labels, predictions.probabilities, strict=True)
    return {
        os.path.join(labelled.data_root, path): (run.class_names[label], values)
        for path, label, values in rows
    }
