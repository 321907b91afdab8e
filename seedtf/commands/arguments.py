"""absl flags made from a dataclass, and the parsing that every verb shares."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from absl import flags

from seedtf.config.flags import field_types
from seedtf.errors import UserError

__all__ = ["check_refused", "parse_config", "parse_given", "part_of", "suggest"]

Config = TypeVar("Config")


def parse_config(
    config_class: type[Config], verb: str, arguments: list[str], words: Sequence[str] = ()
) -> Config:
    """``config_class`` with the fields that ``parse_given`` finds; the others keep their defaults."""
    return config_class(**parse_given(config_class, verb, arguments, words))


def parse_given(
    config_class: type, verb: str, arguments: list[str], words: Sequence[str] = ()
) -> dict[str, Any]:
    """The fields that the command line names; prints the flags and exits on ``--help``.

    Dashes in names count as underscores, ``--flagfile=`` is read, ``--no<name>`` clears a switch,
    after ``--`` everything is a word.

    Args:
        config_class: a dataclass of ``option``s.
        verb: the name of the command.
        arguments: what follows the verb.
        words: the fields that are given as bare words, in this order, and are not flags; ``"name..."``
            at the end takes one or more words into a tuple.

    Raises:
        UserError: an unknown flag, a value of the wrong type, a word too few or many.
    """
    values = _define(config_class, words)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    bare = {f"--{each.name}": each.metadata["bare"] for each in dataclasses.fields(config_class)}
    normalized = [_normalized(argument, bare) for argument in arguments[:end]] + arguments[end:]
    if any(word in ("--help", "-h", "--helpfull", "-help") for word in normalized[:end]):
        print(_help(config_class, verb, words))
        sys.exit(0)
    try:
        rest = values([verb, *normalized])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = suggest(error.flagname, list(values))
        raise UserError(f"unknown flag --{error.flagname}{hint}; see --help") from None
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_type(str(error), config_class)) from None
    except UnicodeDecodeError:
        raise UserError("--flagfile: not a text file; pass a run's flags.txt") from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    named = [each.name for each in _flags(config_class, words) if values[each.name].present]
    given = {name: values[name].value for name in named}
    return {**_take_words(config_class, words, rest), **given}


def part_of(config: Any, base: type[Config]) -> Config:
    """The fields that ``config`` has from ``base``, its class's own left out."""
    names = [each.name for each in dataclasses.fields(base)]  # type: ignore[arg-type]
    return base(**{name: getattr(config, name) for name in names})


def check_refused(config: Any) -> None:
    """Raises UserError where a flag was given that the command's ``REFUSED`` names.

    ``REFUSED`` is a class variable: inherited flags without a meaning for the command, which its help
    leaves out, each with what to do instead. They stay flags, so that a flagfile may have them switched
    off.
    """
    for name, remedy in config.REFUSED.items():
        if getattr(config, name):
            raise UserError(f"--{name}={getattr(config, name)}: {remedy}")


def suggest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word nearest to ``word``, else nothing."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _define(config_class: type, words: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for option in _flags(config_class, words):
        kind = _kind(config_class, option.name)
        define: Any = {
            str: flags.DEFINE_string,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_boolean,
        }[kind]
        default = option.default if kind is not str else _text(option.default)
        define(option.name, default, option.metadata["help"], flag_values=values)
    return values


def _text(default: Any) -> str | None:
    return None if default is None else str(default)


def _flags(config_class: type, words: Sequence[str]) -> list[dataclasses.Field]:
    taken = {word.removesuffix("...") for word in words}
    return [each for each in dataclasses.fields(config_class) if each.name not in taken]


def _help_text(config_class: type, name: str) -> str:
    return {each.name: each.metadata["help"] for each in dataclasses.fields(config_class)}[name]


def _take_words(config_class: type, words: Sequence[str], given: list[str]) -> dict[str, Any]:
    """The fields that ``words`` names, filled from the bare words of the command line in order."""
    many = bool(words) and words[-1].endswith("...")
    if len(given) < len(words):
        missing = words[len(given)].removesuffix("...")
        text = _help_text(config_class, missing)
        raise UserError(f"{missing.upper()} is missing: {text} See --help")
    if len(given) > len(words) and not many:
        raise UserError(f"{given[len(words)]!r}: flags are written --name=value; see --help")
    taken: dict[str, Any] = dict(zip(words, given, strict=False))
    if many:
        del taken[words[-1]]
        taken[words[-1].removesuffix("...")] = tuple(given[len(words) - 1 :])
    return taken


def _normalized(argument: str, bare: Mapping[str, str]) -> str:
    """``--image-size=64`` as ``--image_size=64``, ``--resume`` as ``--resume=newest``."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    name = f"--{name[2:].replace('-', '_')}"
    if not equals and bare.get(name):
        return f"{name}={bare[name]}"
    return name + equals + value


def _help(config_class: type, verb: str, words: Sequence[str]) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    places = "".join(f" {word.upper()}" for word in words)
    lines = [f"usage: seedtf {verb}{places} --flag=value …", ""]
    for word in (word.removesuffix("...") for word in words):
        lines += [f"  {word.upper()}", *_wrapped(_help_text(config_class, word), width)]
    own, inherited = _shown_flags(config_class, words)
    lines += _flag_lines(own, width)
    if inherited:  # only those of train are ever extended
        lines += ["", "and the flags of seedtf train:", "", *_flag_lines(inherited, width)]
    lines += ["", "  --flagfile", "      A file with one flag a line, such as a run's flags.txt."]
    return "\n".join(lines)


def _flag_lines(options: Iterable[dataclasses.Field], width: int) -> list[str]:
    lines = []
    for option in options:
        choices, default = option.metadata["choices"], option.default
        default = option.metadata["default_text"] or default
        shown = "" if default in ("", None) else f" (default {str(default).lower()})"
        text = (
            option.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "") + shown
        )
        lines += [f"  --{option.name}", *_wrapped(text, width)]
    return lines


def _shown_flags(
    config_class: type, words: Sequence[str]
) -> tuple[list[dataclasses.Field], list[dataclasses.Field]]:
    """A command's own flags and those of the class that it extends, those that it refuses left out."""
    refused = getattr(config_class, "REFUSED", {})
    shown = [each for each in _flags(config_class, words) if each.name not in refused]
    own = inspect.get_annotations(config_class)
    return [f for f in shown if f.name in own], [f for f in shown if f.name not in own]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _wrong_type(message: str, config_class: type) -> str:
    """absl's ``flag --x=abc: invalid literal …`` as the flag, the value and the type wanted."""
    given = " ".join(message.split()).removeprefix("flag ").split(": ", 1)[0]
    wanted: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    kind = _kind(config_class, given.removeprefix("--").partition("=")[0])
    return f"{given}: pass {wanted.get(kind, 'another value')}"


def _kind(config_class: type, name: str) -> type:
    """The type that the command line parses: ``str`` where a field takes a number or ``auto``."""
    kind = field_types(config_class).get(name, str)
    types = [each for each in typing.get_args(kind) or (kind,) if each is not type(None)]
    return types[0] if len(types) == 1 else str
