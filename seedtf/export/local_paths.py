"""Removes the user's paths and host names from the JSON values that ``seedtf publish`` hands on.

The files config.json and parity.json of a run contain paths, and folders are often named after a user,
a customer or a host. This module does not import TensorFlow or Keras.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seedtf.config.data_flags import PATH_FLAGS

__all__ = ["EMPTIED_FLAGS", "SHORTENED_FLAGS", "UNCHANGED_FLAGS", "remove_local_paths"]

EMPTIED_FLAGS = ("run_dir", "resume", "continue_from", "cache_dir", "data_service")
"""Flags that become empty, because they only name places on the computer of the training."""

SHORTENED_FLAGS = (
    *(name for name in PATH_FLAGS if name not in EMPTIED_FLAGS),
    "weights",
    "model",
    "teacher",
    "run",
)
"""Flags of which the last part of the path remains, because it names what the run was trained from.

``run`` is not a flag, but the key of the run folder in parity.json.
"""

UNCHANGED_FLAGS = ("group_regex",)
"""Flags that do not change, although their values may look like paths."""

_PUBLIC = ("hf://", "kaggle://")
# The home folder of a user, whose last part is the name of the user. /mnt/c is a Windows drive in WSL.
_HOME = re.compile(r"(/mnt/\w)?/(home|Users)/[^/]+")


def remove_local_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the content of config.json or parity.json without local paths and host names.

    * Flags in ``EMPTIED_FLAGS`` become empty.
    * Of flags in ``SHORTENED_FLAGS``, and of every other text that is an absolute path or a URL, only
      the last part remains, such as ``plants`` of ``/home/ann/plants`` or of ``gs://bucket/plants``.
      The home folder of a user becomes ``home``. A path in ``model`` gets ``./`` in front.
    * All other values are unchanged, also addresses at Hugging Face and Kaggle (``hf://``,
      ``kaggle://``).

    The flags of a run are still a valid ``TrainConfig``.

    Args:
        values: the JSON values by name, which may be nested; they are not modified.

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
    # The slash marks a folder, because --model could take a name without a slash for that of a network.
    return f"./{last}" if name == "model" and "/" in value else last


def _last_part(path: str) -> str:
    """The last part of a path or URL; ``home`` for a user's home folder."""
    path = path.rstrip("/")
    return "home" if _HOME.fullmatch(path) else path.rpartition("/")[2]
