"""``seedtf completion SHELL``: prints a script for completing commands, flags and values.

The script contains all names, so that completing a word does not start Python.
"""

from __future__ import annotations

import dataclasses
import importlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from seedtf.commands.arguments import find_config_class, parse_config
from seedtf.commands.benchmark import KINDS
from seedtf.commands.main import COMMANDS
from seedtf.config.flags import Flags, flag_kind, option
from seedtf.errors import UserError
from seedtf.report import report_text

__all__ = ["SHELLS", "CompletionConfig", "run"]

POSITIONALS = ("shell",)

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class CompletionConfig(Flags):
    """The shell of ``seedtf completion``."""

    shell: str = option(
        "",
        'The shell: bash, zsh or fish. In bash: eval "$(seedtf completion bash)"; in zsh: '
        'eval "$(seedtf completion zsh)"; in fish: seedtf completion fish | source.',
    )


@dataclass(frozen=True)
class _Flag:
    """A flag in the script; ``help`` is the first sentence of the flag's text in ``--help``."""

    name: str
    help: str
    choices: tuple[str, ...]
    takes_value: bool


def run(arguments: list[str]) -> int:
    """Prints the script and returns the exit code."""
    config = parse_config(CompletionConfig, "completion", arguments, POSITIONALS)
    if config.shell not in SHELLS:
        raise UserError(f"{config.shell!r} is not one of the shells {', '.join(SHELLS)}")
    report_text(_fish_script() if config.shell == "fish" else _bash_script(config.shell))
    return 0


def _flags(module_name: str) -> list[_Flag]:
    """The flags of the command in a module.

    Left out are flags that the command refuses, flags that another flag replaces, and the fields that
    positional arguments set (``POSITIONALS`` of the module).
    """
    module = importlib.import_module(f"seedtf.commands.{module_name}")
    config_class = find_config_class(module)
    positionals = [name.removesuffix("...") for name in getattr(module, "POSITIONALS", ())]
    hidden = {*getattr(config_class, "REFUSED", {}), *positionals}
    return [
        _Flag(
            option.name,
            option.metadata["help"].partition(". ")[0].rstrip("."),
            tuple(map(str, option.metadata["choices"])),
            flag_kind(config_class, option.name) is not bool,
        )
        for option in dataclasses.fields(config_class)
        if option.name not in hidden and not option.metadata["replaced_by"]
    ]


def _commands() -> Iterator[tuple[str, list[_Flag]]]:
    """Yields each command but ``completion``, as users type it (``benchmark step``), and its flags."""
    for command in COMMANDS:
        if command == "benchmark":
            for kind in KINDS:
                yield f"benchmark {kind}", _flags(f"benchmark_{kind}")
        elif command != "completion":
            yield command, _flags(command)


def _bash_script(shell: str) -> str:
    """A completion function in bash, which zsh can run with its module ``bashcompinit``."""
    flag_cases, value_cases = [], []
    for command, flags in _commands():
        names = " ".join(f"--{flag.name}{'=' if flag.takes_value else ''}" for flag in flags)
        flag_cases.append(f'    "{command}") echo "{names}" ;;')
        value_cases += [
            f'    "{command} --{flag.name}") echo "{" ".join(flag.choices)}" ;;'
            for flag in flags
            if flag.choices
        ]
    start = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return start + _BASH.format(
        commands=" ".join(COMMANDS),
        kinds=" ".join(KINDS),
        shells=" ".join(SHELLS),
        flags="\n".join(flag_cases),
        values="\n".join(value_cases),
    )


def _fish_script() -> str:
    lines = ["complete -c seedtf -n __fish_use_subcommand -f"]
    for command, text in COMMANDS.items():
        lines.append(f"complete -c seedtf -n __fish_use_subcommand -a {command} -d {_quoted(text)}")
    in_benchmark = "__fish_seen_subcommand_from benchmark"
    has_kind = f"__fish_seen_subcommand_from {' '.join(KINDS)}"
    for kind, text in KINDS.items():
        lines.append(
            f"complete -c seedtf -n '{in_benchmark}; and not {has_kind}' -f -a {kind} "
            f"-d {_quoted(text)}"
        )
    lines.append(
        f"complete -c seedtf -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(SHELLS)}'"
    )
    for command, flags in _commands():
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.split())
        for flag in flags:
            value = f" -x -a {_quoted(' '.join(flag.choices))}" if flag.choices else " -r"
            lines.append(
                f"complete -c seedtf -n '{condition}' -l {flag.name}"
                f"{value if flag.takes_value else ''} -d {_quoted(flag.help)}"
            )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """``text`` in single quotes, as fish reads it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# bash passes ``--flag=val`` as three words and zsh as one word; the function handles both.
_BASH = textwrap.dedent(
    """\
    _seedtf_flags() {{
        case "$1" in
    {flags}
        esac
    }}
    _seedtf_values() {{
        case "$1" in
    {values}
        esac
    }}
    _seedtf() {{
        local word="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
        local command="${{COMP_WORDS[1]}}" flag="" prefix="" names
        COMPREPLY=()
        if [ "$COMP_CWORD" -eq 1 ]; then
            COMPREPLY=($(compgen -W "{commands}" -- "$word"))
            return
        fi
        if [ "$command" = completion ]; then
            COMPREPLY=($(compgen -W "{shells}" -- "$word"))
            return
        fi
        if [ "$command" = benchmark ]; then
            if [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=($(compgen -W "{kinds}" -- "$word"))
                return
            fi
            command="benchmark ${{COMP_WORDS[2]}}"
        fi
        if [ "$word" = "=" ]; then
            flag="$previous"; word=""
        elif [ "$previous" = "=" ]; then
            flag="${{COMP_WORDS[COMP_CWORD-2]}}"
        elif [ "${{word#--*=}}" != "$word" ]; then
            flag="${{word%%=*}}"; prefix="$flag="; word="${{word#*=}}"
        fi
        if [ -n "$flag" ]; then
            COMPREPLY=($(compgen -P "$prefix" -W "$(_seedtf_values "$command $flag")" -- "$word"))
            [ "${{#COMPREPLY[@]}}" -gt 0 ] || COMPREPLY=($(compgen -P "$prefix" -f -- "$word"))
        elif [ "${{word#-}}" != "$word" ]; then
            names="$(_seedtf_flags "$command")"
            COMPREPLY=($(compgen -W "$names" -- "$word"))
            case "${{COMPREPLY[0]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
        else
            COMPREPLY=($(compgen -f -- "$word"))
        fi
    }}
    complete -o filenames -F _seedtf seedtf"""
)
