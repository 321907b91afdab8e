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
    BEFORE_FLAG,
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
"""The flags that a command may change when it resumes a run, because they do not change the results.

The tuple includes the paths of the data, the flags that decide the split, and ``teacher``. For example,
the data may have been moved. But the data itself, the split and the teacher's probabilities must be the
same as in the saved state; that is checked elsewhere.
"""


def resumed_config(resume: str, given: Mapping[str, Any]) -> TrainConfig:
    """The flags of an earlier run, with the changes in ``given``.

    Args:
        resume: a run folder, or ``newest``. The value ``newest`` means the folder ``given["run_dir"]``,
            or the newest run below ``runs/`` if ``run_dir`` is not given.
        given: the flags that the user has passed to resume the run.

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
            value = os.path.abspath(resolve_weights(value))  # as it is recorded in config.json
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
    """The flags of a new run with the split of an earlier run, which starts from its best weights.

    The returned flags name the files with the weights and the split, so the flags.txt of the new run
    does not need ``--continue``. The optimizer's state is not used, because it belongs to the end of
    the earlier learning-rate schedule.

    Args:
        continue_from: the folder of the earlier run.
        given: the flags that the user has passed; they replace the flags of the earlier run.

    Raises:
        UserError: there is no such run, it has no best model, or ``given`` has ``weights``.
    """
    run_dir = Path(expand_home("continue", continue_from))
    values = _read_saved_flags(run_dir, "--continue")
    if "weights" in given:
        raise UserError(
            f"--continue={run_dir}: starts from the weights of that run; leave --weights out"
        )
    # The value auto chose the recipe from the initial weights of the earlier run. For trained weights
    # it could choose another recipe, so the recipe that it chose is passed on by name.
    recipe = choose_recipe(values.get("recipe", AUTO), values.get("weights", DEFAULT_WEIGHTS))
    values |= {"recipe": recipe}
    values |= {"weights": resolve_weights(str(run_dir), flag="--continue")}
    values |= {"run_dir": "", "resume": "", "dry_run": False}
    if given.get("recipe", recipe) != recipe:
        # Drop the earlier values of all flags that a recipe sets, so that the new recipe sets them. All
        # recipes set the same flags; their names are taken from ORIGINAL.
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
    """The flags in config.json, without those that this version of seedtf does not have.

    Args:
        run_dir: the run folder.
        flag: the flag that names the folder, for the error message.
    """
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    saved = read_settings(run_dir, flag=flag)
    return BEFORE_FLAG | {name: saved[name] for name in saved if name in names}


def load_resumed(config: TrainConfig) -> TrainConfig:
    """The flags of the run that ``config`` resumes or continues, with the changes in ``config``.

    A flag of ``config`` that differs from its default counts as a change. If ``config`` neither resumes
    nor continues a run, ``config`` itself is returned.

    Raises:
        UserError: as ``resumed_config`` and ``continued_config``.
    """
    if config.continue_from and not config.resume:
        # Use the epochs of ``config`` even if they are a default value.
        given = {**_changed_flags(config), "epochs": config.epochs}
        return continued_config(config.continue_from, given)
    # If resume and run_dir are equal, the command line has already read the flags of the run.
    if not config.resume or config.resume == config.run_dir:
        return config
    return resumed_config(config.resume, _changed_flags(config))


def _changed_flags(config: TrainConfig) -> dict[str, Any]:
    """The flags that differ from their defaults, so a Python caller must have set them."""
    recipe = config.recipe_in_use
    # The default of a flag that recipes set is its value in the recipe in use.
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
