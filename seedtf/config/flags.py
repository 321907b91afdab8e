"""Dataclass fields that are also command-line flags, with default, help, range and choices."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import tempfile
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from seedtf.errors import UserError
from seedtf.report import report

__all__ = [
    "AUTO",
    "Flags",
    "check_ranges",
    "default_cache_dir",
    "expand_home",
    "field_types",
    "flag_kind",
    "number_or_auto",
    "option",
    "suggest_value",
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
    replaced_by: str = "",
) -> Any:
    """A dataclass field that is also a command-line flag. Its metadata has the other arguments.

    Args:
        default: the default value of the field.
        help_text: the help, a few sentences that name unit and range.
        low: the smallest value that is allowed.
        high: the largest value that is allowed.
        choices: the values that are allowed; empty for any value.
        bare: the value that ``--name`` without ``=value`` sets.
        default_text: the text that the help shows as the default; empty to show ``default``.
        alias: a second name of the flag, which the help shows, too.
        old_name: a former name of the flag. This name is still accepted, with a notice on stderr, but
            the help does not show it.
        replaced_by: for a flag that the next release removes, what to write instead, such as
            ``track=tensorboard``. The flag is still accepted, with a notice on stderr, but the help
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
        "replaced_by": replaced_by,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Flags:
    """Base class of the dataclasses whose fields are made by ``option``.

    The constructor checks every value. Before that, it converts path objects to strings, a leading
    ``~`` to the home folder, and numbers that are written as strings to floats, in fields of the type
    ``float | str``. So the same value from Python, a command line or JSON compares equal.

    Attributes:
        HEADING: the title of the group of flags in ``--help``; empty for a class that is not a group.
    """

    HEADING: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Converts and checks every field. Raises UserError for the first invalid value."""
        config_class: Any = type(self)
        for name, kind in field_types(config_class).items():
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
                object.__setattr__(self, name, value)
            if isinstance(value, str):
                object.__setattr__(self, name, expand_home(name, value))
            elif isinstance(value, tuple):
                object.__setattr__(self, name, tuple(map(_expand_element, value)))
            if kind == float | str:
                object.__setattr__(self, name, number_or_auto(config_class, name, value))
        check_ranges(self)
        self.check_together()

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid or contradict each other.

        A group of flags that overrides this method calls ``super().check_together()``, then checks its
        own flags. So a class that inherits from several groups runs the checks of all groups.
        """


@functools.cache
def field_types(config_class: type) -> dict[str, Any]:
    """The types of the fields of a dataclass by name. Annotations that are strings are evaluated."""
    types = typing.get_type_hints(config_class)
    return {flag.name: types[flag.name] for flag in dataclasses.fields(config_class)}


def flag_kind(config_class: type, name: str) -> type:
    """The type of a flag on the command line.

    It is ``str`` for a flag that is a number or ``auto``, and for an unknown name.
    """
    kind = field_types(config_class).get(name, str)
    types = [part for part in typing.get_args(kind) or (kind,) if part is not type(None)]
    return types[0] if len(types) == 1 else str


def suggest_value(kind: type, text: str) -> str:
    """The spelling of ``text`` that a flag of type ``kind`` accepts; empty if there is none.

    It is a suggestion for an error message.

    Example:
        >>> suggest_value(float, "0,001"), suggest_value(int, "64x64"), suggest_value(bool, "yes")
        ('0.001', '64', 'true')
    """
    text = text.strip()
    if kind is bool:
        words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        return words.get(text.lower(), "")
    if kind is int and (sides := re.fullmatch(r"(\d+) *[x×,] *\1", text)):
        return sides[1]
    if kind is int and re.fullmatch(r"\d{1,3}([ ,.]\d{3})+", text):
        return re.sub(r"\D", "", text)
    number = text.rstrip("%").replace(",", ".", 1)
    try:
        value = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        return ""
    if kind is float and not text.endswith("%"):
        return number
    return f"{value:g}" if kind is float else str(int(value)) if value.is_integer() else ""


def number_or_auto(config_class: type, name: str, value: Any) -> Any:
    """``value`` as a float if the field takes a number or ``auto``; for other fields ``value`` itself.

    The values ``auto`` and None are not changed.

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
        if correct := suggest_value(float, str(value)):
            raise UserError(f"--{name}={value}: write --{name}={correct}") from None
        limits = {flag.name: flag.metadata for flag in dataclasses.fields(config_class)}[name]
        raise UserError(
            f"--{name}={value}: pass a number from {limits['low']:g} to {limits['high']:g}, or auto"
        ) from None


def check_ranges(config: Any) -> None:
    """Raises UserError for the first field that is out of its range or not one of its choices."""
    for flag in dataclasses.fields(config):
        value = getattr(config, flag.name)
        choices, low, high = (flag.metadata[key] for key in ("choices", "low", "high"))
        if choices and value not in choices:
            if isinstance(value, str) and value.lower() in choices:
                raise UserError(f"--{flag.name}={value}: write --{flag.name}={value.lower()}")
            allowed = ", ".join(str(choice) for choice in choices)
            raise UserError(f"--{flag.name}={value}: choose one of {allowed}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        # Every comparison with NaN is false, so this condition also refuses NaN.
        if not low <= value <= high or math.isinf(value):
            allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise UserError(f"--{flag.name}={value}: out of range; pass {allowed}")


def expand_home(name: str, value: str) -> str:
    """The value of a flag with a leading ``~`` replaced by the home folder.

    A shell does not replace the ``~`` in ``--data_dir=~/photos``, because it follows a ``=``. Flags
    that are not paths need no exception, because their values do not begin with ``~``.

    Args:
        name: the flag, for the message.
        value: the value that the user passed.

    Raises:
        UserError: the home folder is unknown; or the value contains a zero byte or is not UTF-8.
            TensorFlow and the files of a run need UTF-8.
    """
    if any("\udc80" <= char <= "\udcff" for char in value):
        shown = os.fsencode(value).decode("utf-8", "backslashreplace")
        raise UserError(f"--{name}={shown}: the name is not UTF-8; rename the file or folder")
    if "\0" in value:  # for example, a binary file was passed as --flagfile
        raise UserError(f"--{name}={value}: contains a zero byte; correct the value")
    if not value.startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    if expanded == value and (value == "~" or value.startswith("~/")):
        raise UserError(f"--{name}={value}: no home folder is known; set HOME or pass a full path")
    return expanded


def _expand_element(path: Any) -> Any:
    """Replaces ``~`` in a path of a tuple of paths. The command reports a path that is not UTF-8."""
    return os.path.expanduser(path) if isinstance(path, str) else path


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/seedtf``, or ``~/.cache/seedtf`` (XDG Base Directory Specification).

    Without a home folder, for example in a container whose user has no name, the result is
    ``seedtf-<user ID>`` in the temporary folder, and a line names that folder.

    Raises:
        UserError: there is no home folder, and ``seedtf-<user ID>`` belongs to another user.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not base.startswith("~"):
        return Path(base) / "seedtf"
    folder = Path(tempfile.gettempdir()) / f"seedtf-{os.getuid()}"
    if folder.exists() and folder.stat().st_uid != os.getuid():
        raise UserError(
            f"--cache_dir: no home folder, and {folder} is another user's; pass a folder"
        )
    _report_fallback(folder)
    return folder


@functools.cache
def _report_fallback(folder: Path) -> None:
    """Prints the folder. The cache of this function prevents a second line in the same process."""
    report("cache", f"no home folder is known; cache files go to {folder} (--cache_dir)")
