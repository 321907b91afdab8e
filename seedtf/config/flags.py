"""Dataclass fields that are also command-line flags: default, help, range and choices in one place."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from seedtf.errors import UserError

__all__ = [
    "AUTO",
    "Flags",
    "check_ranges",
    "default_cache_dir",
    "field_types",
    "number_or_auto",
    "option",
]

AUTO = "auto"
"""The value of a flag whose actual value seedtf chooses."""


def option(
    default: Any,
    help_text: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str | int, ...] = (),
    bare: str = "",
    default_text: str = "",
    alias: str = "",
    old_name: str = "",
) -> Any:
    """Returns a dataclass field that carries its help, inclusive range and choices in its metadata.

    Args:
        default: the field's default.
        help_text: one or two sentences that name unit and range.
        low: the smallest value that is allowed.
        high: the largest value that is allowed.
        choices: the values that are allowed; empty for any value.
        bare: the value of ``--name`` without ``=value``.
        default_text: the default that the help shows if the actual default is chosen later.
        alias: a second name of the flag, which the help shows as well.
        old_name: a former name of the flag. It is still accepted, with a notice on stderr, and the help
            does not show it.

    Example:
        >>> @dataclass(frozen=True)
        ... class Sizes(Flags):
        ...     image_size: int = option(224, "Side in pixels, 8 to 2048.", low=8, high=2048)
        >>> Sizes().image_size
        224
        >>> Sizes(image_size=4)
        Traceback (most recent call last):
        seedtf.errors.UserError: --image_size=4: out of range; pass 8 to 2048
    """
    metadata = {
        "help": help_text,
        "low": low,
        "high": high,
        "choices": choices,
        "bare": bare,
        "default_text": default_text,
        "alias": alias,
        "old_name": old_name,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Flags:
    """Base of the dataclasses whose fields are ``option``s; creating one checks every value.

    Paths become strings, and text becomes a number in a field of type ``float | str``, so that values
    from Python, from a command line and from JSON compare equal.

    Attributes:
        HEADING: the title of the group in ``--help``; empty for a class that is not a group.
    """

    HEADING: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Normalizes and checks every field; raises UserError for the first one that fails."""
        config_class: Any = type(self)
        for name, kind in field_types(config_class).items():
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            elif kind == float | str:
                object.__setattr__(self, name, number_or_auto(config_class, name, value))
        check_ranges(self)
        self.check_together()

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other.

        Each group calls ``super().check_together()`` and then checks its own flags, so that a class
        that combines groups runs the checks of all of them.
        """


@functools.cache
def field_types(config_class: type) -> dict[str, Any]:
    """The evaluated types of a dataclass's fields by name, in the order of the fields."""
    types = typing.get_type_hints(config_class)
    return {each.name: types[each.name] for each in dataclasses.fields(config_class)}


def number_or_auto(config_class: type, name: str, value: Any) -> Any:
    """Returns ``value`` as a float where the field takes a number or ``auto``, otherwise unchanged.

    Args:
        config_class: a dataclass of ``option``s.
        name: one of its fields.
        value: a number or ``auto``, or a string from the command line.

    Raises:
        UserError: the field takes a number or ``auto``, and ``value`` is neither.
    """
    if value in (None, AUTO) or field_types(config_class)[name] != float | str:
        return value
    try:
        return float(value)
    except ValueError:
        limits = {each.name: each.metadata for each in dataclasses.fields(config_class)}[name]
        raise UserError(
            f"--{name}={value}: pass a number from {limits['low']:g} to {limits['high']:g}, or auto"
        ) from None


def check_ranges(config: Any) -> None:
    """Raises UserError for the first field of a dataclass of ``option``s that is out of its range."""
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        choices, low, high = (each.metadata[key] for key in ("choices", "low", "high"))
        if choices and value not in choices:
            allowed = ", ".join(str(choice) for choice in choices)
            raise UserError(f"--{each.name}={value}: choose one of {allowed}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        # every comparison with NaN is false, so this refuses NaN as well
        if not low <= value <= high or math.isinf(value):
            allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise UserError(f"--{each.name}={value}: out of range; pass {allowed}")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/seedtf``, or ``~/.cache/seedtf`` (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "seedtf"
