"""A race is the same training with seedtf and with other tools: its records, its table and its figure.

``scripts/benchmark_race.py`` runs the race. The modules tested here are in ``scripts/race``.
"""

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

    monkeypatch.setattr(watch, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(watch, "MEMORY_POLL_SECONDS", 0.1)  # FAKE_TRAINING may end after 0.3 s
    return watch


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from race import summary

    return summary


def make_result(tool: str, accuracies: list[float], **changes: Any) -> dict[str, Any]:
    history = [
        {"epoch": i + 1, "seconds": 60.0 * (i + 1), "cpu_seconds": 100.0, "accuracy": accuracy}
        for i, accuracy in enumerate(accuracies)
    ]
    return {
        **{"tool": tool, "setting": "best", "weights": "pretrained", "history": history},
        **{"seconds": 400.0, "cpu_seconds": 700.0, "images_per_second": 50.0, "first_step": 9.0},
        **{"peak_bytes": 2_000_000_000, "lines": 1, "finished": True, **changes},
    }


def test_repeated_headers_and_an_incomplete_last_line_are_left_out(
    watch: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "history.csv"
    assert watch.read_accuracies(path, "accuracy", 1.0) == []
    path.write_text("epoch,accuracy\n0,50\nepoch,accuracy\n0,75\n1,9")
    assert watch.read_accuracies(path, "accuracy", 0.01) == [0.5, 0.75]
    assert watch.read_accuracies(path, "val_accuracy", 1.0) == []


FAKE_TRAINING = """
import sys, time
sum(i * i for i in range(3_000_000))
table = open(sys.argv[1], "w")
print("epoch,accuracy", "1,0.5", sep="\\n", file=table, flush=True)
time.sleep(0.3)
print("2,0.75", file=table, flush=True)
time.sleep(float(sys.argv[2]))
"""


def watch_fake_training(
    watch: ModuleType,
    folder: Path,
    *,
    sleep_seconds: int,
    get_first_step: Callable[[], float | None],
    limit_seconds: float,
) -> Any:
    """The record of a run of ``FAKE_TRAINING`` that sleeps for ``sleep_seconds`` after two epochs."""
    history = folder / "history.csv"
    return watch.watch(
        [sys.executable, "-c", FAKE_TRAINING, str(history), str(sleep_seconds)],
        os.environ,
        folder / "output.txt",
        get_accuracies=lambda: watch.read_accuracies(history, "accuracy", 1.0),
        get_first_step=get_first_step,
        limit_seconds=limit_seconds,
    )


def test_each_epoch_has_the_seconds_and_cpu_seconds_until_its_end(
    watch: ModuleType, tmp_path: Path
) -> None:
    record = watch_fake_training(
        watch, tmp_path, sleep_seconds=0, get_first_step=time.time, limit_seconds=60.0
    )
    assert record.exit_code == 0
    assert [row["accuracy"] for row in record.history] == [0.5, 0.75]
    first, second = record.history
    assert second["seconds"] - first["seconds"] > 0.2
    assert 0 < first["cpu_seconds"] <= second["cpu_seconds"] <= record.cpu_seconds + 0.02
    assert record.first_step is not None and 0 <= record.first_step < record.seconds
    assert record.peak_bytes > 1_000_000


def test_a_training_that_exceeds_the_limit_is_killed(watch: ModuleType, tmp_path: Path) -> None:
    record = watch_fake_training(
        watch, tmp_path, sleep_seconds=60, get_first_step=lambda: None, limit_seconds=1.5
    )
    assert record.exit_code == -9 and record.first_step is None
    assert record.seconds < 20 and len(record.history) <= 2


def test_the_table_has_the_minutes_until_an_accuracy_was_reached(summary: ModuleType) -> None:
    reached = make_result("seedtf", [0.8, 0.9, 0.89])
    assert summary.minutes_to(reached, 0.90) == 2.0
    assert summary.minutes_to(reached, 0.95) is None
    started = make_result("timm", [], finished=False, first_step=None, images_per_second=None)
    head, _, first, second = summary.table([reached, started]).splitlines()
    assert first.split(" | ")[2:6] == ["seedtf", "2.0", "–", "0.900"]
    assert second.split(" | ")[2:6] == ["timm (unfinished)", "–", "–", "–"]
    assert head.count("|") == first.count("|") == second.count("|")


def test_the_figure_is_drawn_from_partial_results(summary: ModuleType, tmp_path: Path) -> None:
    scratch = make_result("fastai", [0.3, 0.4], weights="scratch", setting="default")
    summary.draw(
        [make_result("seedtf", [0.8, 0.9]), scratch, make_result("keras", [])], tmp_path / "a.png"
    )
    summary.draw([make_result("keras", [])], tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("best", "top"), [(0.03, 0.2), (0.59, 0.6), (0.6, 0.7), (0.95, 0.97), (0.99, 0.97)]
)
def test_the_axis_ends_at_the_first_tick_above_the_best_accuracy(
    summary: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: float, top: float
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(summary, "save_figure", lambda figure, path: figures.append(figure))
    summary.draw([make_result("seedtf", [0.01, best])], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_ylim() == (0.05, top)
    assert max(axes.get_yticks()) <= top


SCRIPT = '''
from __future__ import annotations
import json
import textwrap
from race_runner import RaceArgs, main

def helper(args):
    """Not counted."""
    # not counted
    return json.dumps(str(args))

def other(args):
    return 1

def default(args):
    """Not counted."""
    text = helper(args)

    text.callback = args.record_first_step
    print(text)
'''


def test_count_lines_counts_the_code_that_a_setting_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "race_script_of_a_test.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(SCRIPTS / "race"))
    monkeypatch.syspath_prepend(str(tmp_path))
    import race_runner
    import race_script_of_a_test

    # The five lines are `import json`, two lines of helper (`def` and `return`), and the first and the
    # last statement of default.
    assert race_runner.count_lines(race_script_of_a_test.default) == 5
