"""Parses a command line into a dataclass whose fields are made by ``config.flags.option``.

Each field becomes an absl flag. All commands use this module, so they have the same ``--help``,
``--flagfile`` and error messages.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from absl import flags

from seedtf.commands.help import help_text, required_positionals, visible_alias
from seedtf.commands.spelling import check_spelling, describe_wrong_type, find_flag_name
from seedtf.config.flags import Flags, flag_kind
from seedtf.config.recipes import BEFORE_FLAG, lacks_zoom_out
from seedtf.errors import UserError
from seedtf.report import report, report_error, report_text
from seedtf.training.distributed.slurm import in_slurm_step

__all__ = [
    "HELP_FLAGS",
    "check_one_machine",
    "check_refused",
    "find_config_class",
    "parse_config",
    "parse_given_flags",
    "suggest",
    "to_base_class",
]

HELP_FLAGS = ("--help", "-h", "--helpfull", "-help")
"""The flags that print the help, including those of absl."""

Config = TypeVar("Config")


def parse_config(
    config_class: type[Config],
    command: str,
    arguments: Sequence[str],
    positionals: Sequence[str] = (),
) -> Config:
    """Returns a ``config_class`` with the values of a command line and defaults for the other fields.

    The arguments and errors are those of ``parse_given_flags``.

    Example:
        >>> from seedtf.config.train_config import TrainConfig
        >>> config = parse_config(TrainConfig, "train", ["--data-dir=photos", "--epochs=3"])
        >>> config.data_dir, config.epochs
        ('photos', 3)
    """
    return config_class(**parse_given_flags(config_class, command, arguments, positionals))


def parse_given_flags(
    config_class: type, command: str, arguments: Sequence[str], positionals: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns name and value of each field that the command line sets.

    ``--help`` prints the help and exits.

    Dashes in flag names count as underscores, ``--flagfile=`` names a file with more flags, and
    ``--no<name>`` sets a boolean flag to false. After ``--`` every argument is positional.

    Args:
        config_class: a dataclass of ``option``s.
        command: the name of the command, for the help and for notices.
        arguments: the command line after the command.
        positionals: the fields that positional arguments set, in this order; these fields have no
            flags. If the last name ends in ``...``, its field gets all remaining arguments as a tuple.
            The module of a command lists these names in ``POSITIONALS``, which the shell completion
            reads too.

    Raises:
        UserError: a flag is unknown, a value has the wrong type, or there are too few or too many
            positional arguments.
    """
    flag_values = _define_flags(config_class, positionals)
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    check_spelling(config_class, arguments[:end])
    # For each flag, the value of ``--name`` without ``=value``. If this value is empty, absl decides.
    bare_values = {
        f"--{option.name}": option.metadata["bare"] for option in dataclasses.fields(config_class)
    }
    normalized = [_normalize(argument, bare_values) for argument in arguments[:end]]
    normalized += arguments[end:]
    if any(argument in HELP_FLAGS for argument in normalized[:end]):
        report_text(help_text(config_class, command, positionals))
        sys.exit(0)
    options = _flag_fields(config_class, positionals)
    try:
        rest = flag_values([command, *normalized])[1:]
    except flags.UnrecognizedFlagError as error:
        shown = set(flag_values) - {option.metadata["old_name"] for option in options}
        synonym = find_flag_name(error.flagname, shown)
        hint = suggest(synonym or error.flagname, sorted(shown))
        raise UserError(f"unknown flag --{error.flagname}{hint}; see --help") from None
    except flags.IllegalFlagValueError as error:
        raise UserError(_rewrite_type_error(str(error), config_class)) from None
    except UnicodeDecodeError:
        raise UserError("--flagfile: is not a text file; pass a run's flags.txt") from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    for old, name in ((option.metadata["old_name"], option.name) for option in options):
        if old and flag_values[old].present:
            report_error(
                f"seedtf {command}: --{old} is now --{name}; the next release removes --{old}"
            )
    given = {
        option.name: flag_values[option.name].value
        for option in options
        if flag_values[option.name].present
    }
    for option in options:
        if (instead := option.metadata["replaced_by"]) and given.get(option.name):
            report_error(
                f"seedtf {command}: --{option.name} is now --{instead}; the next release removes "
                f"--{option.name}"
            )
    if lacks_zoom_out(given):
        given["zoom_out"] = BEFORE_FLAG["zoom_out"]
        report("flagfile", "--zoom_out=0, because it is of a release without this flag")
    return {**_take_positionals(config_class, positionals, rest), **given}


def find_config_class(module: ModuleType) -> type[Flags]:
    """The dataclass of flags that the module of a command declares.

    A module that declares none, such as that of ``train``, has the flags of ``TrainConfig``.

    Example:
        >>> from seedtf.commands import predict
        >>> find_config_class(predict).__name__
        'PredictConfig'
    """
    from seedtf.config.train_config import TrainConfig

    classes = [each for each in vars(module).values() if inspect.isclass(each)]
    declared = (each for each in classes if each.__module__ == module.__name__)
    return next((each for each in declared if issubclass(each, Flags)), TrainConfig)


