"""Fixtures and settings that the test modules share, and the order in which the modules run."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
from figures import replace_figures
from hypothesis import HealthCheck, settings
from PIL import Image

from seedtf.compat.tensorflow_env import set_performance_switches

# TensorFlow reads this variable when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The performance switches and the number of threads of `seedtf train`. With these settings, a run
# inside this process writes the same bytes as a run that the command starts.
set_performance_switches()
os.environ["TF_NUM_INTRAOP_THREADS"] = str(os.cpu_count())

# The garbage collector is off while pytest imports the test modules. All imported objects stay in use,
# and scanning them repeatedly would take a fifth of the import time.
gc.disable()


# The modules with the longest tests run first. The short tests come last, so that all processes of
# pytest-xdist end at about the same time.
_LONGEST = (
    *("distribute", "gpu_paths", "resume", "cases_notebook", "train", "trackers", "benchmarks"),
    *("folds", "tune", "ingredients", "hub"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_collection_finish() -> None:
    gc.freeze()  # the collector never scans the objects that exist now
    gc.enable()


settings.register_profile(
    "seedtf",
    deadline=None,  # the first call of a compiled function is slow
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("seedtf")

TINY_CLASSES = ("alder", "two words", "öland rye")
TINY_PER_CLASS = 6


def tiny_color(label: int, number: int) -> tuple[int, int, int]:
    """The colour that fills image ``number`` of class ``label``; no two images have the same colour."""
    channels = [30 + 5 * number, 40, 50]
    channels[label] += 150
    return channels[0], channels[1], channels[2]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replaces the user's cache folder by an empty one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg_cache")))
        yield


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all test processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _one_fork_server(common_folder: Path) -> None:
    """Gives all test processes the same socket path, so that they share one server of ``forked.py``."""
    os.environ[forked.ADDRESS] = str(common_folder / "forks")


Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(common_folder: Path) -> Shared:
    """A function: ``shared(name, make)`` returns a folder that all test processes share.

    The first call with a name runs ``make``, which fills the folder. Calls from other processes wait
    until ``make`` has returned. No test may change the folder.
    """

    def shared_folder(name: str, make: Callable[[Path], object]) -> Path:
        folder, marker = (common_folder / f"shared-{name}{end}" for end in ("", "-made"))
        with (common_folder / f"shared-{name}-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not marker.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by an attempt that failed
                folder.mkdir()
                make(folder)
                marker.touch()
        return folder

    return shared_folder


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces all figures by a tiny image, which saves the time of drawing them."""
    replace_figures(monkeypatch.setattr)


@pytest.fixture(scope="module")
def module_without_figures() -> Iterator[None]:
    """Does what ``without_figures`` does, for all tests and fixtures of a module."""
    with pytest.MonkeyPatch.context() as patch:
        replace_figures(patch.setattr)
        yield


@pytest.fixture
def forked_subprocesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``subprocess.run`` start Python programs in forks that have already imported TensorFlow."""
    monkeypatch.setattr(subprocess, "run", forked.run_python)


@pytest.fixture(scope="session")
def tiny_folder(shared: Shared) -> Path:
    """Three class folders, each with six PNG files of 20×16 pixels. No test may change the files."""

    def draw(folder: Path) -> None:
        for label, name in enumerate(TINY_CLASSES):
            (folder / name).mkdir()
            for number in range(TINY_PER_CLASS):
                image = Image.new("RGB", (20, 16), tiny_color(label, number))
                image.save(folder / name / f"{number}.png")

    return shared("tiny", draw)


@pytest.fixture(scope="session")
def tiny_colors() -> dict[str, tuple[int, int, int]]:
    """The colour, RGB 0–255, that fills each image of ``tiny_folder``, by its relative path."""
    return {
        f"{name}/{number}.png": tiny_color(label, number)
        for label, name in enumerate(TINY_CLASSES)
        for number in range(TINY_PER_CLASS)
    }


@pytest.fixture
def tiny_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of ``tiny_folder`` that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
