"""The metadata in setup.py, and the scripts that run a command."""

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
from seedtf.commands.main import COMMANDS
from seedtf.compat.tensorflow import has_addons

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that setup.py passes to ``setuptools.setup``."""
    arguments_of_setup: dict[str, Any] = {}
    monkeypatch.setattr(
        setuptools, "setup", lambda **arguments: arguments_of_setup.update(arguments)
    )
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return arguments_of_setup


def test_setup_has_the_version_of_the_package(metadata: dict[str, Any]) -> None:
    assert metadata["version"] == seedtf.__version__


def test_the_console_script_can_be_called(metadata: dict[str, Any]) -> None:
    (line,) = metadata["entry_points"]["console_scripts"]
    name, target = line.replace(" ", "").split("=")
    module, function = target.split(":")
    assert name == "seedtf"
    assert callable(getattr(importlib.import_module(module), function))


def test_every_folder_with_code_is_packaged(metadata: dict[str, Any]) -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "seedtf").rglob("*.py")}
    assert set(metadata["packages"]) == {str(folder).replace(os.sep, ".") for folder in folders}


def test_every_file_that_the_code_reads_is_packaged(metadata: dict[str, Any]) -> None:
    files = {
        (str(path.parent.relative_to(ROOT)).replace(os.sep, "."), path.name)
        for path in (ROOT / "seedtf").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    stated = metadata["package_data"].items()
    assert {(package, name) for package, names in stated for name in names} == files


def test_requirements_have_two_bounds_and_installed_packages_meet_them(
    metadata: dict[str, Any],
) -> None:
    extras = metadata["extras_require"]
    installed_extra = "addons" if has_addons() else "dev"
    for line in metadata["install_requires"] + extras["test"] + extras[installed_extra]:
        requirement = Requirement(line)
        assert operators(requirement) == {">=", "<"}, requirement
        if requirement.marker is None or requirement.marker.evaluate():
            assert importlib.metadata.version(requirement.name) in requirement.specifier
    names = {"cuda", "tensorboard", "mlflow", "wandb", "trackio", "demo", "export", "tune", "hub"}
    names |= {"docs", "explore", "heic", "parquet", "pack", "probe", "remote"}
    assert names | {"addons", "test", "dev"} == set(extras)
    assert all(
        operators(Requirement(line)) == {">=", "<"} for lines in extras.values() for line in lines
    )


def operators(requirement: Requirement) -> set[str]:
    return {specifier.operator for specifier in requirement.specifier} - {"!="}


def test_the_requirements_allow_only_tensorflow_2_15_and_2_21(metadata: dict[str, Any]) -> None:
    def allowed(lines: list[str], name: str, versions: list[str]) -> list[str]:
        found = [Requirement(line).specifier for line in lines if Requirement(line).name == name]
        return [version for version in versions if all(version in each for each in found)]

    base = metadata["install_requires"]
    addons = base + metadata["extras_require"]["addons"]
    releases = [f"2.{minor}.{patch}" for minor in range(14, 23) for patch in (0, 1)]
    assert allowed(base, "tensorflow", releases) == ["2.15.0", "2.15.1", "2.21.0", "2.21.1"]
    assert allowed(addons, "tensorflow", releases) == ["2.15.0", "2.15.1"]
    assert allowed(addons, "keras", ["2.14.0", "2.15.0", "3.0.0"]) == ["2.15.0"]
    assert allowed(base, "numpy", ["1.25.2", "1.26.4", "2.4.6"]) == ["1.26.4", "2.4.6"]
    assert allowed(addons, "numpy", ["1.25.2", "1.26.4", "2.4.6"]) == ["1.26.4"]


def test_every_import_is_a_stated_requirement(metadata: dict[str, Any]) -> None:
    imported: set[str] = set()
    for path in (ROOT / "seedtf").rglob("*.py"):
        # Only imports at module level are checked, because functions import optional packages when they
        # need them.
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


SCRIPTS = [path.name for path in (ROOT / "scripts").glob("*.py") if path.stem in COMMANDS]


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_runs_its_command(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main_module = importlib.import_module("seedtf.commands.main")
    monkeypatch.setattr(main_module, "main", lambda argv: f"main got {argv}")
    monkeypatch.setattr(sys, "argv", [script, "--seed=1"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    assert end.value.code == f"main got {[Path(script).stem, '--seed=1']}"
