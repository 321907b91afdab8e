"""In each tracker, a resumed run is one run with every epoch once; a failing tracker ends no training.

The tests use the real packages of MLflow, Weights & Biases and TensorBoard, with local stores. Trackio
needs an older Pillow than the other tests, so its test is skipped if Trackio is not installed.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import pytest
import yaml
from fake_tune import FAKE
from matplotlib.figure import Figure

from seedtf.commands.main import main
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.history import read_history
from seedtf.runs.paths import RunPaths
from seedtf.training.trackers import group as group_module
from seedtf.training.trackers.dvclive import DvcliveTracker
from seedtf.training.trackers.group import TrackerGroup, attach_files
from seedtf.training.trackers.tensorboard import TensorBoardTracker
from seedtf.training.trackers.tracker import TrackedRun, Tracker, check_installed
from seedtf.tuning import records
from seedtf.tuning import search as search_module
from seedtf.tuning.search import SearchSettings, search
from seedtf.tuning.space import choose_space
from seedtf.tuning.tracking import SearchTracking

NAMES = ("mlflow", "wandb", "tensorboard", "dvclive")
EPOCHS = 3


def local_store_variables(folder: Path) -> dict[str, str]:
    """Environment variables that make MLflow and Weights & Biases write below ``folder``."""
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "WANDB_MODE": "offline"}
    return {**store, "WANDB_SILENT": "true", "WANDB_CACHE_DIR": f"{folder}/cache"}


@pytest.fixture(scope="module")
def tracked(tiny_folder: Path, tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """The run folder of a trial that was killed in epoch 2 and resumed, and what the resume printed."""
    folder = tmp_path_factory.mktemp("tracked")
    config = TrainConfig(data_dir=str(tiny_folder), track=",".join(NAMES))
    trial = folder / "tune" / "trial-0000"
    trial.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_store_variables(folder).items():
            patch.setenv(name, value)
        patch.chdir(folder)
        space = choose_space("lr,crop", (), config)
        parent = SearchTracking(config, space, trial.parent, "my search")
        parent.start([])
        arguments = [
            f"--data_dir={tiny_folder}",
            f"--run_dir={trial}",
            f"--track={','.join(NAMES)}",
        ]
        arguments += ["--model=tiny", "--weights=none", "--image_size=16", "--batch_size=6"]
        arguments += [f"--epochs={EPOCHS}", "--lr=0.02", "--seed=3", "--augment_impl=tf_image"]
        environment = {**os.environ, "KILL_AFTER": "2"}
        killed = forked.run("tracked_run:main", ["train", *arguments], env=environment)
        assert killed.returncode == -9, killed.stderr
        done = forked.run("tracked_run:main", ["train", f"--resume={trial}"])
        assert done.returncode == 0, done.stderr
        parent.finish([])
        yield trial, done.stdout


def rows_of(trial: Path) -> list[dict[str, float]]:
    rows = read_history(RunPaths(trial).history)
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    return rows


def test_mlflow_has_one_run_with_every_epoch_once(tracked) -> None:
    import mlflow

    trial, printed = tracked
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("seedtf").experiment_id
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    run, parent = found.pop("trial-0000"), found.pop("my search")
    assert found == {}
    assert (run.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (run.data.params["lr"], run.data.params["seed"]) == ("0.02", "3")
    for name in ("lr", "loss", "val_loss", "val_accuracy"):
        values = client.get_metric_history(run.info.run_id, name)
        assert [(each.step, each.value) for each in values] == [
            (row["epoch"], row[name]) for row in rows_of(trial)
        ]
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"curves.png", "lr.png", "augmented.png", "history.csv", "flags.txt"} <= files
    assert "mlflow: run" in printed
    assert "warning" not in printed


def wandb_records(folder: Path) -> Iterator[Any]:
    """The protocol buffers of a ``.wandb`` file, which has the format of LevelDB's log files."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    # The file begins with 7 bytes of its own. Parts of records follow, each after a header of 7 bytes
    # (checksum, size and kind). A header is never divided between two blocks of 32,768 bytes: if fewer
    # than 7 bytes of a block are left, they are not used.
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 0 < (rest_of_block := -position % 32768) < 7:
            position += rest_of_block
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""


