"""The examples in docstrings run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path

import pytest
from tiny_run import draw_classes, make_run

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "seedtf").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the working folder of the examples contains at first: a finished run and an image."""
    folder = tmp_path_factory.mktemp("examples")
    data = draw_classes(folder / "seedlings", ["Charlock", "Maize"])
    make_run(folder / "here" / "runs" / "seedlings", data)
    shutil.copy(data / "Maize" / "1-0.png", folder / "here" / "leaf.png")
    return folder / "here"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_print_what_they_show(
    name: str,
    example_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(shutil.copytree(example_folder, tmp_path / "here"))
    result = doctest.testmod(module, optionflags=OPTIONS)
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted > 0
