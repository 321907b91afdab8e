"""``seedtf benchmark gpu``: a part that fails costs only its own time, and the table names it.

A part is one measurement or one comparison. Each part runs in a process of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from seedtf.benchmark.children import RESULT_PREFIX
from seedtf.benchmark.gpu.checks import compare_pixels
from seedtf.benchmark.gpu.hlo import ModuleCost, largest_module
from seedtf.benchmark.gpu.parts import Part, choose_parts, list_parts
from seedtf.benchmark.gpu.session import run_parts
from seedtf.benchmark.gpu.speed import measure_card
from seedtf.commands.benchmark_gpu import describe_result, utilization_lines
from seedtf.commands.main import main
from seedtf.errors import UserError

CHILD = f"""
import json, sys, time
part = json.loads(sys.argv[1])
if part["name"] == "hangs":
    time.sleep(60)
if part["name"] == "raises":
    raise OSError("the card fell off the bus")
if part["name"] == "dies":
    import os; os._exit(9)
print("noise"); print({RESULT_PREFIX!r} + json.dumps({{"value": part["case"]["value"]}}))
"""
COMMAND = [sys.executable, "-c", CHILD]


def test_a_part_that_fails_or_hangs_costs_only_its_own_time(tmp_path: Path) -> None:
    names = ("raises", "hangs", "dies", "works")
    parts = [
        Part(name, "speed:measure_card", {"value": 7}, 1 if name == "hangs" else 30)
        for name in names
    ]
    shown: list[str] = []
    results = run_parts(
        parts,
        seconds=100.0,
        out=tmp_path / "gpu.json",
        on_result=lambda name, _: shown.append(name),
        command=COMMAND,
    )
    assert "the card fell off the bus" in results["raises"]["error"]
    assert results["hangs"]["error"] == "stopped after 1 s"
    assert results["dies"]["error"] == "ended with exit code 9"
    assert results["works"]["value"] == 7 and results["works"]["seconds"] < 30
    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    assert shown == [*names]


def test_a_part_does_not_start_when_too_little_time_is_left() -> None:
    clock = iter([0.0, 0.0, 0.0, 90.0, 95.0])
    parts = [Part(name, "speed:measure_card", {"value": 1}, 60) for name in ("first", "second")]
    results = run_parts(parts, seconds=100.0, command=COMMAND, clock=lambda: next(clock))
    assert results["first"]["seconds"] == 90.0
    assert results["second"]["error"] == "not started: 5 s were left; raise --seconds"


def test_every_part_is_limited_to_five_minutes_and_is_chosen_by_its_name() -> None:
    parts = list_parts("ResNet50", 224, "sample")
    assert len({part.name for part in parts}) == len(parts)
    assert parts[0].name == "card" and all(part.seconds <= 300 for part in parts)
    with pytest.raises(UserError, match="--only=pixel: is not a part; pass some of card, pixels"):
        choose_parts(parts, "card,pixel")


def test_without_a_gpu_the_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "gpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "TensorFlow sees no GPU on this machine" in line and "seedtf[cuda]" in line
    assert main(["benchmark", "gpu", "--only=all"]) == 2


def test_the_table_shows_failures_and_how_much_of_the_gpu_is_used() -> None:
    limits = {"bfloat16_flops": 8e14, "bytes_per_second": 3e12}
    step = {"step_seconds": 0.02, "flops": 3.2e12, "bytes": 30e9, "kernels": 1220}
    lines = utilization_lines({"card": limits, "bfloat16": step, "epoch": {"epoch_seconds": 1.0}})
    (line,) = lines
    assert "20.0% of the FLOP/s" in line and "50.0% of its memory bandwidth" in line
    assert "1,220 kernels" in line
    assert utilization_lines({"card": {"error": "no"}, "bfloat16": step}) == []
    assert describe_result({"error": "a\n  b"}) == "failed: a b"
    wrong = describe_result({"ok": False, "equal_draws": True, "most_levels": 3.5, "seconds": 2.0})
    assert wrong == "differs: equal_draws True; most_levels 3.5"
    assert describe_result({"ok": True, "seconds": 2.0}) == "as on the CPU"
    equal = {"history": True, "weights": True}
    assert describe_result({"again": equal, "resumed": equal, "ok": True}) == "resumes exactly"


def test_the_cost_of_a_module_of_several_steps_is_that_of_its_loop_body(tmp_path: Path) -> None:
    (tmp_path / "a.gpu_after_optimizations.txt").write_text(
        """HloModule steps
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %y = f32[8]{0} fusion(%x), kind=kLoop, calls=%add
  %z = bf16[8]{0} fusion(%y), kind=kLoop, calls=%cast
  ROOT %t = (s32[], f32[8]{0}) tuple(%x, %y)
}

ENTRY %main.9 (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  %w = (s32[], f32[8]{0}) while(%q), condition=%cond, body=%body.1
  ROOT %r = f32[8]{0} get-tuple-element(%w), index=1
}
"""
    )
    assert largest_module(tmp_path) == ModuleCost(kernels=2, bytes=(32 + 32) + (16 + 32))
    assert largest_module(tmp_path / "none") is None


def test_the_parts_that_need_no_training_run_on_the_cpu() -> None:
    results = compare_pixels(image_size=16, count=4)
    assert results["ok"] and results["equal_draws"]
    limits = measure_card(side=32, num_bytes=1 << 10, times=3)
    assert limits["device"] == "CPU" and limits["bytes_per_second"] > 0
