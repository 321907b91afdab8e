"""``seedtf runs`` lists every run below a folder, also an incomplete one, and the flags that differ."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from browser import open_browser

from seedtf.commands.main import run_command
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.files import lock_folder
from seedtf.runs.history import HISTORY_COLUMNS, TIMING_COLUMNS
from seedtf.runs.listing import differing_flags, list_runs
from seedtf.runs.paths import RunPaths

FLAGS = {"model": "ResNet50", "data_dir": "/data/plants", "epochs": 3, "lr": 0.01, "threads": 2}


def make_run(root: Path, name: str, accuracies: list[float], **flags: object) -> RunPaths:
    """Writes the files of a run with the validation loss 1 / epoch, in which an epoch took 60 s."""
    paths = RunPaths(root / name)
    paths.state.mkdir(parents=True)
    paths.config.write_text(json.dumps({**FLAGS, **flags, "resolved": {"lr": 1}}))
    rows = [
        [epoch, 0.01, 1.0, 0.5, 1 / epoch, accuracy, 1.0]
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    times = [[row[0], 60.0, 100.0, 0.0, 1.0, 0.0] for row in rows]
    for path, columns, lines in (
        (paths.history, HISTORY_COLUMNS, rows),
        (paths.timing, TIMING_COLUMNS, times),
    ):
        path.write_text("".join(",".join(map(str, line)) + "\n" for line in [columns, *lines]))
    return paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path, "a", [0.5, 0.6, 0.7])
    make_run(tmp_path, "deep/b", [0.8, 0.9], lr=0.02, threads=4, run_dir="deep/b")
    report = make_run(tmp_path, "c", [0.1, 0.2, 0.3], mixup=0.2).report
    report.root.mkdir()
    report.report_json.write_text(
        json.dumps({"accuracy": 0.35, "accuracy_interval_95": [0.3, 0.4]})
    )
    report.page.write_text("a page")
    return tmp_path


def test_each_run_is_listed_with_its_best_epoch(root: Path) -> None:
    c, a, b = sorted(list_runs(root), key=lambda run: run.accuracy)
    assert (c.name, a.name, b.name) == ("c", "a", "deep/b")
    assert (b.epochs, b.planned_epochs, b.best_epoch, b.val_loss) == (2, 3, 2, 0.5)
    assert (b.accuracy, b.interval, b.state, b.seconds) == (0.9, None, "stopped", 120.0)
    assert (a.accuracy, a.state) == (0.7, "finished")
    assert (c.accuracy, c.interval, c.page) == (0.35, (0.3, 0.4), "c/report/index.html")


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("name", ["deep/b", "c", "a"]),
        ("accuracy", ["deep/b", "a", "c"]),
        ("loss", ["a", "c", "deep/b"]),
        ("epochs", ["a", "c", "deep/b"]),
        ("seconds", ["deep/b", "a", "c"]),
    ],
)
def test_the_runs_are_sorted_by_the_requested_key(root: Path, sort: str, names: list[str]) -> None:
    assert [run.name for run in list_runs(root, sort)] == names


def test_a_run_of_unknown_duration_comes_last_and_its_duration_is_left_empty(
    root: Path, capsys
) -> None:
    make_run(root, "x", [0.5]).timing.unlink()
    make_run(root, "y", [])
    assert [run.name for run in list_runs(root, "seconds")] == ["deep/b", "a", "c", "x", "y"]
    assert run_command("runs", [str(root), "--json", "--sort=seconds"]) == 0
    seconds = [run["seconds"] for run in json.loads(capsys.readouterr().out)]
    assert seconds == [120.0, 180.0, 180.0, None, None]
    assert run_command("runs", [str(root), "--sort=seconds"]) == 0
    assert capsys.readouterr().out.splitlines()[4].endswith("50.0 %")
    assert 'data-value="nan"' not in (root / "index.html").read_text(encoding="utf-8")


def test_the_duration_of_a_run_that_an_older_version_began_is_the_sum_of_its_epochs(
    tmp_path: Path,
) -> None:
    timing = make_run(tmp_path, "a", [0.5, 0.6]).timing
    *rows, last = timing.read_text().splitlines()
    # An older version began the run; the version that resumed it has added the column `between`.
    timing.write_text("\n".join([*rows, last.removesuffix("0.0") + "nan"]) + "\n")
    assert list_runs(tmp_path)[0].seconds == 120.0


def test_only_differing_flags_that_change_the_model_are_listed(root: Path) -> None:
    assert differing_flags(list_runs(root)) == ["lr", "mixup"]


@pytest.mark.parametrize(
    ("name", "value", "is_compared"),
    [
        ("check", "sample", True),  # sample may miss duplicates, so another split is drawn
        ("strict", True, False),  # stops a run, or changes nothing
        ("cluster", "slurm", False),
        ("save_minutes", 5.0, False),
        ("twins", "ignore", True),
        ("zoom_out", 0.1, True),
    ],
)
def test_only_a_flag_that_can_change_the_result_is_compared(
    tmp_path: Path, name: str, value: object, is_compared: bool
) -> None:
    default = TrainConfig.__dataclass_fields__[name].default
    make_run(tmp_path, "a", [0.5], **({} if default is None else {name: default}))
    make_run(tmp_path, "b", [0.5], **{name: value})
    assert differing_flags(list_runs(tmp_path)) == ([name] if is_compared else [])


def test_a_run_of_an_earlier_release_equals_one_without_the_new_flags(tmp_path: Path) -> None:
    make_run(tmp_path, "a", [0.5])
    make_run(tmp_path, "b", [0.5], twins="ignore", zoom_out=0.0)
    assert differing_flags(list_runs(tmp_path)) == []
    make_run(tmp_path, "c", [0.5], lr=0.1, zoom_out=0.1)
    assert differing_flags(list_runs(tmp_path)) == ["lr", "zoom_out"]


def test_damaged_stopped_and_new_runs_are_listed(root: Path) -> None:
    paths = make_run(root, "z", [0.5, 0.6])
    paths.history.write_text(paths.history.read_text() + "3,0.01,1.0,")
    RunPaths(root / "y").root.mkdir()
    RunPaths(root / "y").config.write_text('{"model": "Res')
    in_training = make_run(root, "x", [])
    in_training.history.unlink()
    in_training.timing.unlink()
    with lock_folder(in_training.state):
        states = {run.name: (run.state, run.epochs) for run in list_runs(root)}
    assert states["z"] == ("stopped", 2)
    assert states["y"] == ("damaged", 0)
    assert states["x"] == ("training", 0)
    assert run_command("runs", [str(root)]) == 0


def test_runs_whose_files_cannot_be_written_are_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "c"):
        with lock_folder(RunPaths(root / name).state):
            pass  # a finished training leaves its lock file
    open_path = Path.open

    def open_for_reading(path: Path, mode: str = "r", *arguments: object, **options: object):
        if mode not in ("r", "rb"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_path(path, mode, *arguments, **options)

    with lock_folder(RunPaths(root / "c").state):
        # Removing the permission to write would not be enough, because root can still write the files.
        monkeypatch.setattr(Path, "open", open_for_reading)
        states = {run.name: run.state for run in list_runs(root)}
    assert states == {"a": "finished", "c": "training", "deep/b": "stopped"}


def test_the_table_and_the_page_show_every_run(root: Path, capsys) -> None:
    assert run_command("runs", [str(root), "--sort=accuracy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["deep/b", "a", "c"]
    assert "90.0 %" in lines[1]
    assert "30.0 to 40.0" in lines[3]
    assert "  --lr: 0.02, 0.01, 0.01" in lines
    assert "  --mixup: –, –, 0.2" in lines
    page = (root / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<td data-value="(a|c|deep/b)">', page) == ["deep/b", "a", "c"]
    assert '<a href="c/report/index.html">c</a>' in page
    assert page.count("data:image/png") == 1
    assert not re.search(r'(src|href)="https?:', page)


def test_a_click_on_a_heading_sorts_numbers_by_value_and_names_as_text(tmp_path: Path) -> None:
    values = {"run-9": (0.8958, 0.001), "run-10": (0.9, 0.0003), "run-11": (0.85, 1e-05)}
    for name, (accuracy, lr) in values.items():
        make_run(tmp_path, name, [accuracy], lr=lr)
    assert run_command("runs", [str(tmp_path)]) == 0
    script = """["accuracy", "--lr", "run"].map(heading => {
      const buttons = [...document.querySelectorAll("#runs th button")];
      buttons.find(button => button.textContent === heading).click();
      return [...document.querySelectorAll("#runs tbody tr")].map(row => row.cells[0].textContent);
    })"""
    with open_browser() as browser:
        page = tmp_path / "index.html"
        seen = browser.open_page(page, script, width=800, height=600, dark=False)
    assert seen.messages == []
    assert seen.facts == [
        ["run-10", "run-9", "run-11"],  # 0.9, 0.8958, 0.85
        ["run-9", "run-10", "run-11"],  # 0.001, 0.0003, 1e-05
        ["run-11", "run-10", "run-9"],
    ]


def test_with_json_the_runs_are_printed_and_no_page_is_written(root: Path, capsys) -> None:
    assert run_command("runs", [str(root), "--json", "--sort=accuracy"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)
    assert first["name"] == "deep/b"
    assert first["accuracy_interval_95"] is None
    assert first["flags"] == {"lr": 0.02, "mixup": None}
    assert not (root / "index.html").exists()


def test_names_of_folders_and_models_are_escaped(tmp_path: Path) -> None:
    make_run(tmp_path, "<script>alert(1)<", [0.5], model="<b>")
    assert run_command("runs", [str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<b>" not in page


def test_a_folder_without_runs_is_a_user_error(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"no runs of seedtf train"):
        list_runs(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_command("runs", []) == 2  # the default folder runs/ does not exist
