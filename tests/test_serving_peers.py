"""scripts/benchmark_serving_peers.py compares the speed of an export of seedtf with other runtimes.

It reports medians over rounds and compares seedtf with the faster of two ``tf.function`` runtimes. It
ends with an error if two runtimes with the same weights predict differently.
"""

from __future__ import annotations

import io
import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
ECHO = (
    "import sys; print('ready', flush=True)\nfor line in sys.stdin: print(line, end='', flush=True)"
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_serving_peers

    return benchmark_serving_peers


class FakeWorker:
    """Answers as a worker does; an image takes 1 ms in the first round, then 10 ms and 100 ms."""

    milliseconds = 1.0

    def ask(self, line: str) -> str:
        order = json.loads(line)
        request_ms = self.milliseconds * order["batch_size"]
        rate = 1000 * order["callers"] / self.milliseconds
        self.milliseconds *= 10  # so that a mean over three rounds is not their median
        times = {"p50_ms": request_ms, "p99_ms": 2 * request_ms}
        return json.dumps({"images_per_second": rate, **times})


def test_the_reported_speeds_are_medians_over_the_rounds(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "BATCH_SIZES", (4,))
    arguments = Namespace(rounds=3, seconds=1.0, callers=2)
    turns = script.measure({"seedtf": FakeWorker()}, ["256"], arguments)
    (row,) = script.summarize(turns)
    assert (row["kind"], row["runtime"], row["batch_size"]) == ("256", "seedtf", 4)
    # The median is the second round: 10 ms per image, 4 images per request, 2 callers.
    assert (row["p50_ms"], row["p99_ms"]) == (40.0, 80.0)
    assert row["images_per_second"] == 200.0


def make_row(runtime: str, batch_size: int, rate: float, kind: str = "256") -> dict[str, Any]:
    figures = {"images_per_second": rate, "p50_ms": 12.34, "p99_ms": 56.78}
    return {"kind": kind, "runtime": runtime, "batch_size": batch_size, **figures}


def test_the_table_compares_seedtf_with_the_faster_tf_function(script: ModuleType) -> None:
    rates = {
        "seedtf": (90.0, 200.0),
        "tensorflow": (100.0, 100.0),
        "frozen": (60.0, 160.0),
        "timm": (500.0, 500.0),
    }
    rows = [
        make_row(name, batch_size, rate)
        for name, pair in rates.items()
        for batch_size, rate in zip((1, 8), pair, strict=True)
    ]
    lines = script.table([*rows, make_row("timm", 1, 7.0, "leaves")])
    assert lines[0].split() == ["JPEG", "256²", "requests", "of", "1", "requests", "of", "8"]
    assert lines[2].split()[-6:] == ["90.0", "12.3", "56.8", "200.0", "12.3", "56.8"]
    assert lines[6].split()[-4:] == ["0.90", "×", "1.25", "×"]
    assert lines[8].startswith("JPEG leaves")
    assert len(lines) == 12  # no comparison where seedtf was not measured


def test_equal_weights_must_give_equal_probabilities(script: ModuleType) -> None:
    probabilities = {
        "seedtf": [0.2, 0.8],
        "openvino": [0.2005, 0.7995],
        "timm": [0.9, 0.1],  # has other weights
    }
    assert script.check(probabilities) == pytest.approx(0.0005)
    with pytest.raises(SystemExit, match=r"probabilities differ by 0.0012, more than"):
        script.check({**probabilities, "onnxruntime": [0.2012, 0.7988]})


def test_a_worker_answers_and_is_paused_between_two_requests(script: ModuleType) -> None:
    worker = script.Worker("echo", [sys.executable, "-c", ECHO], 1)
    process = psutil.Process(worker._process.pid)
    try:
        for line in ("1", "2"):
            assert worker.ask(line) == line
            deadline = time.monotonic() + 10
            while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
                time.sleep(0.01)
            assert process.status() == psutil.STATUS_STOPPED
    finally:
        worker.kill()
    with pytest.raises(SystemExit, match="echo did not start"):
        script.Worker("echo", [sys.executable, "-c", "print('no')"], 1)


def test_two_folders_with_the_same_name_are_refused(script: ModuleType, tmp_path: Path) -> None:
    from serving_peers.exports import write_exports

    message = "--kinds=a/leaves,b/leaves: two folders have the same name"
    with pytest.raises(SystemExit, match=message):
        write_exports("resnet50", tmp_path, ["a/leaves", "b/leaves"])


def test_a_worker_fills_each_request_with_images_of_its_kind(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from serving_peers import runtimes

    for kind in ("256", "leaves"):
        (tmp_path / "jpeg" / kind).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "jpeg" / kind / f"{number}.jpg").write_text(f"{kind}{number}")
    requests: list[list[bytes]] = []

    def predict(files: list[bytes]) -> np.ndarray:
        requests.append(files)
        return np.full([len(files), 2], 0.5)

    runtime = runtimes.Runtime(lambda setup: predict, "a stub", "numpy")
    monkeypatch.setitem(runtimes.RUNTIMES, "stub", runtime)
    # An empty order asks for the versions and for the probabilities of check.jpg.
    orders = [{}, {"kind": "leaves", "batch_size": 4, "callers": 2, "seconds": 0.01}]
    (tmp_path / "check.jpg").write_text("check")
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{json.dumps(o)}\n" for o in orders)))
    setup = runtimes.Setup(tmp_path, runtimes.NETWORKS["resnet50"], 2)
    runtimes.worker_loop("stub", setup, batch_sizes=[1])
    ready, *answers = capsys.readouterr().out.splitlines()
    check_answer, load_answer = map(json.loads, answers)
    assert ready == "ready"
    assert check_answer == {"versions": {"numpy": np.__version__}, "probabilities": [0.5, 0.5]}
    assert (load_answer["batch_size"], load_answer["callers"]) == (4, 2)
    assert len(requests[0]) == 1  # the warm-up
    assert requests[1] == [b"check"]
    assert requests[-1] == [b"leaves0", b"leaves1", b"leaves2", b"leaves0"]
