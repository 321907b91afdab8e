"""Writes and reads the folder of ``seedtf ensemble``, which names the averaged runs and their weights.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.runs.folder import format_class_names
from seedtf.runs.paths import RunPaths

__all__ = ["is_ensemble", "read_ensemble", "write_ensemble"]

_FILE_NAME = "ensemble.json"


def is_ensemble(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is one of ``seedtf ensemble``."""
    return (Path(path) / _FILE_NAME).is_file()


def write_ensemble(
    folder: Path,
    runs: Sequence[RunPaths],
    weights: Sequence[float],
    class_names: Sequence[str],
    num_images: int,
) -> None:
    """Writes classes.txt, then ensemble.json with the weight and the relative path of each member.

    Args:
        folder: an existing folder.
        runs: the runs that are averaged, which are called members.
        weights: the weight of each member; they add up to 1.
        class_names: the classes in the order of the members' outputs.
        num_images: number of images that the weights were fitted on; 0 for equal weights.
    """
    members = [
        {"run": os.path.relpath(run.root, folder), "weight": weight}
        for run, weight in zip(runs, weights, strict=True)
    ]
    write_text(RunPaths(folder).classes, format_class_names(class_names))
    text = json.dumps({"fitted_on": num_images, "members": members}, indent=1) + "\n"
    write_text(folder / _FILE_NAME, text)


def read_ensemble(path: str | os.PathLike[str]) -> tuple[list[RunPaths], list[float]]:
    """Returns the members of an ensemble and their weights.

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
                f"{folder}: its run {run.root} is missing; put the run there, because an ensemble "
                "finds its runs by relative paths"
            )
    return runs, weights
