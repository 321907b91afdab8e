"""``seedtf ensemble``: the weighted mean of the probabilities of several runs, with fitted weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import to_nfc
from seedtf.errors import UserError
from seedtf.evaluation.labelled import predict_labelled
from seedtf.evaluation.member_images import describe_unused, read_member_images, shared_images
from seedtf.evaluation.metrics import fit_weights
from seedtf.report import report
from seedtf.runs.ensembles import is_ensemble, match_classes, write_ensemble
from seedtf.runs.folds import FoldsPaths
from seedtf.runs.open import Run, load_run, open_validation
from seedtf.runs.paths import RunPaths

__all__ = ["MIN_IMAGES", "Ensemble", "make_weighted_ensemble"]

MIN_IMAGES = 50
"""Smallest number of shared images on which weights are fitted."""


@dataclass(frozen=True)
class Ensemble:
    """An ensemble that was written.

    Attributes:
        members: the runs and folders of ``seedtf folds`` that the user named.
        weights: the weight of each member; they add up to 1.
        images: number of images that the weights were fitted on; 0 if the weights are equal.
        shared: number of images that all members predict without having trained on them; 0 if equal
            weights were requested, because such images are then not looked for.
        accuracies: the accuracy of each member, then of the ensemble, on the images that the weights
            were fitted on; empty if no weights were fitted.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]
    images: int
    shared: int
    accuracies: tuple[float, ...]


def make_weighted_ensemble(
    members: Sequence[str], out: str, *, equal_weights: bool = False, batch_size: int = 64
) -> Ensemble:
    """Writes the folder of an ensemble, which ``predict``, ``evaluate`` and ``export`` accept.

    The members must have the same classes. If a member has them in another order, its outputs are
    matched by the names of the classes. The ensemble has the order of the first member.

    The weights are fitted on images that all members can predict without having trained on them. A run
    can do so for its validation images. A cross-validation can do so for all its images, because
    ``oof.csv`` has a prediction by the run that did not train on the image. If there are fewer than
    ``MIN_IMAGES`` such images, all weights are equal.

    A line is printed for each member whose classes are in another order, and for each member with
    images that cannot be used to fit the weights.

    Args:
        members: at least two runs or folders of ``seedtf folds``.
        out: the new folder.
        equal_weights: whether all members get the same weight; otherwise the weights are fitted.
        batch_size: images per batch; changes the speed, not the predictions.

    Raises:
        UserError: there are fewer than two members; a member is neither a run nor a folder of
            ``seedtf folds``; two members have different classes, a different ``--fit``, or different
            labels for the same image; or ``out`` exists and is not an empty folder.
    """
    folder = Path(out)
    if len(members) < 2:
        raise UserError("RUNS: an ensemble needs two runs or more; name them one after another")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out={folder}: already exists; pass a new folder")
    runs = [_open_member(member) for member in members]
    orders = [
        _match_member_classes(member, run, members[0], runs[0])
        for member, run in zip(members, runs, strict=True)
    ]
    weights = np.full(len(runs), 1 / len(runs))
    accuracies: tuple[float, ...] = ()
    labels: dict[str, int] = {}
    if not equal_weights:
        labels = _read_shared_labels(members, runs)
    if len(labels) >= MIN_IMAGES:
        labels, probabilities = _predict_shared(runs, orders, labels, batch_size)
        if len(labels) >= MIN_IMAGES:
            weights, accuracies = _fit_weights(probabilities, np.array(list(labels.values())))
    num_images = len(labels) if accuracies else 0
    _write_members(folder, runs, weights, num_images)
    return Ensemble(tuple(members), tuple(weights.tolist()), num_images, len(labels), accuracies)


def _open_member(member: str) -> Run:
    if is_ensemble(member):
        raise UserError(f"{member}: is an ensemble itself; name its runs instead")
    run = load_run(member)
    if run.checkpoint:
        raise UserError(
            f"{member}: an ensemble averages the best models of its runs; name the run "
            f"{run.run_dir} instead"
        )
    return run


def _match_member_classes(member: str, run: Run, first_member: str, first: Run) -> list[int]:
    """Returns the position of each class of ``first`` in ``run``.

    Raises:
        UserError: the two runs have different classes, or were trained with a different ``--fit``.
    """
    order = match_classes(run.class_names, first.class_names, member, first_member)
    if run.fit != first.fit:
        raise UserError(
            f"{member}: was trained with --fit={run.fit}, and {first_member} with --fit={first.fit}; "
            "retrain one of them"
        )
    if order != sorted(order):
        report(
            "classes",
            f"{member}: has the classes of {first_member} in another order; they are matched by name",
        )
    return order


def _read_shared_labels(members: Sequence[str], runs: Sequence[Run]) -> dict[str, int]:
    """Reads the labels of the images that all members predict and no member has trained on.

    The keys are absolute paths. A label is an index into the classes of the first member.
    """
    images = [
        read_member_images(member, run.run_dir) for member, run in zip(members, runs, strict=True)
    ]
    shared = shared_images(images)
    for line in describe_unused(images, shared):
        report("images", line)
    position = {to_nfc(name): index for index, name in enumerate(runs[0].class_names)}
    labels = {path: images[0].unseen[path] for path in shared}
    for path, label in labels.items():
        if to_nfc(label) not in position:
            raise UserError(
                f"{members[0]}: the label {label!r} of {path} is none of its classes; restore its files"
            )
    return {path: position[to_nfc(label)] for path, label in labels.items()}


def _predict_shared(
    runs: Sequence[Run], orders: Sequence[list[int]], labels: dict[str, int], batch_size: int
) -> tuple[dict[str, int], np.ndarray]:
    """Predicts the shared images, and leaves out the images that cannot be read.

    Returns:
        The labels, by path, and the probabilities, float ``[M, N, K]``, of M members for N images. The
        classes are in the order of the first member.
    """
    predicted = [_predict_unseen(run, batch_size) for run in runs]
    kept = {
        path: label for path, label in labels.items() if all(path in rows for rows in predicted)
    }
    shape = (len(kept), len(orders[0]))
    probabilities = [
        np.array([rows[path] for path in kept]).reshape(shape)[:, order]
        for rows, order in zip(predicted, orders, strict=True)
    ]
    return kept, np.array(probabilities)


def _fit_weights(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the weights, and the accuracies of each member and of the weighted mean.

    Args:
        probabilities: float ``[M, N, K]``, of M members for N images.
        labels: int ``[N]``, the index of each image's class.
    """
    weights = fit_weights(probabilities[:, np.arange(len(labels)), labels])
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


def _predict_unseen(run: Run, batch_size: int) -> dict[str, np.ndarray]:
    """The probabilities, float ``[K]``, of the images that a member has not trained on, by path.

    The classes are in the order of this member. For a cross-validation, the probabilities are read from
    ``oof.csv``.
    """
    if run.is_folds:
        rows = FoldsPaths(run.run_dir).read_predictions(run.class_names)
        return {path: probabilities for path, (_, probabilities) in rows.items()}
    labelled = predict_labelled(
        run.load_members(use_snapshots=False), *open_validation(run), tta=1, batch_size=batch_size
    )
    predictions, root = labelled.predictions, run.settings["resolved"]["data_root"]
    return {
        os.path.join(root, path): probabilities
        for path, probabilities in zip(predictions.paths, predictions.probabilities, strict=True)
    }
