"""What setup.py promises, and the scripts that stand for commands."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement

import seedtf

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: stated.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return stated


def test_version_is_the_packages(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == seedtf.__version__


def test_console_script_can_be_called(metadata: dict[str, Any]) -> None:
    (line,) = metadata["entry_points"]["console_scripts"]
    name, target = line.replace(" ", "").split("=")
    module, function = target.split(":")
    assert name == "seedtf"
    assert callable(getattr(importlib.import_module(module), function))


def test_every_folder_with_code_is_packaged(metadata: dict[str, Any]) -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "seedtf").rglob("*.py")}
    assert set(metadata["packages"]) == {str(folder).replace(os.sep, ".") for folder in folders}
    assert (ROOT / "seedtf" / metadata["package_data"]["seedtf"][0]).is_file()


def test_requirements_have_both_ends_and_hold_here(metadata: dict[str, Any]) -> None:
    extras = metadata["extras_require"]
    requirements = [Requirement(line) for line in metadata["install_requires"] + extras["dev"]]
    for requirement in requirements:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, requirement
        assert importlib.metadata.version(requirement.name) in requirement.specifier
    assert {"cuda", "tensorboard", "dev"} <= set(extras)


def test_every_import_is_a_stated_requirement(metadata: dict[str, Any]) -> None:
    imported: set[str] = set()
    for path in (ROOT / "seedtf").rglob("*.py"):
        # only what a module needs to be imported at all: optional packages wait inside functions
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    stated = {Requirement(line).name for line in metadata["install_requires"]}
    modules = {"absl-py": "absl", "pillow": "PIL"}
    through_tensorflow = {"keras", "h5py"}
    known = {modules.get(name, name) for name in stated} | through_tensorflow | {"seedtf"}
    assert imported - known - sys.stdlib_module_names == set()


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").glob("*.py")))
def test_script_is_the_command(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = importlib.import_module("seedtf.commands.main")
    monkeypatch.setattr(command, "main", lambda argv: f"main got {argv}")
    monkeypatch.setattr(sys, "argv", [script, "--seed=1"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    assert end.value.code == f"main got {[Path(script).stem, '--seed=1']}"
