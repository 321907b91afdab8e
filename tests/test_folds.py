"""``seedtf folds`` predicts every non-test image once, even if its processes are killed at any time."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import forked
import numpy as np
import psutil
import pytest
from conftest import Shared

from seedtf.commands.folds import FoldsConfig
from seedtf.commands.main import run_command
from seedtf.config.train_config import TrainConfig
from seedtf.data.table_text import read_csv
from seedtf.errors import StoppedError, UserError
from seedtf.folds import train_folds as train_folds_module
from seedtf.folds.claims import Claims, identify_process
from seedtf.folds.train_folds import Commands, train_folds
from seedtf.runs.folds import FoldRow, FoldsPaths
from seedtf.runs.history import HISTORY_COLUMNS
from seedtf.runs.paths import ReportPaths, RunPaths

pytestmark = pytest.mark.usefixtures("module_without_figures")
TESTS = Path(__file__).parent
# SEEDTF_KILLS=10 kills real trainings ten times, as for the measurement in seedtf/folds/README.md.
KILLS = int(os.environ.get("SEEDTF_KILLS", "3"))
FAKE = (sys.executable, str(TESTS / "fake_folds.py"))
COMMANDS = Commands((*FAKE, "divide"), (*FAKE, "train"), (*FAKE, "evaluate"))
# The source code of the process that takes the place of a machine in these tests.
MACHINE = f"""
import sys
from pathlib import Path
from seedtf.config.train_config import TrainConfig
from seedtf.folds.train_folds import Commands, train_folds
fake = {FAKE!r}
commands = Commands((*fake, "divide"), (*fake, "train"), (*fake, "evaluate"))
config = TrainConfig(data_dir="d", model="tiny", weights="none", epochs=4)
train_folds(config, "3", ["--folds=3"], Path(sys.argv[1]), commands=commands)
"""
CONFIG = TrainConfig(data_dir="d", model="tiny", weights="none", epochs=4)


def start_machine(folder: Path, **environment: str) -> subprocess.Popen:
    """Starts a process that takes the place of a machine, with more environment variables."""
    return subprocess.Popen(
        [sys.executable, "-c", MACHINE, str(folder)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def expected_predictions(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("folds") / "all"
    train_folds(CONFIG, "3", ["--folds=3"], folder, commands=COMMANDS)
    return FoldsPaths(folder).predictions.read_bytes()


# Claims: the files with which machines that share a folder reserve the folds that they train


def test_only_one_of_many_processes_claims_a_fold(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from seedtf.folds.claims import Claims\n"
        "claims = Claims(Path(sys.argv[1]), 60)\n"
        "while not Path(sys.argv[1], 'go').exists(): time.sleep(0.001)\n"
        "print(sum(claims.take(f'fold-{n}') is not None for n in range(5)), flush=True)\n"
        "sys.stdin.read()"  # lives until all have tried, because the claims of the dead can be taken
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    time.sleep(1)
    (tmp_path / "go").touch()
    assert sum(int(process.stdout.readline()) for process in started) == 5
    for process in started:
        process.communicate()
    assert len(list(tmp_path.glob("fold-*.*"))) == 5


def test_the_claim_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from seedtf.folds.claims import Claims\n"
        "assert Claims(Path(sys.argv[1]), 60).take('fold-0')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    first = Claims(tmp_path, 60).take("fold-0")
    assert first is not None
    assert first.path.name == "fold-0.2"  # the second claim of this fold
    assert Claims(tmp_path, 60).take("fold-0") is None  # this process is alive
    assert not first.is_lost()
    first.release()
    second = Claims(tmp_path, 60).take("fold-0")
    assert second is not None
    assert first.is_lost()


def test_a_claim_that_another_machine_stops_touching_is_taken_over(tmp_path: Path) -> None:
    content = {**identify_process(), "host": "elsewhere"}
    (tmp_path / "fold-0.1").write_text(json.dumps(content))
    claims = Claims(tmp_path, 1.0)
    assert claims.describe_owner("fold-0") == f"elsewhere (process {os.getpid()})"
    for beat in range(3):
        # The claim looks as if the other machine had touched it.
        os.utime(tmp_path / "fold-0.1", (beat, beat))
        assert claims.take("fold-0") is None
        time.sleep(0.4)
        assert claims.take("fold-0") is None
    time.sleep(1.1)
    assert claims.take("fold-0") is not None


# Sharing the folds: fake commands write made-up histories instead of training


def test_machines_share_the_folds_and_train_each_once(
    tmp_path: Path, expected_predictions: bytes
) -> None:
    folder, trained = tmp_path / "shared", tmp_path / "trained.txt"
    machines = [
        start_machine(folder, FAKE_SLEEP="0.1", FAKE_TRAINED=str(trained)) for _ in range(3)
    ]
    for machine in machines:
        assert machine.wait() == 0, machine.stderr.read()
    assert sorted(trained.read_text().splitlines()) == ["fold-0", "fold-1", "fold-2"]
    assert FoldsPaths(folder).predictions.read_bytes() == expected_predictions


def test_the_fold_of_a_killed_machine_is_taken_over(
    tmp_path: Path, expected_predictions: bytes
) -> None:
    folder = tmp_path / "shared"
    first = start_machine(folder, FAKE_SLEEP="0.2")
    history = FoldsPaths(folder).fold(0).history
    while not (history.exists() and len(history.read_text().splitlines()) > 1):
        time.sleep(0.02)
    second = start_machine(folder)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait() == 0, second.stderr.read()
    assert FoldsPaths(folder).predictions.read_bytes() == expected_predictions


def test_folds_killed_at_any_moment_end_with_the_same_bytes(
    tmp_path: Path, expected_predictions: bytes
) -> None:
    rng = random.Random(3)
    folder, kills = tmp_path / "killed", 0
    for _ in range(10):
        machine = start_machine(folder, FAKE_SLEEP="0.05")
        try:
            machine.wait(rng.uniform(0.5, 1.2))
        except subprocess.TimeoutExpired:
            machine.kill()
            kills += 1
        machine.wait()
    train_folds(CONFIG, "3", ["--folds=3"], folder, commands=COMMANDS)
    assert kills >= 2
    assert FoldsPaths(folder).predictions.read_bytes() == expected_predictions


def test_a_signal_raises_a_stopped_error_that_says_how_to_continue(tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    code = MACHINE.replace("import sys\n", "import os, signal, sys, threading, time\n").replace(
        "train_folds(config",
        "def stop_the_first_fold():\n"
        "    while not list(Path(sys.argv[1]).glob('claims/fold-*')): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=stop_the_first_fold, daemon=True).start()\n"
        "train_folds(config",
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "FAKE_SLEEP": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert StoppedError.__name__ in done.stderr
    assert "whose state is kept; repeat the same command to continue" in done.stderr


@pytest.mark.parametrize(
    ("is_divided", "where"),
    [
        (False, "in divide, which will start from its beginning"),
        (True, "in fold-0, whose state is kept"),
    ],
)
def test_a_stopped_task_has_a_state_only_if_it_trains_a_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_divided: bool, where: str
) -> None:
    paths = FoldsPaths(tmp_path / "f")
    if is_divided:
        paths.claims.mkdir(parents=True)
        paths.write_settings(2, CONFIG.as_dict())
        paths.write_table([])
        paths.done("divide").touch()
    monkeypatch.setattr(train_folds_module, "TrainProcess", StoppedProcess)
    with pytest.raises(StoppedError, match=f": stopped {where}; repeat the same command"):
        train_folds(CONFIG, "2", ["--folds=2"], paths.root, commands=COMMANDS)


def test_flags_that_differ_from_those_of_the_folder_are_refused(tmp_path: Path) -> None:
    train_folds(CONFIG, "2", ["--folds=2"], tmp_path / "f", commands=COMMANDS)
    # The fake command has written only two flags, but the real command writes all flags.
    settings = {"folds": 2, "flags": CONFIG.as_dict()}
    FoldsPaths(tmp_path / "f").settings.write_text(json.dumps(settings))
    other = TrainConfig(data_dir="d", model="tiny", weights="none", epochs=9)
    with pytest.raises(UserError, match=r"^--epochs=9: the folds in .* have 4; pass that"):
        train_folds(other, "2", [], tmp_path / "f", commands=COMMANDS)
    with pytest.raises(UserError, match=r"^--folds=3: .* is divided into 2 folds"):
        train_folds(CONFIG, "3", [], tmp_path / "f", commands=COMMANDS)


def test_folds_of_a_release_without_zoom_out_continue_only_without_it(tmp_path: Path) -> None:
    config = TrainConfig(data_dir="d", model="tiny", weights="none", recipe="finetune", epochs=4)
    paths = FoldsPaths(tmp_path / "f")
    paths.root.mkdir()
    flags = {name: value for name, value in config.as_dict().items() if name != "zoom_out"}
    paths.write_settings(2, {**flags, "folds": "2"})
    paths.write_table([])
    with pytest.raises(UserError, match=r"^--zoom_out=0.1: the folds in .* have 0.0; pass that"):
        train_folds(config, "2", [], paths.root, commands=COMMANDS)


@pytest.mark.parametrize(("saved", "given"), [("2", "groups"), ("groups", "2")])
def test_folds_of_groups_and_folds_by_number_do_not_continue_each_other(
    tmp_path: Path, saved: str, given: str
) -> None:
    paths = FoldsPaths(tmp_path / "f")
    paths.root.mkdir()
    paths.write_settings(2, {**CONFIG.as_dict(), "folds": saved})
    paths.write_table([])
    message = (
        rf"^--folds={given}: .* was divided with --folds={saved}; pass that, or another --out$"
    )
    with pytest.raises(UserError, match=message):
        train_folds(CONFIG, given, [], paths.root, commands=COMMANDS)


def test_the_error_of_a_fold_names_the_fold_and_its_log(tmp_path: Path) -> None:
    broken = Commands(
        COMMANDS.divide,
        (sys.executable, "-c", "import sys; sys.exit('seedtf train: --lr=9: too high')"),
        COMMANDS.evaluate,
    )
    with pytest.raises(UserError, match=r"^fold-0: --lr=9: too high \(see .*fold-0\.log\)$"):
        train_folds(CONFIG, "2", ["--folds=2"], tmp_path / "f", commands=broken)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"folds": "1"}, "--folds=1: pass a number from 2 to 200, or groups"),
        ({"split_csv": "s.csv"}, "--split_csv=s.csv: the folds divide all images"),
        ({"resume": "x"}, "--resume=x: the same command with the same --out continues"),
        ({"divide_only": True}, "--divide_only: needs --out"),
    ],
)
def test_flags_that_do_not_apply_are_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        FoldsConfig(data_dir="d", **flags)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("model", "name"), [("hf://owner/My-Net", "my-net"), ("./nets/ViT/", "vit"), ("tiny", "tiny")]
)
def test_the_default_folder_is_named_after_the_last_part_of_the_model(
    model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise StoppedError("stopped by the test")

    monkeypatch.setattr(train_folds_module, "train_folds", stop)
    monkeypatch.chdir(tmp_path)
    assert run_command("folds", ["--data_dir=d", f"--model={model}"]) == StoppedError.exit_code
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith(f"-folds-{name}")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "fault"), [("file,label\n", "no column 'fold'"), (None, "no such file")]
)
def test_a_bad_table_of_folds_is_named_by_its_path(
    tmp_path: Path, lines: str | None, fault: str
) -> None:
    paths = FoldsPaths(tmp_path)
    if lines:
        paths.table.write_text(lines)
    with pytest.raises(UserError, match=f"^{re.escape(str(paths.table))}: .*{fault}"):
        paths.read_table()


# The whole command. The commands that it starts run in this process, so that they need not import
# TensorFlow again.


class InThisProcess:
    """Replaces ``TrainProcess``: its constructor runs the command in this process, to its end."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "seedtf"]
        self.code = run_command(command[3], list(command[4:]))

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def poll(self) -> int:
        return self.code