def test_wandb_has_one_run_with_every_epoch_once(tracked) -> None:
    trial, _ = tracked
    # The file of the killed process may lack epochs, so it was renamed, and `wandb sync` ignores it.
    (folder,) = (trial / "wandb").glob("offline-run-*")
    (replaced,) = (trial / "wandb").glob("replaced-*")
    assert not list(replaced.glob("*.wandb"))
    assert folder.name.endswith(replaced.name[-8:])  # the identifier of the run
    runs, history, summary, uploaded = [], [], set(), set()
    for record in wandb_records(folder):
        if record.HasField("run"):
            runs.append(record.run)
        summary |= {item.key or "/".join(item.nested_key) for item in record.summary.update}
        uploaded |= {item.path for item in record.artifact.manifest.contents}
        if record.HasField("history"):
            items = record.history.item
            history.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in items})
    assert runs[0].project == "seedtf"
    group = json.loads((trial.parent / "trackers.json").read_text())["wandb"]["group"]
    assert runs[0].run_group == group
    assert group.startswith("my search-")
    flags = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert (flags["lr"], flags["seed"]) == (0.02, 3)
    logged = [(row["epoch"], row["lr"], row["val_loss"]) for row in history if "val_loss" in row]
    assert logged == [(row["epoch"], row["lr"], row["val_loss"]) for row in rows_of(trial)]
    assert {"images/curves", "images/lr", "images/augmented"} <= summary
    assert {"curves.png", "history.csv"} <= uploaded


