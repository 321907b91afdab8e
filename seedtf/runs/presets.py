"""Reads the KerasHub preset that a run recorded, and the licence of its initial weights.

TensorFlow and Keras are imported only if ``find_preset`` has to convert files of timm or transformers.
"""

from __future__ import annotations

import contextlib
import json
import os

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError, first_line
from seedtf.model.backbones import NOT_STATED
from seedtf.model.families import weights_licence
from seedtf.model.presets import Preset, find_preset, is_folder, is_preset
from seedtf.runs.folder import find_run
from seedtf.runs.paths import RunPaths

__all__ = [
    "WEIGHTS_LICENCE",
    "initial_weights_licence",
    "read_preset",
    "read_weights_licence",
    "resolve_preset",
]

WEIGHTS_LICENCE = "weights_licence"
"""The key of the licence of the initial weights in env.json."""


def resolve_preset(config: TrainConfig) -> Preset | None:
    """The KerasHub preset that ``--model`` names; None for a network of keras.applications.

    The files of the preset are not needed in two cases: for a resumed run, and for a run that starts
    from the weights of an earlier run with the same preset. In these cases, the preset is read from the
    folder of the resumed or the earlier run, where it was recorded.

    Raises:
        UserError: as ``find_preset``, or the record of the run is damaged.
    """
    if not is_preset(config.model):
        return None
    run_dir: str | os.PathLike[str] = config.resume
    if not run_dir and config.weights.endswith(".keras"):
        with contextlib.suppress(UserError):  # raised if the file is not inside a run
            run_dir, _ = find_run(config.weights)
    recorded = read_preset(run_dir) if run_dir else None
    source = os.path.abspath(config.model) if is_folder(config.model) else config.model
    if recorded is not None and recorded.source == source:
        return recorded
    return find_preset(config.model, with_weights=config.weights == "imagenet")


def read_preset(run_dir: str | os.PathLike[str]) -> Preset | None:
    """The KerasHub preset that a run recorded; None if its network is not a preset.

    Raises:
        UserError: the record is damaged.
    """
    path = RunPaths.of(run_dir).preset
    try:
        return Preset.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); restore it") from None


def initial_weights_licence(config: TrainConfig, preset: Preset | None) -> str:
    """The licence of the weights from which a run starts.

    It is empty for random weights, and ``NOT_STATED`` for a file outside any run. Weights that were
    trained in a run have the licence of the weights from which that run started.
    """
    if config.weights == "imagenet":
        return preset.licence if preset else weights_licence(config.model)
    if config.weights == "none":
        return ""
    with contextlib.suppress(UserError):  # raised if the file is not inside a run
        return read_weights_licence(find_run(config.weights)[0])
    return NOT_STATED


def read_weights_licence(run_dir: str | os.PathLike[str]) -> str:
    """The licence that a run recorded for its initial weights; empty if none is recorded."""
    try:
        recorded = json.loads(RunPaths.of(run_dir).env.read_text(encoding="utf-8"))
        return str(recorded.get(WEIGHTS_LICENCE, ""))
    except (OSError, ValueError, AttributeError):
        return ""