class StoppedProcess(InThisProcess):
    """Replaces ``TrainProcess``: a process that a signal has stopped."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.code = StoppedError.exit_code


@pytest.fixture(scope="module")
def folds(tiny_folder: Path, shared: Shared) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_folds_module, "TrainProcess", InThisProcess)
        return shared("folds", lambda folder: make_folds(folder / "folds", tiny_folder)) / "folds"


def folds_arguments(folder: Path, tiny_folder: Path) -> list[str]:
    flags = "--folds=2 --model=tiny --weights=none --image_size=16 --epochs=2 --batch_size=4"
    more = [r"--group_regex=(\w+ ?\w*/\d)", "--test_fraction=0.2", "--save_minutes=0.001"]
    # Compiling the fused augmentation would take each process a second.
    more += ["--augment_impl=tf_image"]
    return [f"--data_dir={tiny_folder}", f"--out={folder}", *flags.split(), *more]


def make_folds(folder: Path, tiny_folder: Path) -> Path:
    assert run_command("folds", folds_arguments(folder, tiny_folder)) == 0
    return folder


def test_every_non_test_image_is_predicted_once_by_a_run_that_did_not_train_on_it(
    folds: Path,
) -> None:
    paths = FoldsPaths(folds)
    table = {row.file: row for row in paths.read_table()}
    with paths.predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    predicted = [row["path"] for row in rows]
    assert len(table) == 18
    assert (
        predicted
        == sorted(set(predicted))
        == sorted(n for n, r in table.items() if r.fold != "test")
    )
    for number in range(2):
        split = dict(read_csv(paths.split(number), ("file", "split"), ""))
        for row in rows:
            is_val = split[row["path"]] == "val"
            assert is_val == (row["fold"] == str(number))
    for row in rows:
        probabilities = {k[2:]: float(v) for k, v in row.items() if k.startswith("p:")}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert max(probabilities, key=probabilities.get) == row["top1"]
        assert row["true"] == table[row["path"]].label


def test_the_report_pools_the_folds_and_lists_test_images_separately(folds: Path) -> None:
    values = json.loads(RunPaths(folds).report.report_json.read_text())
    with FoldsPaths(folds).predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert values["images"] == len(rows)
    assert values["correct"] == sum(row["true"] == row["top1"] for row in rows)
    of_folds = values["cross_validation"]
    assert sum(fold["correct"] for fold in of_folds["folds"]) == values["correct"]
    accuracies = [fold["accuracy"] for fold in of_folds["folds"]]
    assert of_folds["accuracy_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert of_folds["groups"]["number"] == len({row["group"] for row in rows})
    assert values["test"]["images"] == 18 - len(rows) > 0
    page = RunPaths(folds).report.page.read_text()
    assert "pooled accuracy" in page
    assert "test accuracy" in page
    assert "An export of all runs applies no temperature" in page
    assert "An export applies this temperature" not in page


@pytest.mark.parametrize(
    "accuracies", [[0.75, 0.5, None], [0.75, None]], ids=["3 folds", "2 folds"]
)
def test_a_fold_whose_images_are_all_left_out_has_no_accuracy(
    tmp_path: Path, accuracies: list[float | None]
) -> None:
    from seedtf.evaluation.evaluate import Predictions, compute_report
    from seedtf.evaluation.folds_report import folds_values
    from seedtf.evaluation.report import OUT_OF_FOLD, ReportContext, write_report
    from seedtf.runs.open import Run

    # Every fold has 4 images. Fold n predicts n + 1 of them wrongly. The images of the last fold are
    # left out.
    paths, count = FoldsPaths(tmp_path), len(accuracies)
    images = [(f"{fold}-{n}.png", fold, n) for fold in range(count) for n in range(4)]
    paths.write_table(FoldRow(file, "ab"[n % 2], str(fold), "") for file, fold, n in images)
    for fold in range(count):
        paths.fold(fold).root.mkdir()
        row = ",".join(["1"] * len(HISTORY_COLUMNS))
        paths.fold(fold).history.write_text(f"{','.join(HISTORY_COLUMNS)}\n{row}\n")
    kept = [image for image in images if image[1] < count - 1]
    labels = np.array([n % 2 for *_, n in kept], np.int32)
    is_right = np.array([n > fold for _, fold, n in kept])
    probabilities = np.eye(2, dtype=np.float32)[np.where(is_right, labels, 1 - labels)]
    predictions = Predictions(tuple(file for file, *_ in kept), labels, probabilities, ("a", "b"))
    members = tuple(map(paths.fold, range(count)))
    run = Run(tmp_path, {}, ("a", "b"), members=members, is_folds=True)
    report = compute_report(predictions, precision_target=0.9)
    values = folds_values(run, report)
    assert [fold["accuracy"] for fold in values["folds"]] == accuracies
    assert values["folds"][-1]["accuracy_interval_95"] is None
    assert values["accuracy_mean"] == np.mean(accuracies[:-1])
    expected = pytest.approx(np.std(accuracies[:-1], ddof=1)) if count > 2 else None
    assert values["accuracy_deviation"] == expected
    context = ReportContext(tmp_path, OUT_OF_FOLD, tmp_path, "tiny", 16, 1, ())
    write_report(report, context, tmp_path / "r", folds=values)
    written = ReportPaths(tmp_path / "r")
    assert json.loads(written.report_json.read_text())["cross_validation"] == values
    page = written.page.read_text(encoding="utf-8")
    assert page.count("<td>0</td><td>–</td><td>–</td><td>1 of 1</td>") == 1


@pytest.mark.usefixtures("forked_subprocesses")
def test_folds_predict_evaluate_and_export_as_the_mean_of_their_runs(
    folds: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    from seedtf.evaluation.classifier import open_classifier
    from seedtf.evaluation.evaluate import make_mean_predict_fn
    from seedtf.evaluation.evaluate_run import evaluate_run
    from seedtf.export.export import export_run
    from seedtf.model.activation_map import make_map_function
    from seedtf.runs.open import load_run, open_validation

    image = (tiny_folder / "alder" / "0.png").read_bytes()
    members = [open_classifier(folds / f"fold-{number}") for number in range(2)]
    mean: dict[str, float] = {}
    for member in members:
        prediction = member.predict(image, 3)
        for name, value in zip(prediction.names, prediction.probabilities, strict=True):
            mean[name] = mean.get(name, 0.0) + float(value) / 2
    ensemble = open_classifier(folds).predict(image, 3)
    assert dict(zip(ensemble.names, map(float, ensemble.probabilities), strict=True)) == (
        pytest.approx(mean, abs=1e-6)
    )
    evaluation = evaluate_run(str(folds), data_dir=str(tiny_folder), out=str(tmp_path / "r"))
    assert len(evaluation.report.losses) == 18
    run = load_run(folds)
    store, records = open_validation(run)
    exported = export_run(run, tmp_path / "export", store, records, heatmap=True)
    assert exported.rows[0].top1_agreement == 1
    assert exported.rows[0].max_abs_difference < 1e-5
    images = store.read(tf.constant(records[:3]))
    best = make_mean_predict_fn(run.load_members(use_snapshots=False))(images).argmax(1)
    outputs = tf.saved_model.load(str(exported.folder)).signatures["image"](image=images)
    heat = make_map_function(run.load_members(use_snapshots=False))(images, best)
    np.testing.assert_allclose(outputs["heatmap"], heat, atol=1e-4)
    served = open_classifier(exported.folder).predict(image, 3)
    assert dict(zip(served.names, map(float, served.probabilities), strict=True)) == (
        pytest.approx(mean, abs=1e-5)
    )


def test_evaluate_refuses_snapshots_of_folds(
    folds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = FoldsPaths(folds).predictions.stat().st_mtime_ns
    assert run_command("evaluate", [str(folds), "--snapshots"]) == 2
    refusal = f"--snapshots: {folds} averages several runs; leave --snapshots out\n"
    assert capsys.readouterr().err == f"seedtf evaluate: {refusal}"
    assert FoldsPaths(folds).predictions.stat().st_mtime_ns == before
    assert not RunPaths(folds).report_paths(snapshots=True).root.exists()


def test_the_same_command_again_changes_nothing(folds: Path, tiny_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folds.glob("fold-*/history.csv")}
    arguments = folds_arguments(folds, tiny_folder)
    assert run_command("folds", arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert run_command("folds", [*arguments, "--lr=0.5"]) == 2


def test_real_trainings_killed_at_any_moment_end_with_the_same_bytes(
    folds: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Sends SIGKILL to the command, to the process that it started, or to both.

    A power failure ends both.
    """
    rng, folder, killed = random.Random(2), tmp_path / "killed", 0
    arguments, paths = ["folds", *folds_arguments(folder, tiny_folder)], FoldsPaths(folder)
    # Each kill waits for a file that exists once a fold, the report or the division has begun. Without
    # this wait, the command on a busy machine would always be killed while it divides the images.
    files = [paths.fold(0).config, paths.fold(1).config, paths.log("report"), paths.log("divide")]
    while killed < KILLS:
        process = forked.Process("forked_folds:main", arguments)
        while not files[killed % len(files)].exists() and process.poll() is None:
            time.sleep(0.01)
        try:
            assert process.wait(rng.uniform(0.0, 2.0)) == 0, process.communicate()[1]
        except subprocess.TimeoutExpired:
            started = []
            with contextlib.suppress(psutil.NoSuchProcess):  # the command has ended meanwhile
                started = [child.pid for child in psutil.Process(process.pid).children()]
            both = [*started, process.pid]
            for pid in rng.choice([both, started or both, [process.pid]]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if process.wait() != 0:
                assert process.returncode in (-signal.SIGKILL, UserError.exit_code)
                killed += 1
                continue
        assert_same_bytes(folder, folds)
        shutil.rmtree(folder)  # the command ended before it was killed, so it is run again
    assert forked.run("forked_folds:main", arguments).returncode == 0
    assert_same_bytes(folder, folds)


def assert_same_bytes(folder: Path, expected: Path) -> None:
    for number in range(2):
        history = FoldsPaths(folder).fold(number).history.read_bytes()
        assert history == FoldsPaths(expected).fold(number).history.read_bytes()
    assert (
        FoldsPaths(folder).predictions.read_bytes() == FoldsPaths(expected).predictions.read_bytes()
    )