def test_tensorboard_shows_every_epoch_once_and_the_flags(tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.plugin_event_accumulator import (
        EventAccumulator as PluginAccumulator,
    )
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    trial, _ = tracked
    folder = str(RunPaths(trial).tensorboard)
    for reader in (EventAccumulator(folder), PluginAccumulator(folder)):
        reader.Reload()
        for name in ("lr", "loss", "val_accuracy"):
            get = reader.Scalars if isinstance(reader, EventAccumulator) else reader.Tensors
            events = get(name)
            assert [each.step for each in events] == [1, 2, 3]
            if isinstance(reader, EventAccumulator):
                wanted = [pytest.approx(row[name], rel=1e-6) for row in rows_of(trial)]
                assert [each.value for each in events] == wanted
    reader = EventAccumulator(folder).Reload()
    assert {"images/curves", "images/lr", "images/augmented"} <= set(reader.Tags()["images"])
    (start,) = (
        HParamsPluginData.FromString(data)
        for tag, data in reader.PluginTagToContent("hparams").items()
        if "start" in tag
    )
    assert start.session_start_info.hparams["lr"].number_value == 0.02
    (end,) = (
        HParamsPluginData.FromString(data).session_end_info
        for tag, data in reader.PluginTagToContent("hparams").items()
        if "end" in tag
    )
    assert end.status == api_pb2.STATUS_SUCCESS
    parent = EventAccumulator(str(RunPaths(trial.parent).tensorboard)).Reload()
    (data,) = parent.PluginTagToContent("hparams").values()
    columns = HParamsPluginData.FromString(data).experiment.hparam_infos
    assert {each.name for each in columns} == {"lr", "crop"}


def test_dvclive_files_have_every_epoch_once(tracked) -> None:
    trial, _ = tracked
    folder = trial / "dvclive"
    for name in ("lr", "val_loss"):
        with (folder / "plots" / "metrics" / f"{name}.tsv").open() as file:
            table = list(csv.DictReader(file, delimiter="\t"))
        assert [(float(row["step"]), float(row[name])) for row in table] == [
            (row["epoch"], row[name]) for row in rows_of(trial)
        ]
    summary = json.loads((folder / "metrics.json").read_text())
    assert (summary["step"], summary["val_loss"]) == (EPOCHS, rows_of(trial)[-1]["val_loss"])
    assert yaml.safe_load((folder / "params.yaml").read_text())["lr"] == 0.02
    described = yaml.safe_load((folder / "dvc.yaml").read_text())
    assert described["metrics"] == ["metrics.json"]
    named = [
        *described["params"],
        *described["metrics"],
        "plots/metrics",
        "plots/images/curves.png",
    ]
    assert all((folder / name).exists() for name in named)


def test_a_report_is_added_to_the_run_that_has_ended(tracked, monkeypatch) -> None:
    import mlflow

    trial, _ = tracked
    saved = json.loads(RunPaths(trial).trackers.read_text())
    # These two patches make wandb and x trackers that this version of seedtf does not have.
    monkeypatch.setattr(group_module, "_read_saved", lambda file: {**saved, "wandb": {}, "x": {}})
    monkeypatch.setattr(
        group_module, "_CLASSES", {k: v for k, v in group_module._CLASSES.items() if k != "wandb"}
    )
    page = trial / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("<p>accuracy</p>")
    values = page.with_name("report.json")
    values.write_text('{"accuracy": 0.5}')
    attach_files(trial, [page, values], "report")
    client = mlflow.MlflowClient()
    identity = saved["mlflow"]["run_id"]
    files = {each.path for each in client.list_artifacts(identity, "report")}
    assert files == {"report/index.html", "report/report.json"}
    assert client.get_run(identity).info.status == "FINISHED"
    described = yaml.safe_load((trial / "dvclive" / "dvc.yaml").read_text())
    assert described["artifacts"] == {"report": {"path": "../report"}}
    # The report has not changed the epochs and flags that TensorBoard shows.
    test_tensorboard_shows_every_epoch_once_and_the_flags(tracked)


# failures


class FakeTracker(Tracker):
    """Records its calls. The call named ``failing`` raises ``error``, or hangs if ``error`` is None."""

    def __init__(self, failing: str = "", error: BaseException | None = None) -> None:
        self.failing, self.error, self.calls = failing, error, []

    def _record(self, name: str, *values: Any) -> None:
        if name == self.failing:
            if self.error is None:
                threading.Event().wait(30)
            raise self.error
        self.calls.append((name, *values))

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        self._record("start", dict(saved))
        return {"id": "7", "last": saved.get("last", 0)}  # as if it had the epochs logged before

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._record("log", epoch)

    def log_files(self, files: Any, prefix: str = "") -> None:
        self._record("files", [path.name for path in files])

    def finish(self, ending: str) -> None:
        self._record("finish", ending)


@pytest.mark.parametrize("failing", ["start", "log", "files", "finish"])
@pytest.mark.parametrize("error", [RuntimeError("no route\nto host"), SystemExit(1)])
def test_a_failing_tracker_gives_one_warning_and_the_others_continue(
    tmp_path, capsys, failing, error
) -> None:
    bad, good = FakeTracker(failing, error), FakeTracker()
    trackers = {"mlflow": bad, "dvclive": good}
    group = TrackerGroup(tuple(trackers), TrackedRun(tmp_path, "oak"), trackers.get)
    group.start()
    for epoch in (1, 2):
        group.log_metrics(epoch, {"loss": 1.0})
    (tmp_path / "a.png").touch()
    group.finish("finished", [tmp_path / "a.png", tmp_path / "missing.png"])
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "warning" in line] == [
        f"warning   --track=mlflow: failed ({'no route' if error.args != (1,) else '1'}); "
        "going on without it"
    ]
    assert good.calls == [
        ("start", {}),
        ("log", 1),
        ("log", 2),
        ("files", ["a.png"]),
        ("finish", "finished"),
    ]


