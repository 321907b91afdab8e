"""TensorBoard, for those who have it."""

from __future__ import annotations

import importlib
from pathlib import Path

import keras

from seedtf.errors import UserError

__all__ = ["tensorboard_callback"]


def tensorboard_callback(log_dir: Path) -> keras.callbacks.Callback:
    """Keras's TensorBoard callback, writing to ``log_dir`` once per epoch.

    Raises:
        UserError: tensorboard is not installed; TensorFlow brings it only up to 2.20.
    """
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise UserError(
            f"--tensorboard: tensorboard cannot be imported ({error});"
            " run: pip install seedtf[tensorboard]"
        ) from error
    return keras.callbacks.TensorBoard(log_dir=str(log_dir), write_graph=False)
