"""A run's own flags, read back so that it can go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedtf.config.train_config import NEWEST, PATHS, TrainConfig, number_or_auto
from seedtf.errors import UserError

__all__ = ["RESUME_MAY_CHANGE", "resumed_config"]

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
)
"""Flags that leave the numbers as they are, so a resumed run may change them; where the data lies is
one, because the data itself is compared."""


def resumed_config(resume: str, given: Mapping[str, Any]) -> TrainConfig:
    """The flags of an earlier run, those in ``given`` on top where they change no number.

    Args:
        resume: a run folder, or ``newest`` for the newest below ``runs/``.
        given: flags that the user named now.

    Raises:
        UserError: no such run, or a flag given now differs from the run's.
    """
    run_dir = _newest_run() if resume == NEWEST else Path(resume)
    try:
        saved = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--resume={run_dir}: not a run folder (no config.json)") from None
    except ValueError as error:
        raise UserError(f"--resume={run_dir}: config.json is damaged ({error})") from None
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    values = {name: value for name, value in saved.items() if name in names}
    for name, value in given.items():
        value = number_or_auto(name, value)
        if name not in RESUME_MAY_CHANGE and values.get(name) != value:
            raise UserError(
                f"--{name}={value}: the run in {run_dir} has {values.get(name)!r}; leave the flag "
                "out, or start a new run"
            )
        values[name] = value
    return TrainConfig(**{**values, "run_dir": str(run_dir), "resume": str(run_dir)})


def _newest_run() -> Path:
    runs = [path.parent for path in Path("runs").glob("*/config.json")]
    if not runs:
        raise UserError("--resume: there is no run below runs/; pass --resume=<run folder>")
    return max(runs, key=lambda run: ((run / "config.json").stat().st_mtime_ns, run.name))
