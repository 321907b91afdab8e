"""Removes the user's paths and host names from the JSON values that ``seedtf publish`` hands on.

The files config.json and parity.json of a run contain paths, in which folders often have the name of a
user, a customer or a host. This module does not import TensorFlow or Keras.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seedtf.config.data_flags import PATH_FLAGS

__all__ = ["EMPTIED_FLAGS", "SHORTENED_FLAGS", "UNCHANGED_FLAGS", "remove_local_paths"]

EMPTIED_FLAGS = ("run_dir", "resume", "continue_from", "cache_dir", "data_service")
"""Flags that become empty, because they say only where something was during the training."""

SHORTENED_FLAGS = (
    *(name for name in PATH_FLAGS if name not in EMPTIED_FLAGS),
    "weights",
    "model",
    "teacher",
    "run",
)
"""Flags that keep the last part of their path, because it says what the run was trained from.

``run`` is no flag, but the key of the run folder in parity.json.
"""

UNCHANGED_FLAGS = ("group_regex",)
"""Flags that do not change, although their values may look like paths."""

_PUBLIC = ("hf://", "kaggle://")
# A folder of this form is the home folder of a user, so that its name is the name of the user.
_HOME = re.compile(r"(/mnt/\w)?/(home|Users)/[^/]+")


def remove_local_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the content of config.json or parity.json without local paths and host names.

    Flags in ``EMPTIED_FLAGS`` become empty. Of the flags in ``SHORTENED_FLAGS``, and of every other
    text that is an absolute path or a URL, the last part remains, such as ``plants`` of
    ``/home/ann/plants`` or of ``gs://bucket/plants``; of a home folder itself, ``home``. A path of
    ``model`` gets ``./`` before it. Addresses at Hugging Face and Kaggle (``hf://``, ``kaggle://``) and
    all other values are unchanged, so the flags of a run are still a valid ``TrainConfig``.

    Args:
        values: JSON values by name, of which ``resolved`` and ``rows`` are nested; not modified.

    Example:
        >>> remove_local_paths({"data_dir": "/home/ann/plants", "run_dir": "runs/oak", "epochs": 20})
        {'data_dir': 'plants', 'run_dir': '', 'epochs': 20}
        >>> remove_local_paths({"model": "hf://timm/resnet18", "resolved": {"data_root": "/srv/a/b"}})
        {'model': 'hf://timm/resnet18', 'resolved': {'data_root': 'b'}}
    """
    return {name: _clean(name, value) for name, value in values.items()}


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return remove_local_paths(value)
    if isinstance(value, (list, tuple)):
        return [_clean(name, element) for element in value]
    if not isinstance(value, str) or name in UNCHANGED_FLAGS or value.startswith(_PUBLIC):
        return value
    if name in EMPTIED_FLAGS:
        return ""
    is_path = name in SHORTENED_FLAGS or value.startswith(("/", "~")) or "://" in value
    if not is_path:
        return value
    last = _last_part(value)
    # A folder needs a slash, because --model may take a name without one for the name of a network.
    return f"./{last}" if name == "model" and "/" in value else last


def _last_part(path: str) -> str:
    """The last part of a path or URL; ``home`` for a user's home folder."""
    path = path.rstrip("/")
    return "home" if _HOME.fullmatch(path) else path.rpartition("/")[2]
