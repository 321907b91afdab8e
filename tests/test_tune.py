"""``seedtf tune``: its search space, searches with a fake training, and one real search."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
from fake_tune import FAKE
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sqlalchemy import event
from sqlalchemy.engine import Engine

from seedtf.commands.main import main
from seedtf.config.optim_flags import ADDONS_OPTIMIZERS, DEFAULT_BATCH_SIZE, OPTIMIZERS
from seedtf.config.recipes import RECIPES
from seedtf.config.train_config import TrainConfig
from seedtf.errors import StoppedError, UserError
from seedtf.plots import importance as importance_plot
from seedtf.training.process import TrainProcess, finished_epochs, last_error_line
from seedtf.tuning import records
from seedtf.tuning import search as search_module
from seedtf.tuning.search import SearchSettings, search
from seedtf.tuning.space import SEARCHABLE, SEARCHED_BY_DEFAULT, choose_space, first_values
from seedtf.tuning.storage import mask_password
from seedtf.tuning.trial import TrialRow, best_row, lowest_loss_row

EPOCHS = 4


@event.listens_for(Engine, "connect")
def _skip_fsync(connection, _) -> None:
    """Keeps SQLite from flushing its files to the disk, which may be slow."""
    connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Makes searches skip fsync, poll often and draw no figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seedtf.files.fsync", lambda path: None)
        patch.setattr(search_module, "POLL_SECONDS", 0.01)
        patch.setattr(records, "draw_importance", lambda *_, **__: Figure((1, 1)))
        patch.delenv("FAKE", raising=False)
        yield


def fixed_flags(**flags) -> TrainConfig:
    """The flags that are the same in all trials."""
    return TrainConfig(data_dir="data", weights="none", epochs=EPOCHS, **flags)


def make_search(tune_dir: Path, trials: int, **changes) -> SearchSettings:
    config = changes.pop("config", fixed_flags())
    space = choose_space(changes.pop("search", "lr,crop"), (), config)
    options = {"study": "s", "storage": "", "pruner": "none", **changes}
    return SearchSettings(config=config, space=space, trials=trials, tune_dir=tune_dir, **options)


def misbehave(monkeypatch: pytest.MonkeyPatch, **how) -> None:
    """Makes the fake training fail, hang or stop; ``fake_train.py`` describes ``how``."""
    monkeypatch.setenv("FAKE", json.dumps(how))


def read_table(tune_dir: Path) -> list[dict[str, str]]:
    """The rows of trials.csv without their seconds, which differ between searches."""
    with (tune_dir / "trials.csv").open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


# the search space


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("weights", ["none", "imagenet"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "lamb"])
def test_the_first_trial_has_the_defaults_of_train(recipe, weights, optimizer) -> None:
    config = TrainConfig(data_dir="x", recipe=recipe, weights=weights, optimizer=optimizer)
    space = choose_space(",".join(SEARCHABLE), (), config)
    values = first_values(space, config)
    assert values["lr"] == pytest.approx(config.highest_rate, rel=1e-9)
    decay = config.weight_decay_in_use
    assert values["weight_decay"] == (decay or SEARCHABLE["weight_decay"].low)
    assert (values["batch_size"], values["rotate"]) == (DEFAULT_BATCH_SIZE, config.rotation)
    for name in set(SEARCHABLE) - {"lr", "weight_decay", "batch_size", "rotate"}:
        assert values[name] == getattr(config, name), name


def test_optimizers_without_decay_are_those_of_tensorflow_addons() -> None:
    from seedtf.training.optim.choice import needs_addons

    assert all(needs_addons(name, keras_2=False) for name in ADDONS_OPTIMIZERS)
    keras_optimizers = {*OPTIMIZERS} - {*ADDONS_OPTIMIZERS}
    assert not any(needs_addons(name, keras_2=False) for name in keras_optimizers)
    assert {name for name in keras_optimizers if needs_addons(name, keras_2=True)} == {"lamb"}
    for name, keras_2, searched in [
        ("ranger", False, False),
        ("lamb", False, True),
        ("lamb", True, False),
    ]:
        space = choose_space("", (), fixed_flags(optimizer=name), keras_2=keras_2)
        assert ("weight_decay" in {each.name for each in space}) == searched


def test_the_range_of_lr_is_a_tenth_to_ten_times_its_default() -> None:
    (rate,) = choose_space("lr", (), fixed_flags())
    assert (rate.low, rate.high, str(rate)) == (1e-4, 1e-2, "lr 0.0001 to 0.01 (log)")


def test_a_given_flag_is_not_searched() -> None:
    names = [each.name for each in choose_space("", {"crop", "epochs"}, fixed_flags())]
    assert names == [name for name in SEARCHED_BY_DEFAULT if name != "crop"]


@pytest.mark.parametrize(
    ("text", "given_flags", "message"),
    [
        ("lr,croup", (), "'croup' cannot be searched"),
        ("lr", ("lr",), "is both fixed and in --search"),
        ("", SEARCHED_BY_DEFAULT, "nothing is left to search"),
    ],
)
def test_flags_that_cannot_be_searched_are_refused(text, given_flags, message) -> None:
    with pytest.raises(UserError, match=message):
        choose_space(text, given_flags, fixed_flags())


def test_a_range_that_another_flag_forbids_is_refused_before_any_trial() -> None:
    with pytest.raises(UserError, match=r"--search: lr .*--min_lr=0.001 exceeds --lr=0.0001"):
        choose_space("lr", (), fixed_flags(min_lr=1e-3))


@given(name=st.sampled_from(sorted(SEARCHABLE)), fraction=st.floats(0, 1))
def test_a_rounded_value_is_in_its_range_and_rounding_it_again_changes_nothing(
    name, fraction
) -> None:
    dimension = SEARCHABLE[name]
    if dimension.choices:
        value = dimension.choices[round(fraction * (len(dimension.choices) - 1))]
    elif dimension.step:
        value = (
            dimension.low
            + round(fraction * (dimension.high - dimension.low) / dimension.step) * dimension.step
        )
    else:
        value = dimension.low * (dimension.high / dimension.low) ** fraction
    rounded = dimension.round_for_flag(value)
    assert rounded == dimension.round_for_flag(rounded) == dimension.nearest(rounded)
    if not dimension.choices:
        assert dimension.low <= rounded <= dimension.high
        assert len(str(rounded)) <= 8
        assert rounded == pytest.approx(value, rel=5.1e-3)


@given(value=st.floats(-10, 400))
def test_the_nearest_value_is_on_the_grid(value) -> None:
    near = SEARCHABLE["crop"].nearest(value)
    grid = [round(0.05 * step, 10) for step in range(13)]
    assert near in grid
    assert abs(near - value) <= min(abs(each - value) for each in grid) + 1e-9
    rotate = SEARCHABLE["rotate"]
    assert abs(rotate.nearest(value) - value) == min(abs(c - value) for c in rotate.choices)


# the process of one trial


def test_an_incomplete_line_of_the_history_is_ignored(tmp_path) -> None:
    assert finished_epochs(tmp_path) == []
    (tmp_path / "history.csv").write_text(
        "epoch,lr,loss,accuracy,val_loss,val_accuracy\n1,1,1,1,nan,0.5\n2,1,1,1,0.25"
    )
    (row,) = finished_epochs(tmp_path)
    assert (row["epoch"], row["val_accuracy"]) == (1, 0.5)
    assert math.isnan(row["val_loss"])
    assert lowest_loss_row([row]) is None
    assert lowest_loss_row([row, {"epoch": 2, "val_loss": math.inf}]) is None
    second, third = ({"epoch": epoch, "val_loss": 0.3} for epoch in (2, 3))
    assert lowest_loss_row([row, second, third]) == second


def test_the_error_line_is_found_among_other_lines(tmp_path) -> None:
    log = tmp_path / "log"
    log.write_text("epoch 1\nseedtf train: --lr=x: pass a number\nterminate called\n\n")
    assert last_error_line(log) == "--lr=x: pass a number"
    log.write_text("Killed\n")
    assert last_error_line(log) == "Killed"


def test_a_process_that_ignores_sigterm_is_killed(tmp_path) -> None:
    log = tmp_path / "log"
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    code += "; time.sleep(60)"
    with TrainProcess([sys.executable, "-c", code], log) as process:
        while not log.read_text():
            assert process.poll() is None
        assert process.end(grace=0.2) == -signal.SIGKILL


SAVES_AND_STOPS = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print(1, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("error", "is_saved"), [(RuntimeError, True), (KeyboardInterrupt, False)])
def test_after_an_error_a_process_can_save_and_after_ctrl_c_it_is_killed_at_once(
    tmp_path, monkeypatch, error, is_saved
) -> None:
    monkeypatch.chdir(tmp_path)
    log, code = tmp_path / "log", SAVES_AND_STOPS
    if not is_saved:
        code = SAVES_AND_STOPS.replace("def save(*_):", "def save(*_):\n    time.sleep(60)")
    with pytest.raises(error), TrainProcess([sys.executable, "-c", code], log) as process:
        while not log.read_text():
            assert process.poll() is None
        raise error
    assert process.poll() == (75 if is_saved else -signal.SIGKILL)
    assert Path("saved").exists() == is_saved


# the search


def test_a_search_writes_a_table_a_flagfile_and_a_figure(tmp_path, capsys, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        records, "draw_importance", lambda *arguments, **_: drawn.append(arguments) or Figure()
    )
    folder = tmp_path / "tune"
    rows = search(make_search(folder, 6), command=FAKE)
    assert [row.number for row in rows] == list(range(6))
    assert dict(rows[0].values) == {"lr": 0.001, "crop": 0.1}
    for row in rows:
        lr, crop = row.values["lr"], row.values["crop"]
        assert row.val_loss == pytest.approx((math.log10(lr) + 3) ** 2 + crop + 1 / EPOCHS)
    best = min(rows, key=lambda row: row.val_loss)
    written = (folder / "best.txt").read_text().splitlines()
    assert f"--lr={best.values['lr']}" in written
    assert f"--crop={best.values['crop']}" in written
    assert not any(line.startswith("--run_dir") for line in written)
    assert (folder / "importance.png").read_bytes().startswith(b"\x89PNG")
    importances = drawn[-1][3]
    assert sum(importances.values()) == pytest.approx(1)
    assert set(importances) == {"lr", "crop"}
    assert [row["trial"] for row in read_table(folder)] == list("012345")
    kept = [path.parent.parent.name for path in folder.glob("*/checkpoints/best.keras")]
    assert kept == [f"trial-{best.number:04d}"]
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("trial ") for line in lines) == 6
    assert f"seedtf train --flagfile={folder / 'best.txt'}" in lines[-2]
    result = json.loads(lines[-1].removeprefix("RESULT    "))
    assert (result["best_trial"], result["done"]) == (best.number, 6)


def test_the_output_counts_only_the_trials_that_did_not_fail(tmp_path) -> None:
    outcomes = ("done", "failed", "pruned", "diverged", "failed")
    rows = [TrialRow(n, outcome, 0.5, 0.9, 4, 1.0, {}) for n, outcome in enumerate(outcomes)]
    (tmp_path / "best.txt").write_text("--lr=0.1\n")
    out = io.StringIO()
    records.print_best(records.Console(out, 5), tmp_path, "s", rows)
    assert "chosen as the best of 3 trials that did not fail, so" in out.getvalue()
    records.print_best(records.Console(out, 2), tmp_path, "s", rows[:2])
    assert "chosen as the best of 1 trial that did not fail, so" in out.getvalue()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> list[dict[str, str]]:
    """The table of a search of four trials."""
    tune_dir = tmp_path_factory.mktemp("uninterrupted")
    search(make_search(tune_dir, 4), command=FAKE)
    return read_table(tune_dir)


def test_the_same_command_continues_where_it_stopped(tmp_path, uninterrupted) -> None:
    search(make_search(tmp_path / "parts", 2), command=FAKE)
    search(make_search(tmp_path / "parts", 4), command=FAKE)
    assert read_table(tmp_path / "parts") == uninterrupted
    before = (tmp_path / "parts" / "trials.csv").read_bytes()
    search(make_search(tmp_path / "parts", 4), command=FAKE)
    assert (tmp_path / "parts" / "trials.csv").read_bytes() == before


def tune_process(tune_dir: Path, *flags: str, **how) -> subprocess.CompletedProcess:
    """Runs a search in a new process, through the command line, with fake training."""
    given_flags = ["--data_dir=data", "--weights=none", f"--epochs={EPOCHS}", "--search=lr,crop"]
    return subprocess.run(
        [
            sys.executable,
            Path(__file__).parent / "fake_tune.py",
            *given_flags,
            f"--out={tune_dir}",
            "--study=s",
            *flags,
        ],
        env={**os.environ, "FAKE": json.dumps(how)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_or_stopped_search_ends_with_the_same_result(
    tmp_path, signal_number, uninterrupted
) -> None:
    folder = tmp_path / "killed"
    done = tune_process(folder, "--trials=4", "--pruner=none", signal=[2, 3, int(signal_number)])
    if signal_number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 75
        assert done.stderr.splitlines()[-1] == (
            f"seedtf tune: {signal.Signals(signal_number).name}: stopped in trial 2, whose first 3 of "
            "4 epochs are kept; repeat the same command to continue"
        )
    assert "Traceback" not in done.stderr
    rows = search(make_search(folder, 4), command=FAKE)
    assert len(rows) == 4
    assert read_table(folder) == uninterrupted
    # Trial 2 was resumed and not started again, so its history has each epoch once.
    assert len((folder / "trial-0002" / "history.csv").read_text().splitlines()) == EPOCHS + 1


def test_a_bad_trial_is_pruned_and_its_process_is_ended(tmp_path, monkeypatch) -> None:
    import optuna

    class PruneTrial1(optuna.pruners.BasePruner):
        def prune(self, study, trial) -> bool:
            return trial.number == 1 and trial.last_step == 1

    monkeypatch.setattr("seedtf.tuning.storage._make_pruner", lambda *_: PruneTrial1())
    misbehave(monkeypatch, hang=1)  # Trial 1 hangs for 30 s after each epoch, if not pruned.
    rows = search(make_search(tmp_path, 3), command=FAKE)
    assert [row.outcome for row in rows] == ["done", "pruned", "done"]
    lr, crop = rows[1].values["lr"], rows[1].values["crop"]
    assert rows[1].epochs == 1
    assert rows[1].val_loss == pytest.approx((math.log10(lr) + 3) ** 2 + crop + 1)
    assert not (tmp_path / "trial-0001" / "checkpoints").exists()


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_the_pruners_end_some_trials_and_never_the_best(tmp_path, pruner) -> None:
    rows = search(
        make_search(tmp_path, 12, pruner=pruner, config=fixed_flags(), search="lr"), command=FAKE
    )
    pruned = [row for row in rows if row.outcome == "pruned"]
    done = [row for row in rows if row.outcome == "done"]
    assert pruned
    assert all(row.epochs < EPOCHS for row in pruned)
    # The loss of the fake training contains 1 / epochs, so these would be the losses after all epochs.
    final_losses = [row.val_loss - 1 / row.epochs + 1 / EPOCHS for row in pruned]
    assert min(final_losses) > min(row.val_loss for row in done)


def test_a_trial_that_diverges_or_breaks_does_not_end_the_search(
    tmp_path, monkeypatch, capsys
) -> None:
    # The exit codes of trials: 4 means diverged, 2 is an error of the user, and 247 any other failure.
    misbehave(monkeypatch, exit={"1": 4, "2": 2, "3": 247})
    rows = search(make_search(tmp_path, 4), command=FAKE)
    assert [row.outcome for row in rows] == ["done", "diverged", "failed", "failed", "done", "done"]
    assert "failed    trial 2: --model=oak: no such network (see " in capsys.readouterr().out
    assert sum(row["outcome"] == "failed" for row in read_table(tmp_path)) == 2


def test_the_search_ends_at_once_if_its_first_trial_cannot_train(tmp_path, monkeypatch) -> None:
    misbehave(monkeypatch, exit={"0": 2})
    with pytest.raises(UserError, match="trial 0 could not train: --model=oak: no such network"):
        search(make_search(tmp_path, 3), command=FAKE)
    # With a corrected flag, the same study starts again. Its next trial has the default values again.
    rows = search(make_search(tmp_path, 1, config=fixed_flags(image_size=32)), command=FAKE)
    assert [row.outcome for row in rows] == ["failed", "done"]
    assert rows[1].values == rows[0].values


def test_three_failures_in_a_row_end_the_search(tmp_path, monkeypatch) -> None:
    misbehave(monkeypatch, exit=dict.fromkeys("123456789", 2))
    with pytest.raises(UserError, match="3 trials failed in a row"):
        search(make_search(tmp_path, 9), command=FAKE)


def test_a_study_refuses_other_values_of_flags_that_change_its_result(tmp_path) -> None:
    search(make_search(tmp_path, 1), command=FAKE)
    with pytest.raises(UserError, match=r"--batch_size=8: the study 's' has 32"):
        search(make_search(tmp_path, 2, config=fixed_flags(batch_size=8)), command=FAKE)
    with pytest.raises(
        UserError, match=r"--search=lr: the study 's' searches lr .*, crop 0 to 0.6"
    ):
        search(make_search(tmp_path, 2, search="lr"), command=FAKE)
    search(make_search(tmp_path, 1, config=fixed_flags(cache="ram")), command=FAKE)
    # A study of a release without --zoom_out does not have this flag.
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute(
            "UPDATE study_user_attributes SET value_json = replace(value_json, "
            "'\"zoom_out\": 0.1, ', '') WHERE key = 'flags'"
        )
    with pytest.raises(UserError, match=r"--zoom_out=0.1: the study 's' has 0.0"):
        search(make_search(tmp_path, 2), command=FAKE)


def test_searches_in_two_folders_can_share_a_study_in_a_database(tmp_path) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    search(make_search(tmp_path / "a", 2, storage=storage), command=FAKE)
    rows = search(make_search(tmp_path / "b", 4, storage=storage), command=FAKE)
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "b").glob("trial-*[0-9]")) == [
        "trial-0002",
        "trial-0003",
    ]
    assert (tmp_path / "b" / "best.txt").exists()


def test_a_trial_of_another_folder_is_not_resumed_here(tmp_path, monkeypatch) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    flags = ("--trials=3", "--pruner=none", f"--storage={storage}")
    done = tune_process(tmp_path / "a", *flags, signal=[1, 1, int(signal.SIGKILL)])
    assert done.returncode == -signal.SIGKILL
    rows = search(make_search(tmp_path / "b", 2, storage=storage), command=FAKE)
    assert [row.number for row in rows] == [0, 2]
    rows = search(make_search(tmp_path / "a", 3, storage=storage), command=FAKE)
    assert [row.number for row in rows] == [0, 1, 2]


def test_a_database_failure_is_a_one_line_error_and_the_search_can_continue(
    tmp_path, monkeypatch
) -> None:
    folder, failed = tmp_path / "tune", []

    def change(statement: str) -> None:
        with sqlite3.connect(folder / "study.db") as database:
            database.execute(statement)

    def rename_tables_once(run_dir: Path) -> list[dict[str, float]]:
        epochs = finished_epochs(run_dir)
        if run_dir.name == "trial-0001" and epochs and not failed:
            failed.append(run_dir)
            change("ALTER TABLE trial_values RENAME TO away")
            change("ALTER TABLE trial_intermediate_values RENAME TO away_too")
        return epochs

    monkeypatch.setattr(search_module, "finished_epochs", rename_tables_once)
    misbehave(monkeypatch, hang=1)
    message = (
        r"^--storage=sqlite:.*study\.db: the database failed \(no such table: trial_\w+\); repeat"
    )
    with pytest.raises(UserError, match=message):
        search(make_search(folder, 3), command=FAKE)
    misbehave(monkeypatch)
    change("ALTER TABLE away RENAME TO trial_values")
    change("ALTER TABLE away_too RENAME TO trial_intermediate_values")
    rows = search(make_search(folder, 3), command=FAKE)
    assert [row.outcome for row in rows] == ["done", "done", "done"]
    # The process of trial 1 was ended, and its run was resumed.
    assert len((folder / "trial-0001" / "history.csv").read_text().splitlines()) == EPOCHS + 1


def test_a_second_search_in_a_folder_is_refused_while_one_is_running(tmp_path) -> None:
    with (
        search_module._lock_tune_dir(tmp_path),
        pytest.raises(UserError, match="another search is running there"),
    ):
        search(make_search(tmp_path, 1), command=FAKE)


def test_a_trial_that_was_stopped_by_a_signal_stops_the_search(tmp_path, monkeypatch) -> None:
    misbehave(monkeypatch, exit={"1": 75})
    with pytest.raises(StoppedError, match="stopped in trial 1, whose first 4 of 4 epochs"):
        search(make_search(tmp_path, 3), command=FAKE)


def test_the_figure_has_a_bar_and_a_panel_for_every_searched_flag() -> None:
    space = choose_space("lr,rotate,flip", (), fixed_flags())
    values = {"lr": 0.001, "rotate": 15.0, "flip": "both"}
    rows = [
        TrialRow(0, "done", 0.5, 0.9, 4, 1.0, values),
        TrialRow(1, "pruned", 0.9, 0.4, 2, 1.0, {**values, "flip": "none"}),
        TrialRow(2, "failed", math.nan, math.nan, 0, 1.0, {}),
    ]
    importances = {"flip": 0.7, "lr": 0.3, "rotate": 0.0}
    figure = importance_plot.draw_importance(space, rows, best_row(rows), importances, title="s")
    bars, *panels = figure.get_axes()
    assert [text.get_text() for text in bars.get_yticklabels()] == ["flip", "lr", "rotate"]
    assert [axes.get_title() for axes in panels if axes.get_visible()] == ["flip", "lr", "rotate"]
    assert panels[0].collections[0].get_offsets().tolist() == [[3, 0.5]]
    assert panels[0].collections[1].get_offsets().tolist() == [[0, 0.9]]
    assert panels[1].get_xscale() == "log"
    few = importance_plot.draw_importance(space, rows[:1], rows[0], {}, title="s")
    assert len([axes for axes in few.get_axes() if axes.get_visible()]) == 3


# the command


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--storage=study.db", "--storage=study.db: is not a database URL; pass one such as"),
        ("--storage=oak://me:secret@host/x", "--storage=oak://me:***@host/x: cannot be used"),
        ("--storage=sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("--resume=runs/x", "--resume=runs/x: the same command continues a search"),
        ("--run_dir=runs/x", "--run_dir=runs/x: each trial has its own folder"),
        ("--dry_run", "--dry_run=True: a dry run does not train"),
        ("--trials=0", "--trials=0: out of range"),
        ("--pruner=plum", "--pruner=plum: choose one of median, hyperband, none"),
        ("--study= ", "--study=' ': is empty"),
        ("--trails=3", "unknown flag --trails; did you mean 'trials'?"),
        ("--crop=2", "--crop=2.0: out of range"),
    ],
)
def test_wrong_flags_of_tune_give_a_one_line_error(tmp_path, flag, message, capsys) -> None:
    flags = ["--data_dir=data", f"--out={tmp_path / 't'}", flag]
    assert main(["tune", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seedtf tune: ")
    assert message in line
    assert "secret" not in line


def test_without_optuna_one_line_names_what_to_install(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "--data_dir=data", f"--out={tmp_path / 't'}"]) == 2
    assert "pip install 'seedtf[tune]'" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://me:p@ss@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me@host:5432/x", "postgresql://me@host:5432/x"),
        ("sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db"),
        ("postgresql://host/x?user=me&password=p", "postgresql://host/x?user=me&password=***"),
    ],
)
def test_a_password_is_not_shown(url, masked) -> None:
    assert mask_password(url) == masked


def test_help_needs_neither_tensorflow_nor_optuna() -> None:
    code = (
        "import sys\nfrom seedtf.commands.main import main\n"
        "try:\n    main(['tune', '--help'])\n"
        "finally:\n    print([m for m in ('tensorflow', 'keras', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    flags = re.findall(r"^  --(\w+)", done.stdout, re.MULTILINE)
    # The flags of tune itself come first, with its own version of --cache. Flags that tune refuses
    # are not listed.
    assert flags[:3] == ["cache", "trials", "search"]
    assert flags.index("keep_models") < flags.index("recipe") < flags.index("epochs")
    assert flags.count("cache") == 1
    assert not {"resume", "run_dir", "dry_run"} & set(flags)


def popen_that_forks_later_trials() -> Callable[..., subprocess.Popen | forked.Process]:
    """A ``Popen`` that runs the first trial in a new interpreter and later trials in forked processes.

    Forked processes do not import TensorFlow again.
    """
    real, trials = subprocess.Popen, []

    def start(command, **options) -> subprocess.Popen | forked.Process:
        if list(command[:4]) == [sys.executable, "-m", "seedtf", "train"]:
            trials.append(command)
            if len(trials) > 1:
                # With 0, killed_run never kills itself: it only runs the command.
                arguments = ["0", *command[3:]]
                log = options["stdout"].fileno()
                return forked.Process("killed_run:main", arguments, terminal=log)
        return real(command, **options)

    return start


def test_a_search_with_real_trainings_writes_the_flags_of_the_best_trial(
    tiny_folder, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", popen_that_forks_later_trials())
    folder = tmp_path / "tune"
    flags = ["--model=tiny", "--weights=none", "--image_size=16", "--batch_size=4", "--epochs=2"]
    # The fused augmentation takes each trial seconds to compile.
    flags += ["--trials=2", "--search=lr,crop,rotate,mixup", "--augment_impl=tf_image"]
    assert main(["tune", f"--data_dir={tiny_folder}", *flags, f"--out={folder}"]) == 0
    output = capsys.readouterr().out
    assert len(re.findall(r"^trial \d +val_loss \d+\.\d{4}  val_acc", output, re.M)) == 2
    first, second = (folder / f"trial-000{number}" for number in (0, 1))
    assert (first / "split.csv").read_bytes() == (second / "split.csv").read_bytes()
    assert "reused from an earlier run" in (folder / "trial-0001.log").read_text()
    best = int(json.loads(output.splitlines()[-1].removeprefix("RESULT    "))["best_trial"])
    kept = (folder / f"trial-000{best}" / "flags.txt").read_text()
    assert (folder / "best.txt").read_text().split() == [
        re.sub(r"--threads=\d+", "--threads=0", line) for line in kept.split()
    ]