def test_a_tracker_that_hangs_is_left_out_with_a_warning(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(group_module, "_START_SECONDS", 0.1)
    group = TrackerGroup(("wandb",), TrackedRun(tmp_path, "oak"), lambda _: FakeTracker("start"))
    group.start()
    group.finish("finished")
    assert "--track=wandb: has not answered for 0.1 s; going on" in capsys.readouterr().out


def test_epochs_that_a_tracker_lacks_are_added_when_a_run_is_resumed(tmp_path) -> None:
    interrupted, resumed, added = FakeTracker(), FakeTracker(), FakeTracker()
    group = TrackerGroup(("mlflow",), TrackedRun(tmp_path, "oak"), lambda _: interrupted)
    group.start()
    group.log_metrics(1, {})
    group.finish("interrupted", [tmp_path])
    assert ("finish", "interrupted") in interrupted.calls
    rows = tuple({"epoch": epoch, "loss": 1.0} for epoch in (1, 2, 3))
    trackers = {"mlflow": resumed, "wandb": added}
    run = TrackedRun(tmp_path, "oak", rows=rows)
    group = TrackerGroup(tuple(trackers), run, trackers.get)
    group.start()
    group.log_metrics(4, {})
    group.finish("finished")
    assert [call[1] for call in resumed.calls if call[0] == "log"] == [2, 3, 4]
    assert [call[1] for call in added.calls if call[0] == "log"] == [1, 2, 3, 4]


@pytest.mark.parametrize("tracker_class", [DvcliveTracker, TensorBoardTracker])
@pytest.mark.parametrize(("last", "expected"), [(1, 1), (3, 2)])
def test_a_local_tracker_adds_the_epochs_after_its_last_one_when_it_starts(
    tmp_path, tracker_class, last: int, expected: int
) -> None:
    if tracker_class is TensorBoardTracker:
        pytest.importorskip("tensorboard")
    rows = tuple({"epoch": epoch, "loss": 1.0} for epoch in (1, 2))
    tracker = tracker_class()
    assert tracker.start(TrackedRun(tmp_path, "oak", rows=rows), {"last": last})["last"] == expected
    tracker.finish("")


def test_with_a_damaged_trackers_json_a_new_tracked_run_begins(tmp_path) -> None:
    RunPaths(tmp_path).trackers.write_text("{")
    tracker = FakeTracker()
    TrackerGroup(("mlflow",), TrackedRun(tmp_path, "oak"), lambda _: tracker).start()
    assert tracker.calls == [("start", {})]
    assert json.loads(RunPaths(tmp_path).trackers.read_text()) == {"mlflow": {"id": "7", "last": 0}}


def test_dvclive_deletes_epochs_that_a_resumed_run_trains_again(tmp_path) -> None:
    first = DvcliveTracker()
    first.start(TrackedRun(tmp_path, "oak", {"lr": 1e-5}), {})
    for epoch in (1, 2):
        first.log_metrics(epoch, {"loss": 1 / epoch, "val_loss": float("nan")})
    rows = ({"epoch": 1, "loss": 1.0},)
    DvcliveTracker().start(TrackedRun(tmp_path, "oak", {"lr": 1e-5}, rows), {"last": 2})
    folder = tmp_path / "dvclive"
    assert (folder / "plots/metrics/loss.tsv").read_text() == "step\tloss\n1\t1.0\n"
    # metrics.json keeps the values of epoch 2 until the next epoch is logged.
    assert json.loads((folder / "metrics.json").read_text()) == {"loss": 0.5, "step": 2}
    assert yaml.safe_load((folder / "params.yaml").read_text()) == {"lr": 1e-5}


# flags


def test_an_unknown_tracker_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"--track=mlfow: choose from mlflow, wandb, tensorboard"):
        TrainConfig(data_dir="x", track="wandb,mlfow")
    assert TrainConfig(data_dir="x", track=" WandB, mlflow,wandb,").track == "wandb,mlflow"


