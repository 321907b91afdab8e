"""Loads weights from a file into a network; a file that does not fit is a UserError."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import keras

from seedtf.errors import UserError, first_line
from seedtf.model.archive import check_archived_weights, check_hdf5
from seedtf.report import warn

__all__ = ["check_weights_file", "load_weights"]


def load_weights(model: keras.Model, path: str | os.PathLike[str], *, head: str) -> bool:
    """Loads the weights in ``path`` into ``model``, including the head if the head of the file fits.

    Args:
        model: a functional model whose body ends before a layer named ``"pool"``.
        path: a ``.weights.h5`` or ``.keras`` file of the whole network or of its body, or a legacy
            ``.h5`` file of the body (``*_notop.h5`` of keras.applications).
        head: name of the classification layer.

    Returns:
        Whether the head was loaded too. If the file has no head of the same shape, the head of the
        model keeps its values and a warning is printed.

    Raises:
        UserError: the file is missing or damaged, or contains the weights of another network. Some
            weights of the model may then have been overwritten.
    """
    path = Path(path)
    check_weights_file(path)
    body = keras.Model(model.input, model.get_layer("pool").input)
    if path.name.endswith((".weights.h5", ".keras")) and _try_load(model, path):
        return True
    try:
        _load(body, path)
    except Exception as error:
        # For a file that does not fit, zip, HDF5 and Keras raise exceptions of many types.
        raise UserError(
            f"--weights={path} does not fit this network ({first_line(error)}); pass weights of "
            f"the same --model, here {model.name}"
        ) from error
    warn(
        f"{path}: all weights were loaded except the classifier {head!r}, which keeps its initial "
        "weights"
    )
    return False


def _try_load(model: keras.Model, path: Path) -> bool:
    try:
        _load(model, path)
    except Exception:
        # The caller then loads the body alone; if that fails too, it reports that second error.
        return False
    return True


def _load(model: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras 3 warns about each internal list that the file does not have, even if the list holds no
        # weights. A layer whose weights are missing is still an error.
        warnings.filterwarnings("ignore", message="Skipping nested container")
        model.load_weights(str(path))


def check_weights_file(path: Path) -> None:
    """Raises UserError unless ``path`` is an undamaged ``.keras``, ``.h5`` or ``.hdf5`` file."""
    if not path.exists():
        raise UserError(
            f"--weights={path}: no such file; pass --weights=none, --weights=imagenet, or a .keras "
            "or .weights.h5 file"
        )
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(
            f"--weights={path} does not have the suffix of a weights file; pass a .keras, .weights.h5 "
            "or legacy .h5 file"
        )
    try:
        if path.suffix == ".keras":
            check_archived_weights(path)
        else:
            check_hdf5(str(path), path.stat().st_size)
    except Exception as error:  # for a damaged file, zip and HDF5 raise exceptions of many types
        raise UserError(
            f"--weights={path} is damaged or has the wrong suffix ({first_line(error)}); download "
            "or write the file again"
        ) from error