def to_base_class(config: Any, base_class: type[Config]) -> Config:
    """Returns a ``base_class`` with the values of ``config``, which is of a subclass of this class."""
    names = [option.name for option in dataclasses.fields(base_class)]  # type: ignore[arg-type]
    return base_class(**{name: getattr(config, name) for name in names})


def check_refused(config: Any) -> None:
    """Raises UserError if a flag of ``train`` is set that does not apply to this command.

    The class variable ``REFUSED`` of ``config`` maps the names of these flags to a remedy. The help
    does not show these flags. They are still parsed, because the flags.txt of a run sets some of them
    to false or 0.
    """
    for name, remedy in config.REFUSED.items():
        if getattr(config, name):
            raise UserError(f"--{name}={getattr(config, name)}: {remedy}")


def check_one_machine(strategy: str, cluster: str, reason: str) -> None:
    """Raises UserError if each training of this command would use all machines of a cluster.

    Args:
        strategy: the value of ``--strategy``; ``auto`` uses the cluster of ``TF_CONFIG`` or ``srun``.
        cluster: the value of ``--cluster``; ``tf_config`` means that the tasks of ``srun`` are not a
            cluster.
        reason: text for the message: why a training uses one machine, and how the user can use several.
    """
    in_cluster = os.environ.get("TF_CONFIG") or (cluster != "tf_config" and in_slurm_step())
    if strategy == "multi_worker" or (strategy == "auto" and in_cluster):
        raise UserError(
            f"--strategy={strategy}: {reason}, without TF_CONFIG; in an srun of several tasks, pass "
            "--strategy=none"
        )


def suggest(word: str, candidates: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the candidate nearest to ``word``, or an empty string.

    Example:
        >>> suggest("trian", ["train", "tune"])
        "; did you mean 'train'?"
    """
    close = difflib.get_close_matches(word.lower(), list(candidates), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _define_flags(config_class: type, positionals: Sequence[str]) -> flags.FlagValues:
    """Returns absl flags for each field, for its alias and for its old name."""
    flag_values = flags.FlagValues()
    options = _flag_fields(config_class, positionals)
    for option in options:
        kind = flag_kind(config_class, option.name)
        define: Any = {
            str: flags.DEFINE_string,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_boolean,
        }[kind]
        default = option.default if kind is not str else _text_or_none(option.default)
        define(option.name, default, option.metadata["help"], flag_values=flag_values)
    for option in options:
        for name in (visible_alias(config_class, option), option.metadata["old_name"]):
            if name:
                flags.DEFINE_alias(name, option.name, flag_values=flag_values)
    return flag_values


def _text_or_none(default: Any) -> str | None:
    return None if default is None else str(default)


def _flag_fields(config_class: type, positionals: Sequence[str]) -> list[dataclasses.Field]:
    """The fields that are flags, which are all but those of positional arguments."""
    positional = {name.removesuffix("...") for name in positionals}
    return [option for option in dataclasses.fields(config_class) if option.name not in positional]


def _take_positionals(
    config_class: type, positionals: Sequence[str], given: list[str]
) -> dict[str, Any]:
    """Assigns the positional arguments ``given`` to the fields ``positionals``, in this order.

    A positional argument may be left out if the default of its field is not empty.
    """
    last_takes_many = bool(positionals) and positionals[-1].endswith("...")
    required = required_positionals(config_class, positionals)
    if len(given) < len(required):
        missing = required[len(given)].removesuffix("...")
        help_texts = {
            option.name: option.metadata["help"] for option in dataclasses.fields(config_class)
        }
        raise UserError(f"{missing.upper()} is missing: {help_texts[missing]} See --help")
    if len(given) > len(positionals) and not last_takes_many:
        raise UserError(
            f"{given[len(positionals)]!r}: one argument too many; flags are written --name=value; "
            "see --help"
        )
    values: dict[str, Any] = dict(zip(positionals, given, strict=False))
    if last_takes_many:
        del values[positionals[-1]]
        values[positionals[-1].removesuffix("...")] = tuple(given[len(positionals) - 1 :])
    return values


def _normalize(argument: str, bare_values: Mapping[str, str]) -> str:
    """Turns ``--image-size=64`` into ``--image_size=64``, and ``--resume`` into ``--resume=newest``.

    One dash counts as two, unless a digit or a single letter follows.

    Args:
        argument: a flag or a positional argument, which is returned unchanged.
        bare_values: for each flag, the value of ``--name`` without ``=value``. If this value is empty,
            absl decides what the flag alone means.
    """
    if not re.match(r"--|-[A-Za-z][\w-]", argument):
        return argument
    name, equals, value = argument.partition("=")
    name = f"--{name.lstrip('-').replace('-', '_')}"
    if not equals and bare_values.get(name):
        return f"{name}={bare_values[name]}"
    return name + equals + value


def _rewrite_type_error(message: str, config_class: type) -> str:
    """Replaces absl's message ``flag --x=abc: invalid literal …`` by one that says what to type."""
    given = " ".join(message.split()).removeprefix("flag ").split(": ", 1)[0]
    name, _, value = given.removeprefix("--").partition("=")
    return describe_wrong_type(config_class, name, value)
