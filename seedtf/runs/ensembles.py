"""Writes and reads an ensemble's folder: the runs to average, and the weight of each in the average.

An averaged run is called a member. All members have the same classes, but may have them in different
orders. Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from seedtf.data.catalog import to_nfc
from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.runs.folder import format_class_names
from seedtf.runs.paths import RunPaths

__all__ = ["is_ensemble", "match_classes", "read_ensemble", "write_ensemble"]

_FILE_NAME = "ensemble.json"


def is_ensemble(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that ``seedtf ensemble`` wrote."""
    return (Path(path) / _FILE_NAME).is_file()


def write_ensemble(
    folder: Path,
    runs: Sequence[RunPaths],
    weights: Sequence[float],
    class_names: Sequence[str],
    num_fitted_on: int,
) -> None:
    """Writes classes.txt, and ensemble.json with the relative path and the weight of each member.

    Args:
        folder: an existing folder.
        runs: the members.
        weights: the weight of each member; the weights add up to 1.
        class_names: the classes in the order of the first member's outputs.
        num_fitted_on: number of images on which the weights were fitted; 0 for equal weights.
    """
    members = [
        {"run": os.path.relpath(run.root, folder), "weight": weight}
        for run, weight in zip(runs, weights, strict=True)
    ]
    write_text(RunPaths(folder).classes, format_class_names(class_names))
    text = json.dumps({"fitted_on": num_fitted_on, "members": members}, indent=1) + "\n"
    write_text(folder / _FILE_NAME, text)


def read_ensemble(path: str | os.PathLike[str]) -> tuple[list[RunPaths], list[float]]:
    """The members of an ensemble, and the weight of each member.

    Raises:
        UserError: ensemble.json is damaged, or the best model of a run is missing.
    """
    folder = Path(path)
    try:
        members = json.loads((folder / _FILE_NAME).read_text(encoding="utf-8"))["members"]
        runs = [RunPaths(folder / member["run"]) for member in members]
        weights = [float(member["weight"]) for member in members]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / _FILE_NAME}: damaged ({error}); run seedtf ensemble again"
        ) from None
    for run in runs:
        if not run.best.is_file():
            raise UserError(
                f"{folder}: the run {run.root} is missing or incomplete; put it back at that path (an "
                "ensemble refers to its runs by paths relative to its own folder)"
            )
    return runs, weights


def match_classes(
    class_names: Sequence[str], wanted: Sequence[str], run: str, other: str
) -> list[int]:
    """The position in ``class_names`` of each class of ``wanted``.

    Two runs can have the same classes in different orders: numeric labels from a table are sorted as
    numbers, but the names of class folders as text. Names that differ only in how their accents are
    encoded (composed or decomposed Unicode) are equal.

    Args:
        class_names: the classes of a run, in the order of the outputs of its model.
        wanted: the same classes, in the order that the caller needs; the result has one position for
            each.
        run: the name of the run with ``class_names``, for the message.
        other: the name of the run or ensemble with ``wanted``, for the message.

    Raises:
        UserError: ``class_names`` and ``wanted`` are not the same classes.

    Example:
        >>> match_classes(["10", "9"], ["9", "10"], "runs/b", "runs/a")
        [1, 0]
        >>> match_classes(["ash"], ["ash", "elm"], "runs/b", "runs/a")
        Traceback (most recent call last):
        seedtf.errors.UserError: runs/b: has other classes than runs/a (lacks 1, first 'elm'); leave \
it out, or train it with the same classes
    """
    position = {to_nfc(name): index for index, name in enumerate(class_names)}
    wanted_names = {to_nfc(name) for name in wanted}
    differences = {
        "lacks": [name for name in wanted if to_nfc(name) not in position],
        "adds": [name for name in class_names if to_nfc(name) not in wanted_names],
    }
    if any(differences.values()):
        text = "; ".join(
            f"{verb} {len(names)}, first {names[0]!r}"
            for verb, names in differences.items()
            if names
        )
        raise UserError(
            f"{run}: has other classes than {other} ({text}); leave it out, or train it with the same "
            "classes"
        )
    return [position[to_nfc(name)] for name in wanted]
