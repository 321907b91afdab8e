"""Dataclass fields that are also command-line flags: default, help, range and choices in one place."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import field
from pathlib import Path
from typing import Any

from seedtf.errors import UserError

__all__ = ["check_ranges", "default_cache_dir", "option"]


def option(
    default: Any,
    help_text: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    bare: str = "",
    default_text: str = "",
) -> Any:
    """A dataclass field with its default, help, inclusive range and choices.

    ``bare`` is what ``--name`` means when no ``=value`` follows; ``default_text`` is what the help says
    of a default that is only decided later.
    """
    metadata = {"help": help_text, "low": low, "high": high, "choices": choices, "bare": bare}
    return field(default=default, metadata={**metadata, "default_text": default_text})


def check_ranges(config: Any) -> None:
    """Raises UserError for the first field of a dataclass of ``option``s that is out of its range."""
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        choices, low, high = (each.metadata[key] for key in ("choices", "low", "high"))
        if choices and value not in choices:
            raise UserError(f"--{each.name}={value}: choose one of {', '.join(choices)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        # a comparison with nan is false, so nan is refused too
        if not low <= value <= high or math.isinf(value):
            allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise UserError(f"--{each.name}={value}: out of range; pass {allowed}")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/seedtf``, or ``~/.cache/seedtf`` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "seedtf"
