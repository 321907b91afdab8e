"""Shell completion: the words that bash offers, and the syntax of the scripts for zsh and fish."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from seedtf.commands.completion import SHELLS
from seedtf.commands.main import COMMANDS, run_command
from seedtf.config.recipes import RECIPES


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    """The completion script of each shell."""
    command = [sys.executable, "-m", "seedtf", "completion"]
    return {
        shell: subprocess.run([*command, shell], capture_output=True, text=True, check=True).stdout
        for shell in SHELLS
    }


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of ``words``, which come after ``seedtf``."""
    quoted = " ".join(f"'{word}'" for word in ("seedtf", *words))
    program = (
        f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _seedtf; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [shutil.which("bash") or "bash", "--norc", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        # bash finds only its builtins, so this shows that the completion starts no Python.
        env={"PATH": ""},
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_the_first_word_is_completed_to_a_command(scripts: dict[str, str]) -> None:
    assert complete(scripts["bash"], "") == list(COMMANDS)
    assert complete(scripts["bash"], "pre") == ["predict", "preview"]


def test_a_flag_is_completed_to_the_flags_of_its_command(scripts: dict[str, str]) -> None:
    assert complete(scripts["bash"], "train", "--epo") == ["--epochs="]
    assert complete(scripts["bash"], "train", "--strict") == ["--strict"]
    assert complete(scripts["bash"], "evaluate", "RUN", "--epo") == []
    assert complete(scripts["bash"], "benchmark", "serving", "--j") == ["--json"]
    assert complete(scripts["bash"], "benchmark", "st") == ["step", "startup"]


def test_positional_arguments_are_not_offered_as_flags(scripts: dict[str, str]) -> None:
    assert complete(scripts["bash"], "compare", "--run") == []
    assert complete(scripts["bash"], "predict", "--files") == []
    assert complete(scripts["bash"], "benchmark", "serving", "--export") == []
    assert complete(scripts["bash"], "export", "--") != []
    assert "-l run_a" not in scripts["fish"]  # fish calls the flag --run_a "-l run_a"


def test_a_value_is_completed_to_the_choices_of_its_flag(scripts: dict[str, str]) -> None:
    recipes = [recipe for recipe in RECIPES if recipe.startswith("f")]
    # bash passes --recipe=f as three words, zsh as one word. The function must complete either form.
    found = complete(scripts["bash"], "train", "--recipe", "=", "f")
    assert set(recipes) <= set(found)
    assert complete(scripts["bash"], "train", "--recipe=f") == [f"--recipe={r}" for r in found]


def test_files_are_offered_where_there_are_no_choices(
    scripts: dict[str, str], tmp_path, monkeypatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert complete(scripts["bash"], "train", "--data_dir", "=", "ph") == ["photos"]
    assert complete(scripts["bash"], "evaluate", "ph") == ["photos"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_zsh_and_fish_have_a_valid_syntax(
    scripts: dict[str, str], shell: str
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([program, "-n"], input=scripts[shell], text=True, check=True)


def test_an_unknown_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("completion", ["tcsh"]) == 2
    assert capsys.readouterr().err == (
        "seedtf completion: 'tcsh' is not one of the shells bash, zsh, fish\n"
    )
