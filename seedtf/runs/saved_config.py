"""Reads the flags of an earlier run, to resume it or to continue it in a new run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedtf.config.data_flags import LAYOUT_FLAGS, SPLIT_FLAGS
from seedtf.config.flags import AUTO, expand_home, number_or_auto
from seedtf.config.recipes import (
    DEFAULT_WEIGHTS,
    ORIGINAL,
    RECIPES,
    choose_recipe,
    recipe_changes,
)
from seedtf.config.train_config import NEWEST, PATH_FLAGS, TrainConfig
from seedtf.errors import UserError
from seedtf.model.presets import is_folder
from seedtf.report import report
from seedtf.runs.folder import newest_run, read_settings, resolve_weights
from seedtf.runs.paths import RunPaths

__all__ = ["RESUME_MAY_CHANGE", "continued_config", "load_resumed", "resumed_config"]

RESUME_MAY_CHANGE = (
    "continue_from",
    "resume",
    "run_dir",
    "show",
    "time_limit",
    "cache",
    "check",
    "cluster",
    "data_service",
    "dry_run",
    "placement",
    "save_minutes",
    "strategy",
    "strict",
    "teacher",
    "tensorboard",
    "track",
    "worker_timeout",
    *PATH_FLAGS,
    *LAYOUT_FLAGS,
    *SPLIT_FLAGS,
)
"""Flags that a resumed run may change, because they do not change its results.

They include the paths of the data, the flags that decide the split, and ``teacher``. These flags may
differ, but the data, the split and the teacher's probabilities must be those of the saved state.
"""


def resumed_config(resume: str, given: Mapping[str, Any]) -> TrainConfig:
    """Returns the flags of an earlier run, with the changes in ``given``.

    Args:
        resume: a run folder; or ``newest``, which means the folder ``given["run_dir"]`` if that is set,
            otherwise the newest run below ``runs/``.
        given: the flags of the command that resumes the run.

    Raises:
        UserError: there is no such run, or ``given`` changes a flag that is not in
            ``RESUME_MAY_CHANGE``.
    """
    folder = given.get("run_dir", "") if resume == NEWEST else resume
    run_dir = Path(expand_home("resume", folder)) if folder else newest_run()
    values = _read_saved_flags(run_dir, "--resume")
    for name, value in given.items():
        value = number_or_auto(TrainConfig, name, value)
        value = expand_home(name, value) if isinstance(value, str) else value
        if name == "weights" and value not in ("none", "imagenet"):
            value = os.path.abspath(resolve_weights(value))  # config.json has an absolute path
        if name == "model" and is_folder(value):
            value = os.path.abspath(value)
        if name not in RESUME_MAY_CHANGE and values.get(name) != value:
            raise UserError(
                f"--{name}={value}: the run in {run_dir} has {values.get(name)!r}; leave the flag "
                "out, or start a new run"
            )
        values[name] = value
    folders = {"run_dir": str(run_dir), "resume": str(run_dir), "continue_from": ""}
    return TrainConfig(**{**values, **folders})


def continued_config(continue_from: str, given: Mapping[str, Any]) -> TrainConfig:
    """Returns the flags of a new run that starts from the best weights and split of an earlier run.

    The flags name the files of the weights and of the split, so the new flags.txt does not need
    ``--continue``. The optimizer's state is not used, because it belongs to the end of the earlier
    learning-rate schedule.

    Args:
        continue_from: the folder of the earlier run.
        given: the flags of the command, which replace those of the earlier run.

    Raises:
        UserError: there is no such run, it has no best model, or ``given`` has ``weights``.
    """
    run_dir = Path(expand_home("continue", continue_from))
    values = _read_saved_flags(run_dir, "--continue")
    if "weights" in given:
        raise UserError(
            f"--continue={run_dir}: starts from the weights of that run; leave --weights out"
        )
    # auto chose the recipe from the initial weights of the earlier run. It could choose another recipe
    # for the trained weights, so the new run names the recipe.
    recipe = choose_recipe(values.get("recipe", AUTO), values.get("weights", DEFAULT_WEIGHTS))
    values |= {"recipe": recipe}
    values |= {"weights": resolve_weights(str(run_dir), flag="--continue")}
    values |= {"run_dir": "", "resume": "", "dry_run": False}
    if given.get("recipe", recipe) != recipe:
        # The new recipe has its own values for the flags that recipes set, so the earlier values are
        # dropped. All recipes set the same flags, so ORIGINAL has their names.
        values = {name: value for name, value in values.items() if name not in RECIPES[ORIGINAL]}
    has_other_split = given.get("val_dir") or given.get("split_csv")
    if has_other_split:
        values |= {"val_dir": "", "split_csv": ""}
    elif not values.get("val_dir"):
        values |= {"split_csv": os.path.abspath(RunPaths(run_dir).split), "test_fraction": 0.0}
    split = "" if has_other_split else " and with its split"
    report(
        "continue",
        f"{run_dir}: a new run with its flags, from the weights of its best epoch{split}; the "
        "optimizer's state is not taken over, and the learning-rate schedule starts again",
    )
    return TrainConfig(**{**values, **given, "continue_from": ""})


def _read_saved_flags(run_dir: Path, flag: str) -> dict[str, Any]:
    """The flags in config.json that this version has; ``flag`` is for the error message."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    saved = read_settings(run_dir, flag=flag)
    # Releases without --twins did not look for near duplicates. If their runs are resumed or continued,
    # looking for near duplicates could change the split, so it is switched off.
    return {"twins": "ignore"} | {name: saved[name] for name in saved if name in names}


def load_resumed(config: TrainConfig) -> TrainConfig:
    """Returns the flags of the run that ``config`` resumes or continues, with those set in ``config``.

    Flags that differ from their defaults count as set. If ``config`` neither resumes nor continues a
    run, it is returned unchanged.

    Raises:
        UserError: as ``resumed_config`` and ``continued_config``.
    """
    if config.continue_from and not config.resume:
        # The epochs are always those of ``config``, even if they are the recipe's default.
        given = {**_changed_flags(config), "epochs": config.epochs}
        return continued_config(config.continue_from, given)
    # If the command line has already read the flags of the run, run_dir and resume are the same folder.
    if not config.resume or config.resume == config.run_dir:
        return config
    return resumed_config(config.resume, _changed_flags(config))


def _changed_flags(config: TrainConfig) -> dict[str, Any]:
    """The flags that differ from their defaults, which means that a Python caller has set them."""
    recipe = config.recipe_in_use
    # A flag that recipes set has no default of its own, so it is compared with the recipe in use.
    changed_from_recipe = recipe_changes(recipe, config.as_dict())
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if (
            field.name in changed_from_recipe
            if field.name in RECIPES[recipe]
            else getattr(config, field.name) != field.default
        )
    }
