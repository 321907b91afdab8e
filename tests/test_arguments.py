"""Positional arguments before and after flags; aliases and old names of flags; the help of commands."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import pytest

from seedtf.commands.arguments import parse_config, parse_given_flags
from seedtf.commands.lr_find import LrFindConfig
from seedtf.commands.main import COMMANDS, main
from seedtf.config.flags import Flags, option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError

GROUPS = ["Data", "Recipe", "Network", "Training", "Augmentation", "Run", "Devices"]


@dataclass(frozen=True)
class Config(Flags):
    model: str = option("", "The model.")
    files: tuple[str, ...] = option((), "The files.")
    top_k: int = option(5, "How many.", alias="most", old_name="number")


def parse(*arguments: str, positionals: tuple[str, ...] = ("model", "files...")) -> Config:
    return parse_config(Config, "name", list(arguments), positionals)


def test_positional_arguments_may_stand_before_between_and_after_flags() -> None:
    assert parse("m", "--top-k=2", "a", "b") == Config("m", ("a", "b"), 2)
    assert parse("--top_k=2", "m", "a") == Config("m", ("a",), 2)
    assert parse("m", "a") == Config("m", ("a",), 5)


def test_after_two_dashes_every_argument_is_positional() -> None:
    assert parse("--top_k=2", "--", "m", "--odd-name.png", "--help") == Config(
        "m", ("--odd-name.png", "--help"), 2
    )


@pytest.mark.parametrize(("given", "name"), [((), "MODEL"), (("m",), "FILES")])
def test_a_missing_positional_argument_is_named(given: tuple[str, ...], name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is missing: The "):
        parse(*given)


def test_a_superfluous_positional_argument_is_named() -> None:
    @dataclass(frozen=True)
    class OnePositional(Flags):
        model: str = option("", "The model.")

    with pytest.raises(
        UserError, match=r"^'stray': one argument too many; flags are written --name"
    ):
        parse_config(OnePositional, "name", ["m", "stray"], ["model"])


def test_a_positional_argument_is_not_a_flag_and_is_in_the_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match="unknown flag --model"):
        parse("--model=m", "a", "b")
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: seedtf name MODEL FILES... --flag=value")
    assert "The files." in shown
    assert "--files" not in shown


def test_an_alias_sets_the_flag_and_the_help_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--most=2", "m", "a") == Config("m", ("a",), 2)
    assert parse_given_flags(TrainConfig, "train", ["--out=runs/x"]) == {"run_dir": "runs/x"}
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr()
    assert "How many. Also --most. (default 5)" in shown.out
    assert shown.err == ""


def test_an_old_name_is_accepted_with_a_notice_and_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse("--number=2", "m", "a") == Config("m", ("a",), 2)
    notice = "seedtf name: --number is now --top_k; the next release removes --number\n"
    assert capsys.readouterr().err == notice
    with pytest.raises(SystemExit):
        parse("--help")
    assert "--number" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"unknown flag --numbers; see --help"):
        parse("--numbers=2", "m", "a")


@pytest.mark.parametrize(
    ("command", "old_name"), [("lr_find", "out_dir"), ("tune", "tune_dir"), ("tune", "tune-dir")]
)
def test_commands_accept_the_old_name_of_out(command, old_name, capsys) -> None:
    assert main([command, "--data_dir=x", f"--{old_name}=y", "--batch_size=0"]) == 2
    notice, error = capsys.readouterr().err.splitlines()
    flag = f"--{old_name.replace('-', '_')}"
    assert notice == f"seedtf {command}: {flag} is now --out; the next release removes {flag}"
    assert error == f"seedtf {command}: --batch_size=0: out of range; pass 1 or more"


def test_a_command_with_a_flag_out_does_not_take_out_for_run_dir() -> None:
    given = parse_given_flags(LrFindConfig, "lr_find", ["--out=results", "--run_dir=runs/x"])
    assert given == {"out": "results", "run_dir": "runs/x"}


def headings(text: str) -> list[str]:
    return re.findall(r"^(\w+)$", text, re.MULTILINE)


def test_the_help_of_train_has_a_heading_for_each_group(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert headings(shown) == GROUPS
    flags = re.findall(r"^  --(\w+)$", shown, re.MULTILINE)
    shown_fields = [
        field.name for field in dataclasses.fields(TrainConfig) if not field.metadata["replaced_by"]
    ]
    assert flags == [*shown_fields, "flagfile"]


def test_the_help_of_preview_shows_data_and_augmentation_only(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["preview", "--help"])
    shown = capsys.readouterr().out
    assert headings(shown) == ["Data", "Augmentation"]
    assert re.findall(r"^  --(\w+)$", shown, re.MULTILINE)[:2] == ["out", "seed"]
    # The other flags of train are accepted too, so that the flags.txt of a run can be passed.
    assert parse_given_flags(TrainConfig, "preview", ["--epochs=3"]) == {"epochs": 3}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_into_80_columns(command, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80
