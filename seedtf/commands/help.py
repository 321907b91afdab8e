"""The text of ``seedtf COMMAND --help``: the flags of a command, grouped under headings."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

__all__ = ["help_text", "required_positionals", "visible_alias"]

_WIDTH = 80


def help_text(config_class: type, command: str, positionals: Sequence[str] = ()) -> str:
    """Returns the text of ``--help``: usage, positional arguments, then one entry for each flag.

    The command's own flags come first. The flags that it inherits from ``TrainConfig`` follow, under
    the ``HEADING`` of their group; those in ``REFUSED``, which the command does not accept, are left
    out, and so are flags that another one replaces. If ``config_class`` has a tuple ``HELP_GROUPS``,
    only the inherited flags of these groups are shown.

    Args:
        config_class: a dataclass of ``option``s.
        command: the name of the command.
        positionals: the fields that positional arguments set, as in ``parse_given_flags``; the last
            name ends in ``...`` if its field takes several arguments.
    """
    own, inherited = _shown_flags(config_class, positionals)
    width = min(shutil.get_terminal_size().columns, _WIDTH)
    required = required_positionals(config_class, positionals)
    usage = "".join(
        f" {name.upper()}" if name in required else f" [{name.upper()}]" for name in positionals
    )
    lines = [f"usage: seedtf {command}{usage} --flag=value …"]
    lines += [""] if positionals or own else []
    texts = {option.name: option.metadata["help"] for option in dataclasses.fields(config_class)}
    for name in (name.removesuffix("...") for name in positionals):
        lines += [f"  {name.upper()}", *_wrapped(texts[name], width)]
    lines += _flag_lines(config_class, own, width)
    if own and inherited:
        lines += ["", "and the flags of seedtf train:"]
    for heading, group in groupby(
        inherited, lambda option: _group_of(config_class, option).HEADING
    ):
        lines += ["", heading, *_flag_lines(config_class, group, width)]
    if hasattr(config_class, "HELP_GROUPS"):
        text = "The other flags of seedtf train are accepted too, so that a run's flags.txt works."
        lines += ["", *textwrap.wrap(text, width)]
    lines += ["", "  --flagfile"]
    return "\n".join(
        [*lines, *_wrapped("A file with one flag per line, such as the flags.txt of a run.", width)]
    )


def required_positionals(config_class: type, positionals: Sequence[str]) -> list[str]:
    """The positional arguments that must be given: those whose fields have an empty default."""
    defaults = {option.name: option.default for option in dataclasses.fields(config_class)}
    return [name for name in positionals if not defaults[name.removesuffix("...")]]


def visible_alias(config_class: type, option: dataclasses.Field) -> str:
    """The second name of a flag; empty if it has none, or if the command has a flag of that name."""
    alias = option.metadata["alias"]
    names = {option.name for option in dataclasses.fields(config_class)}
    return "" if alias in names else alias


def _flag_lines(config_class: type, options: Iterable[dataclasses.Field], width: int) -> list[str]:
    lines = []
    for option in options:
        choices = ", ".join(str(choice) for choice in option.metadata["choices"])
        alias = visible_alias(config_class, option)
        default = option.metadata["default_text"] or option.default
        default = str(default).lower() if isinstance(default, bool) else default
        parts = [
            option.metadata["help"],
            f"One of {choices}." if choices else "",
            f"Also --{alias}." if alias else "",
            "" if default in ("", None) else f"(default {default})",
        ]
        lines += [f"  --{option.name}", *_wrapped(" ".join(filter(None, parts)), width)]
    return lines


def _shown_flags(
    config_class: type, positionals: Sequence[str]
) -> tuple[list[dataclasses.Field], list[dataclasses.Field]]:
    """The shown flags of a command: those that it declares itself, and those that it inherits."""
    hidden = {*getattr(config_class, "REFUSED", {}), *(p.removesuffix("...") for p in positionals)}
    groups = getattr(config_class, "HELP_GROUPS", None)
    own, inherited = [], []
    for option in dataclasses.fields(config_class):
        group = _group_of(config_class, option)
        if option.name in hidden or option.metadata["replaced_by"]:
            continue
        if group is config_class:
            own.append(option)
        elif groups is None or group in groups:
            inherited.append(option)
    order = list(inspect.get_annotations(config_class))
    return sorted(own, key=lambda option: order.index(option.name)), inherited


def _group_of(config_class: type, option: dataclasses.Field) -> Any:
    """The class that declares the field: the command itself or a group of ``TrainConfig``."""
    return next(
        base for base in config_class.__mro__ if option.name in inspect.get_annotations(base)
    )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
