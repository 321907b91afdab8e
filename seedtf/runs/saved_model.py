"""Finds the newest exported SavedModel in a folder; reads its signature and its image settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from seedtf.errors import UserError, first_line
from seedtf.images.header import FIT_MODES, MAX_PIXELS, STRETCH
from seedtf.runs.paths import PARITY

__all__ = [
    "ImageSettings",
    "ServingSignature",
    "find_saved_model",
    "is_version",
    "newest_saved_model",
    "read_image_settings",
]

_SAVED_MODEL = "saved_model.pb"
_INPUT, _OUTPUTS = "image_bytes", {"probabilities", "classes"}


class ImageSettings(NamedTuple):
    """How an export decodes images.

    Attributes:
        fit: the value of ``--fit``, which makes images square.
        max_pixels: the largest width × height that is decoded.
    """

    fit: str = STRETCH
    max_pixels: int = MAX_PIXELS


class ServingSignature:
    """A callable that classifies encoded images: the signature ``serving_default`` of an export.

    Args:
        path: the folder of a SavedModel.

    Attributes:
        num_classes: number of classes K of the model.

    Raises:
        UserError: the folder is damaged, or not an export of seedtf.
    """

    def __init__(self, path: Path) -> None:
        try:
            # The loaded object owns the variables, so it is kept together with its signature.
            self._loaded = tf.saved_model.load(os.fspath(path))
            signature = self._loaded.signatures["serving_default"]
            inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        except Exception as error:  # the loader raises errors of many types
            cause = first_line(error)
            raise UserError(
                f"{path}: cannot be loaded as an export ({cause}); export the run again"
            ) from error
        if set(inputs) != {_INPUT}:
            raise UserError(f"{path}: takes {', '.join(sorted(inputs))}; pass a seedtf export")
        if not isinstance(outputs, dict) or not outputs.keys() >= _OUTPUTS:
            raise UserError(f"{path}: returns no probabilities and classes; pass a seedtf export")
        self._signature: Any = signature
        self.num_classes = int(outputs["probabilities"].shape[-1])

    def __call__(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs by name, such as ``probabilities`` float32 ``[B, K]``.

        Args:
            image_bytes: contents of image files, string ``[B]``.
        """
        return self._signature(image_bytes=image_bytes)


def find_saved_model(path: str | os.PathLike[str]) -> Path:
    """The SavedModel at ``path``: the folder itself, or the newest version in it.

    Raises:
        UserError: there is no SavedModel.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; pass the folder that seedtf export printed")
    newest = newest_saved_model(path)
    if newest is None:
        raise UserError(
            f"{path}: not an export (no {_SAVED_MODEL}); pass the folder that seedtf export printed"
        )
    return newest


def newest_saved_model(path: Path) -> Path | None:
    """``path`` itself if it is a SavedModel; otherwise its sub-folder with the highest version number.

    The result is None if there is no numbered sub-folder, or if the one with the highest number is not
    a SavedModel. A lower version is not returned, because a model server would not serve it either.
    """
    if (path / _SAVED_MODEL).is_file():
        return path
    if not path.is_dir():
        return None
    versions = [entry for entry in path.iterdir() if is_version(entry.name)]
    newest = max(versions, key=lambda entry: int(entry.name), default=None)
    return newest if newest and (newest / _SAVED_MODEL).is_file() else None


def read_image_settings(saved_model: Path) -> ImageSettings:
    """How an export decodes images.

    A setting has its default value if parity.json cannot be read, or was written by a release without
    the setting.
    """
    try:
        values = json.loads((saved_model / "assets.extra" / PARITY).read_text(encoding="utf-8"))
        fit, max_pixels = values.get("fit"), values.get("max_pixels")
    except (OSError, ValueError, AttributeError):
        return ImageSettings()
    is_limit = isinstance(max_pixels, int) and max_pixels > 0
    return ImageSettings(
        fit if fit in FIT_MODES else STRETCH, max_pixels if is_limit else MAX_PIXELS
    )


def is_version(name: str) -> bool:
    """Whether a model server treats a folder with this name as a version: it has only ASCII digits."""
    return name.isascii() and name.isdigit()
