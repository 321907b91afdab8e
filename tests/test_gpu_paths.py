"""Training on a GPU, as far as it can be tested without a GPU: with stub CUDA libraries.

TensorFlow, its graph optimizer and XLA's compiler for GPUs are real. Only the kernels do nothing
(``fake_gpu.c``). So each kind of run must reach its end. The stub driver counts how often the training
thread waits for the GPU, and the copies to the host, which an operation without a GPU kernel needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_gpu
import pytest
from conftest import Shared

from seedtf.benchmark.gpu.hlo import largest_module, parse_module

ONE_GPU = {"strategy": "none"}
CASES: dict[str, dict[str, Any]] = {
    "default": {**ONE_GPU, "steps_per_execution": 2},
    "host": {**ONE_GPU, "placement": "host", "precision": "mixed_float16", "epochs": 1},
    "two GPUs": {"epochs": 1},
    # A deterministic run does not use XLA. This run is the last one, because determinism cannot be
    # switched off again.
    "deterministic": {**ONE_GPU, "deterministic": True},
}
NUM_IMAGES, IMAGE_SIZE = 18, 16  # of the tiny folder, and in gpu_worker.py

pytestmark = pytest.mark.skipif(
    bool(fake_gpu.missing_requirement()), reason=fake_gpu.missing_requirement()
)


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, shared: Shared) -> Path:
    """The folder of all runs; ``dump`` has XLA's modules, and ``found`` what the worker printed."""

    def train(folder: Path) -> None:
        libraries, dump = folder / "lib", folder / "dump"
        libraries.mkdir()
        dump.mkdir()
        worker = Path(__file__).with_name("gpu_worker.py")
        done = subprocess.run(
            [sys.executable, str(worker), str(tiny_folder), str(folder), json.dumps(CASES)],
            env=fake_gpu.environment(fake_gpu.build(libraries), gpus=2, dump=dump),
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("CASE ")]
        assert lines, done.stderr[-2000:]
        (folder / "found").write_text("\n".join(lines))

    return shared("gpu", train)


@pytest.fixture(scope="module")
def dump(finished: Path) -> Path:
    return finished / "dump"


@pytest.fixture(scope="module")
def runs(finished: Path) -> dict[str, dict[str, Any]]:
    """What the worker found in each run, by name. All runs are in one process with two fake GPUs."""
    lines = (finished / "found").read_text().splitlines()
    results = [json.loads(line.removeprefix("CASE ")) for line in lines]
    return {each["name"]: each for each in results}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_reaches_its_end(runs: dict[str, dict[str, Any]], case: str) -> None:
    assert case in runs, f"the process ended before this run did; complete: {', '.join(runs)}"
    assert runs[case]["error"] == ""
    assert runs[case]["counts"]["kernels"] + runs[case]["counts"]["graphs"] > 0


@pytest.mark.parametrize("case", ["default", "host", "deterministic"])
def test_the_training_thread_waits_for_nothing_between_two_steps(
    runs: dict[str, dict[str, Any]], case: str
) -> None:
    counted = runs[case]["between"]
    assert counted
    assert all(copies == waits == 0 for copies, waits in counted), counted


def test_the_image_table_stays_on_the_gpu_without_xla(runs: dict[str, dict[str, Any]]) -> None:
    """Both runs copy the weights to the host.

    If an operation on the table had no GPU kernel, each of six steps would copy all images, too.
    """
    table_bytes = NUM_IMAGES * IMAGE_SIZE * IMAGE_SIZE * 3
    names = ("default", "deterministic")
    with_xla, without_xla = (runs[name]["counts"]["to_host_bytes"] for name in names)
    assert without_xla < with_xla + 3 * table_bytes


def test_xla_compiles_the_network_once_for_training_and_once_for_validation(
    runs: dict[str, dict[str, Any]], dump: Path
) -> None:
    modules = [path.name for path in dump.glob("*gpu_after_optimizations.txt")]
    found = {
        name: sum(f"_{name}_" in each for each in modules)
        for name in ("train_steps", "train_step", "network")
    }
    # One call trains two steps in the run "default", and one step in "host". Both runs validate.
    assert found == {"train_steps": 1, "train_step": 1, "network": 2}, modules
    assert runs["default"]["memory"][0] > 10 << 30  # the bytes that TensorFlow may allocate


def test_the_compiled_step_needs_few_kernels_and_little_memory_traffic(
    runs: dict[str, dict[str, Any]], dump: Path
) -> None:
    (path,) = dump.glob("*train_steps*gpu_after_optimizations.txt")
    module = parse_module(path.read_text())
    assert largest_module(dump) is not None
    assert 50 < module.kernels <= 75
    assert module.bytes <= 2.2e6  # bytes that all kernels together read and write
