"""scripts/benchmark_race.py reads what each tool writes, and reports races that are not finished."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from race import watch

    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.02)
    return watch


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from race import summary

    return summary


def result(tool: str, accuracies: list[float], **changes: Any) -> dict[str, Any]:
    history = [
        {"epoch": i + 1, "seconds": 60.0 * (i + 1), "cpu_seconds": 100.0, "accuracy": accuracy}
        for i, accuracy in enumerate(accuracies)
    ]
    return {
        **{"tool": tool, "setting": "best", "weights": "pretrained", "history": history},
        **{"seconds": 400.0, "cpu_seconds": 700.0, "images_per_second": 50.0, "first_step": 9.0},
        **{"peak_bytes": 2_000_000_000, "lines": 1, "finished": True, **changes},
    }


def test_a_header_in_the_middle_and_half_a_line_are_left_out(
    watch: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "history.csv"
    assert watch.read_accuracies(path, "accuracy", 1.0) == []
    path.write_text("epoch,accuracy\n0,50\nepoch,accuracy\n0,75\n1,9")
    assert watch.read_accuracies(path, "accuracy", 0.01) == [0.5, 0.75]
    assert watch.read_accuracies(path, "val_accuracy", 1.0) == []


WORK = """
import sys, time
sum(i * i for i in range(3_000_000))
table = open(sys.argv[1], "w")
print("epoch,accuracy", "1,0.5", sep="\\n", file=table, flush=True)
time.sleep(0.3)
print("2,0.75", file=table, flush=True)
time.sleep(float(sys.argv[2]))
"""


def watch_work(
    watch: ModuleType,
    folder: Path,
    last_seconds: int,
    first_step: Callable[[], float | None],
    limit: float,
) -> Any:
    """The record of ``WORK``, which sleeps for ``last_seconds`` after its two epochs."""
    history = folder / "history.csv"
    return watch.watch(
        [sys.executable, "-c", WORK, str(history), str(last_seconds)],
        os.environ,
        folder / "output.txt",
        accuracies=lambda: watch.read_accuracies(history, "accuracy", 1.0),
        first_step=first_step,
        limit=limit,
    )


def test_each_epoch_has_its_seconds_and_cpu_seconds(watch: ModuleType, tmp_path: Path) -> None:
    record = watch_work(watch, tmp_path, 0, time.time, 60.0)
    assert record.exit_code == 0
    assert [row["accuracy"] for row in record.history] == [0.5, 0.75]
    first, second = record.history
    assert second["seconds"] - first["seconds"] > 0.2
    assert 0 < first["cpu_seconds"] <= second["cpu_seconds"] <= record.cpu_seconds + 0.02
    assert record.first_step is not None and 0 <= record.first_step < record.seconds
    assert record.peak_bytes > 1_000_000


def test_a_training_that_takes_too_long_is_ended(watch: ModuleType, tmp_path: Path) -> None:
    record = watch_work(watch, tmp_path, 60, lambda: None, 1.5)
    assert record.exit_code == -9 and record.first_step is None
    assert record.seconds < 20 and len(record.history) <= 2


def test_the_table_has_the_first_epoch_that_reached_a_mark(summary: ModuleType) -> None:
    reached = result("seedtf", [0.8, 0.9, 0.89])
    assert summary.minutes_to(reached, 0.90) == 2.0
    assert summary.minutes_to(reached, 0.95) is None
    started = result("timm", [], finished=False, first_step=None, images_per_second=None)
    head, _, first, second = summary.table([reached, started]).splitlines()
    assert first.split(" | ")[2:6] == ["seedtf", "2.0", "–", "0.900"]
    assert second.split(" | ")[2:6] == ["timm (unfinished)", "–", "–", "–"]
    assert head.count("|") == first.count("|") == second.count("|")


def test_the_picture_is_drawn_of_partial_results(summary: ModuleType, tmp_path: Path) -> None:
    scratch = result("fastai", [0.3, 0.4], weights="scratch", setting="default")
    summary.draw([result("seedtf", [0.8, 0.9]), scratch, result("keras", [])], tmp_path / "a.png")
    summary.draw([result("keras", [])], tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size > 0


SCRIPT = '''
from __future__ import annotations
import json
import textwrap
from race_runner import Race, main

def helper(race):
    """Left out."""
    # left out
    return json.dumps(str(race))

def other(race):
    return 1

def default(race):
    """Left out."""
    text = helper(race)

    text.callback = race.first_step
    print(text)
'''


def test_lines_are_those_that_a_setting_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "race_script_of_a_test.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(SCRIPTS / "race"))
    monkeypatch.syspath_prepend(str(tmp_path))
    import race_runner
    import race_script_of_a_test

    # import json; def and return of helper; text and print of default
    assert race_runner.count_lines(race_script_of_a_test.default) == 5
