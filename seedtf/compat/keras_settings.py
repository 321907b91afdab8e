"""Checks or overrides the user's settings of Keras: backend, image layout, float type, epoch limits.

The settings apply to the whole process. They come from environment variables and from
``~/.keras/keras.json``, which may have been written for another project. seedtf needs the backend
TensorFlow, channels last and float32. A command of seedtf sets these values, and reports each setting
of the user that it ignores. A public function that is called from Python raises an error instead,
because other models of the caller may need the user's settings.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from seedtf.errors import UserError

__all__ = ["check_keras_settings", "override_keras_settings"]

_NEEDED = {
    "backend": "tensorflow",
    "floatx": "float32",
    "image_data_format": "channels_last",
    "epsilon": 1e-7,
}
# The import of Keras fails if keras.json has another value for one of these settings.
_KERAS_ACCEPTS = {
    "floatx": ("bfloat16", "float16", "float32", "float64"),
    "image_data_format": ("channels_first", "channels_last"),
}
# These environment variables make Keras end every ``fit`` early, without a message.
_FIT_LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")


def override_keras_settings() -> list[str]:
    """Makes Keras use the settings that seedtf needs; call it before Keras is imported.

    Returns:
        A message for each place with settings of the user that are ignored. If ``KERAS_BACKEND`` is
        set, a backend in keras.json is not reported, because Keras ignores that backend, too.

    Raises:
        UserError: keras.json contains a value with which Keras cannot be imported.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_settings_of_keras_do_not_reach_a_command``.
    """
    notes = []
    backend = os.environ.get("KERAS_BACKEND")
    if backend not in (None, "tensorflow"):
        notes.append(f"KERAS_BACKEND={backend} is ignored; seedtf uses tensorflow")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in _FIT_LIMITS:
        if name in os.environ:
            notes.append(f"{name}={os.environ.pop(name)} is ignored; pass --epochs")
    path, settings = _read_keras_json()
    if backend is not None:
        settings.pop("backend", None)
    ignored = {
        name: settings[name]
        for name, needed in _NEEDED.items()
        if settings.get(name, needed) != needed
    }
    if ignored:
        found = ", ".join(f"{name} {value}" for name, value in ignored.items())
        needed = ", ".join(str(_NEEDED[name]) for name in ignored)
        notes.append(f"{path}: {found} is ignored; seedtf uses {needed}")
    if ignored.keys() - {"backend"}:  # the backend was set above, through KERAS_BACKEND
        _set_needed_values()
    return notes


def check_keras_settings() -> None:
    """Raises UserError if seedtf does not work with the Keras settings of this process.

    This function does not import Keras. If Keras has not been imported yet, the environment and
    keras.json are checked, because Keras will read them. ``epsilon`` is not checked, because seedtf
    works with any value of it.

    Tried with Keras 3.15.1; tested by
    ``test_a_function_called_from_python_names_the_keras_setting_it_refuses``.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        path, settings = _read_keras_json()
        settings["backend"] = os.environ.get("KERAS_BACKEND", settings.get("backend", "tensorflow"))
        source = f"the environment or {path}"
    else:
        path, source = None, "keras.config"
        settings = {
            "backend": keras.backend.backend(),
            "floatx": keras.backend.floatx(),
            "image_data_format": keras.backend.image_data_format(),
        }
    for name in ("backend", "floatx", "image_data_format"):
        value, needed = settings.get(name, _NEEDED[name]), _NEEDED[name]
        if value == needed:
            continue
        if name == "backend":
            remedy = "set KERAS_BACKEND=tensorflow before Keras is imported"
        elif path is not None:
            remedy = f"correct it in {path}"
        else:
            remedy = f"call keras.backend.set_{name}({needed!r}) first"
        raise UserError(f"{name}={value} in {source}: seedtf needs {needed}; {remedy}")


def _set_needed_values() -> None:
    import keras

    keras.backend.set_floatx(_NEEDED["floatx"])
    keras.backend.set_image_data_format(_NEEDED["image_data_format"])
    keras.backend.set_epsilon(_NEEDED["epsilon"])


def _read_keras_json() -> tuple[Path, dict[str, Any]]:
    """The path of keras.json, and its settings; ``{}`` if the file does not exist or is not JSON.

    Raises:
        UserError: the file contains a value with which Keras cannot be imported.
    """
    home = os.path.expanduser("~")
    # Keras looks for its folder in this order, too.
    folder = os.environ.get("KERAS_HOME") or os.path.join(
        home if os.access(home, os.W_OK) else "/tmp", ".keras"
    )
    path = Path(os.path.expanduser(folder)) / "keras.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return path, {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no JSON object; correct or remove it")
    for name, allowed in _KERAS_ACCEPTS.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise UserError(
                f"{path}: {name} is {settings[name]!r}, which Keras refuses; correct or remove it"
            )
    if not isinstance(settings.get("epsilon", 1e-7), float):
        raise UserError(
            f"{path}: epsilon is {settings['epsilon']!r}, which Keras refuses; correct or remove it"
        )
    return path, settings
