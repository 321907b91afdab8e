"""Weights from a file into a network, with every failure told in one line."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import keras

from seedtf.errors import UserError
from seedtf.model.archive import check_archived_weights, check_hdf5

__all__ = ["check_weights_file", "load_weights", "short_cause"]

_LOG = logging.getLogger(__name__)


def load_weights(model: keras.Model, path: str | os.PathLike[str], *, head: str) -> bool:
    """Loads the weights in ``path`` into ``model``: all of them, or all but the head's.

    Args:
        model: a functional model with a ``GlobalAveragePooling2D`` layer named ``"pool"`` where
            the body ends.
        path: ``.weights.h5`` or ``.keras`` as Keras or seedtf writes them, of the whole network or
            of its body; or a legacy ``.h5`` of the body (``*_notop.h5`` of keras.applications).
        head: name of the classifying layer.

    Returns:
        Whether the head was loaded. It is when the file has one of the same shape; otherwise it
        keeps its values, and a warning is logged.

    Raises:
        UserError: the file is missing, damaged, or holds the weights of another network. The
            model's weights are then undefined.
    """
    path = Path(path)
    check_weights_file(path)
    body = keras.Model(model.input, model.get_layer("pool").input)
    if path.name.endswith((".weights.h5", ".keras")) and _loads(model, path):
        return True
    try:
        _load(body, path)
    except Exception as error:  # zip, HDF5 and Keras raise many types for a foreign file
        raise UserError(
            f"--weights={path} does not fit this network ({short_cause(error)}); pass weights of "
            f"the same --model, here {model.name}"
        ) from error
    _LOG.warning("%s: loaded all but the classifier %r, which starts afresh", path, head)
    return False


def short_cause(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 160 characters."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
    return line if len(line) <= 160 else line[:157] + "..."


def _loads(model: keras.Model, path: Path) -> bool:
    try:
        _load(model, path)
    except Exception:  # the body alone may fit, and its failure tells the cause
        return False
    return True


def _load(model: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras 3 warns of internal lists that the file does not mirror; layers that lack weights
        # raise all the same
        warnings.filterwarnings("ignore", message="Skipping nested container")
        model.load_weights(str(path))


def check_weights_file(path: Path) -> None:
    """Raises UserError unless ``path`` is a file of one of the three kinds, by its content."""
    if not path.exists():
        raise UserError(
            f"--weights={path}: no such file; pass none, imagenet, or a .keras or .weights.h5 file"
        )
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(
            f"--weights={path} is not a weights file by its name; pass a .keras, .weights.h5 or "
            "legacy .h5 file"
        )
    try:
        if path.suffix == ".keras":
            check_archived_weights(path)
        else:
            check_hdf5(str(path), path.stat().st_size)
    except Exception as error:  # zip and HDF5 raise many types for a damaged file
        raise UserError(
            f"--weights={path} is damaged or not what its name says ({short_cause(error)}); get or "
            "write the file again"
        ) from error
