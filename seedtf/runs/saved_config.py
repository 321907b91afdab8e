"""The flags of an earlier run, read back so that it can be resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedtf.config.data_flags import LAYOUT
from seedtf.config.flags import expand_home, number_or_auto
from seedtf.config.recipes import RECIPES, recipe_changes
from seedtf.config.train_config import NEWEST, PATHS, TrainConfig
from seedtf.errors import UserError
from seedtf.runs.folder import newest_run, read_settings

__all__ = ["RESUME_MAY_CHANGE", "load_resumed", "resumed_config"]

RESUME_MAY_CHANGE = (
    "resume",
    "run_dir",
    "show",
    "time_limit",
    "cache",
    "check",
    "data_service",
    "dry_run",
    "placement",
    "save_minutes",
    "strategy",
    "strict",
    "worker_timeout",
    *PATHS,
    *LAYOUT,
)
"""Flags that do not change the numbers, so a resumed run may change them. The location of the data is
one of them, because the data itself is compared."""


def resumed_config(resume: str, given: Mapping[str, Any]) -> TrainConfig:
    """The flags of an earlier run, overridden by those in ``given`` that do not change the numbers.

    Args:
        resume: a run folder, or ``newest`` for the newest below ``runs/``.
        given: the flags of the resuming command.

    Raises:
        UserError: no such run, or a given flag differs from the run's.
    """
    run_dir = newest_run() if resume == NEWEST else Path(expand_home("resume", resume))
    saved = read_settings(run_dir, flag="--resume")
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    values = {name: value for name, value in saved.items() if name in names}
    for name, value in given.items():
        value = number_or_auto(TrainConfig, name, value)
        value = expand_home(name, value) if isinstance(value, str) else value
        if name not in RESUME_MAY_CHANGE and values.get(name) != value:
            raise UserError(
                f"--{name}={value}: the run in {run_dir} has {values.get(name)!r}; leave the flag "
                "out, or start a new run"
            )
        values[name] = value
    return TrainConfig(**{**values, "run_dir": str(run_dir), "resume": str(run_dir)})


def load_resumed(config: TrainConfig) -> TrainConfig:
    """``config``, or the flags of the run that its ``resume`` names, with the changes in ``config``.

    Raises:
        UserError: as ``resumed_config``.
    """
    # The command line has resolved it already: then run_dir and resume are the same folder.
    if not config.resume or config.resume == config.run_dir:
        return config
    return resumed_config(config.resume, _changed_flags(config))


def _changed_flags(config: TrainConfig) -> dict[str, Any]:
    """The flags that differ from their defaults, which are those that a Python caller has set."""
    by_recipe = recipe_changes(config.recipe, config.as_dict())
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if (
            field.name in by_recipe
            if field.name in RECIPES[config.recipe]
            else getattr(config, field.name) != field.default
        )
    }
