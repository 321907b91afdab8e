"""scripts/benchmark_peers.py compares the images per second of seedtf and other libraries.

The libraries are installed in several Python environments and run one at a time.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_peers

    return benchmark_peers


def test_the_table_marks_missed_targets(script: ModuleType) -> None:
    rates = {"seedtf": [600.0, 610.0, 590.0], "dali": [100.0] * 3, "tf_image": [120.0] * 3}
    # The target is 6 for both libraries.
    lines, result = script.report({**rates, "seedtf, one core": [300.0] * 3})
    assert result["ratios"] == {"dali": 6.0, "tf_image": 5.0}
    assert result["scaling"] == 2.0
    assert [line for line in lines if "MISSED" in line] == [
        line for line in lines if "tf.image" in line
    ]


def test_every_requirement_of_an_environment_is_among_its_reported_packages(
    script: ModuleType,
) -> None:
    for name, environment in script.ENVIRONMENTS.items():
        text = (SCRIPTS / environment.requirements).read_text(encoding="utf-8")
        required = set(re.findall(r"^([\w-]+).*==", text, re.M))
        assert required
        assert required <= set(environment.packages), name
        assert [peer for peer in script.PEERS.values() if peer.environment == name]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--peers=kornia"], "--python=torch=PATH, a Python for which scripts/"),
        (["--peers=korina"], "--peers=korina: unknown; choose from"),
        (
            ["--python=jax=/bin/sh"],
            "--python=jax=/bin/sh: write NAME=PATH, at most once for each of",
        ),
        (["--python=torch=/bin/sh", "--python=torch=/bin/sh"], "at most once for each of torch"),
        (["--python=torch=no/python"], "--python=torch=no/python: no/python is not a file"),
    ],
)
def test_a_wrong_flag_is_named(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark_peers.py", *flags])
    with pytest.raises(SystemExit) as error:
        script.main()
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_the_default_peers_are_all_whose_environment_is_given(script: ModuleType) -> None:
    without_torch = script.read_peers(None, None, {"seedtf": sys.executable})
    with_torch = script.read_peers(None, None, {"seedtf": sys.executable, "torch": "/bin/sh"})
    assert {script.PEERS[name].environment for name in without_torch} == {"seedtf"}
    added = set(with_torch) - set(without_torch)
    assert {script.PEERS[name].environment for name in added} == {"torch"}


LIBRARY = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from peers.worker import worker_loop
subprocess.Popen(["sh", "-c", "while :; do echo >> " + sys.argv[2] + "; sleep 0.01; done"])
worker_loop(iter(range(10**9)), ("pytest",))
"""


@pytest.fixture
def worker_and_file(script: ModuleType, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """A worker whose library has a child process, and the file to which the child writes."""
    path = tmp_path / "written"
    command = [sys.executable, "-c", LIBRARY, str(SCRIPTS), str(path)]
    worker = script.Worker("made up", command, threads=1)
    yield worker, path
    worker.kill()


def test_child_processes_of_a_library_run_only_in_its_turn(
    worker_and_file: tuple[Any, Path],
) -> None:
    worker, path = worker_and_file

    def bytes_written() -> int:
        time.sleep(0.1)  # A running child process writes about ten lines in this time.
        return path.stat().st_size if path.exists() else 0

    assert json.loads(worker.greeting)["pytest"] == pytest.__version__
    bytes_before = bytes_written()
    assert bytes_written() == bytes_before
    assert float(worker.ask("0.1")) > 0  # images per second, measured for 0.1 s
    bytes_after = bytes_written()
    assert bytes_after > bytes_before
    assert bytes_written() == bytes_after
    worker.kill()
    worker._send(signal.SIGCONT)  # A child process that was only paused would write again.
    assert bytes_written() == bytes_after


def test_a_library_that_does_not_start_is_named(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="made up did not start"):
        script.Worker("made up", [sys.executable, "-c", ""], threads=1)
