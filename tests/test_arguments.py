"""Bare words among flags."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import option
from seedtf.errors import UserError


@dataclass(frozen=True)
class Config:
    model: str = option("", "The model.")
    files: tuple[str, ...] = option((), "The files.")
    top_k: int = option(5, "How many.")


def parse(*arguments: str, words: tuple[str, ...] = ("model", "files...")) -> Config:
    return parse_config(Config, "verb", list(arguments), words)


def test_words_fill_their_fields_before_between_and_after_flags() -> None:
    assert parse("m", "--top-k=2", "a", "b") == Config("m", ("a", "b"), 2)
    assert parse("--top_k=2", "m", "a") == Config("m", ("a",), 2)
    assert parse("m", "a") == Config("m", ("a",), 5)


def test_after_two_dashes_everything_is_a_word() -> None:
    assert parse("--top_k=2", "--", "m", "--odd-name.png", "--help") == Config(
        "m", ("--odd-name.png", "--help"), 2
    )


@pytest.mark.parametrize(("given", "name"), [((), "MODEL"), (("m",), "FILES")])
def test_a_missing_word_is_named(given: tuple[str, ...], name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is missing: The "):
        parse(*given)


def test_a_word_too_many_is_named() -> None:
    @dataclass(frozen=True)
    class OneWord:
        model: str = option("", "The model.")

    with pytest.raises(UserError, match=r"^'stray': flags are written --name=value"):
        parse_config(OneWord, "verb", ["m", "stray"], ["model"])


def test_a_word_is_no_flag_and_help_shows_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="unknown flag --model"):
        parse("--model=m", "a", "b")
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: seedtf verb MODEL FILES... --flag=value")
    assert "The files." in shown
    assert "--files" not in shown