@pytest.mark.parametrize(("name", "extra"), [("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_missing_package_is_a_user_error_that_names_the_extra(name: str, extra: str) -> None:
    with pytest.raises(UserError, match=rf"--track={name}: .*pip install 'seedtf\[{extra}\]'"):
        check_installed(("dvclive", name), frozenset({"dvclive"}))


def test_a_missing_package_ends_the_command_before_it_reads_an_image(capsys, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "trackio" else find(name, *a)
    )
    assert main(["train", "--data_dir=nowhere", "--weights=none", "--track=trackio"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--track=trackio: Trackio is not installed" in message


def test_a_folder_named_like_a_package_is_not_an_installed_tracker(tmp_path, monkeypatch) -> None:
    from seedtf.training.trackers import tracker

    (tmp_path / "offtracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(tracker._PACKAGES, "wandb", ("offtracker", "W", "wandb"))
    assert "wandb" not in tracker.installed_trackers()


def test_the_former_flag_tensorboard_is_accepted_but_not_in_the_help(capsys) -> None:
    from seedtf.commands.arguments import parse_config

    config = parse_config(TrainConfig, "train", ["--data_dir=x", "--tensorboard", "--track=mlflow"])
    assert (config.track, config.tensorboard) == ("mlflow,tensorboard", False)
    assert "--tensorboard is now --track=tensorboard" in capsys.readouterr().err
    assert "tensorboard" not in config.to_flagfile().replace("--track=mlflow,tensorboard", "")
    with pytest.raises(SystemExit):
        parse_config(TrainConfig, "train", ["--help"])
    assert "--tensorboard" not in capsys.readouterr().out


@pytest.mark.parametrize("is_chief", [True, False])
def test_only_the_chief_has_trackers(tmp_path, is_chief: bool) -> None:
    """The chief is the worker of a distributed run that writes the run folder."""
    import tensorflow as tf

    from seedtf.training.callback_list import SessionHooks, make_callbacks
    from seedtf.training.callbacks import Track
    from seedtf.training.stop_signal import StopSignal

    config = TrainConfig(data_dir="x", track="dvclive", epochs=2)
    settings = SimpleNamespace(
        schedule=lambda epoch: 0.1, lr_per_step=False, num_gpus=0, keras_2=False
    )
    callbacks = make_callbacks(
        SimpleNamespace(config=config, settings=settings, steps_per_epoch=2, steps_per_execution=1),
        RunPaths(tmp_path),
        SessionHooks(*[lambda *_: None] * 8),
        strength_variable=tf.Variable(1.0),
        state=None,
        chief=is_chief,
        average=None,
        stop=StopSignal(),
        sync=None,
        resume_dir="",
    )
    assert any(isinstance(each, Track) for each in callbacks.all_callbacks) is is_chief
    assert (callbacks.track is not None) is is_chief


# the search


def test_a_continued_search_remains_one_parent_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("seedtf.files.fsync", lambda path: None)
    monkeypatch.setattr(search_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(records, "draw_importance", lambda *_, **__: Figure((1, 1)))
    config = TrainConfig(data_dir="data", weights="none", epochs=2, track="dvclive")
    folder = tmp_path / "tune"
    for trials in (2, 3):  # the second call continues the first one
        plan = SearchSettings(
            config=config,
            space=choose_space("lr,crop", (), config),
            trials=trials,
            study="s",
            storage="",
            tune_dir=folder,
            pruner="none",
        )
        search(plan, command=FAKE)
    with (folder / "dvclive/plots/metrics/val_loss.tsv").open() as file:
        logged = list(csv.DictReader(file, delimiter="\t"))
    with (folder / "trials.csv").open() as file:
        wanted = [row["val_loss"] for row in csv.DictReader(file)]
    assert [row["step"] for row in logged] == ["1", "2", "3"]
    assert [float(row["val_loss"]) for row in logged] == [float(loss) for loss in wanted]
    assert "search" in (folder / "dvclive/params.yaml").read_text()
    assert (folder / "dvclive/plots/images/importance.png").exists()


# Trackio


def test_trackio_has_one_run_with_every_epoch_once(tmp_path, monkeypatch) -> None:
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("Trackio is not installed: seedtf[trackio]")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    from PIL import Image
    from trackio.sqlite_storage import SQLiteStorage

    from seedtf.training.trackers.trackio import TrackioTracker

    Image.new("RGB", (8, 8)).save(tmp_path / "curves.png")
    earlier = TrackioTracker()
    earlier.start(TrackedRun(tmp_path, "oak", {"lr": 0.5}), {})
    earlier.log_metrics(1, {"val_loss": 1.0})
    earlier.finish("finished")
    first = TrackioTracker()
    run = TrackedRun(tmp_path, "oak", {"lr": 0.1})
    saved = first.start(run, {})
    assert saved["name"] == "oak-2"  # because the earlier run is named oak
    for epoch in (1, 2):
        first.log_metrics(epoch, {"lr": 0.1, "val_loss": 1 / epoch})
    first.finish("interrupted")
    second = TrackioTracker()
    values = second.start(run, saved)
    assert values["last"] == 2
    second.log_metrics(3, {"lr": 0.1, "val_loss": 0.3})
    second.log_files([tmp_path / "curves.png"])
    second.finish("finished")
    rows = [row for row in SQLiteStorage.get_logs("seedtf", "oak-2") if "val_loss" in row]
    assert [(row["step"], row["val_loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 0.3)]
    assert SQLiteStorage.get_run_config("seedtf", "oak-2")["lr"] == 0.1
