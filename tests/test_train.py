"""``seedtf train`` as a whole: files, output, errors and exit codes, with synthetic seedlings.

The first run is a new process, as from a shell. Most other runs are in forked processes or in this one.
"""

import csv
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import forked
import numpy as np
import pytest
import tensorflow as tf  # noqa: F401  imported here, so that its log lines are in no test's output

from seedtf.commands.main import main
from seedtf.data.sample.write import write_sample

NEVER = "0"
"""The first argument of ``killed_run.py``: it never kills itself, and only replaces the figures."""
EXPECTED_FILES = [
    "flags.txt",
    "config.json",
    "env.json",
    "classes.txt",
    "split.csv",
    "data_report.csv",
    "history.csv",
    "timing.csv",
    "curves.png",
    "lr.png",
    "live.html",
    "augmented.png",
    "checkpoints/best.keras",
    "checkpoints/last.keras",
]


@pytest.fixture(scope="module")
def seedlings(shared) -> Path:
    """96 synthetic images in 12 classes; conftest.py's ``shared`` makes them for all test processes."""

    def draw(folder: Path) -> None:
        write_sample(folder / "s", images_per_class=8, image_size=24)

    return shared("train-seedlings", draw) / "s"


def train_flags(data: Path, run_dir: Path, *extra_flags: str) -> list[str]:
    settings = "--model=tiny --weights=none --image_size=16 --epochs=2 --batch_size=16 --lr=0.01"
    return [f"--data_dir={data}", f"--run_dir={run_dir}", *settings.split(), *extra_flags]


def seedtf(*arguments: str) -> subprocess.CompletedProcess:
    """Runs a command in a new interpreter."""
    command = [sys.executable, "-m", "seedtf", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def read_history(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def faulty(seedlings: Path, shared) -> Path:
    """A copy of the seedlings with three more files that cannot be used."""

    def damage(folder: Path) -> None:
        data = Path(shutil.copytree(seedlings, folder / "data"))
        first = next(iter(sorted((data / "Maize").iterdir())))
        (data / "Maize" / "cut.png").write_bytes(first.read_bytes()[:-200])
        (data / "Maize" / "empty.jpg").touch()
        (data / "Charlock" / "page.jpg").write_text("<html>not found</html>")

    return shared("train-faulty", damage) / "data"


@pytest.fixture(scope="module")
def finished(faulty: Path, shared) -> tuple[subprocess.CompletedProcess, Path]:
    """The finished process of a run on the faulty folder, and the run folder."""

    def train(folder: Path) -> None:
        done = seedtf("train", *train_flags(faulty, folder / "first"))
        (folder / "done.json").write_text(json.dumps(vars(done), default=str))

    folder = shared("train-finished", train)
    done = json.loads((folder / "done.json").read_text())
    return subprocess.CompletedProcess(**done), folder / "first"


def test_a_run_exits_with_0_and_leaves_all_its_files(finished) -> None:
    done, run_dir = finished
    assert done.returncode == 0, done.stderr
    assert {name for name in EXPECTED_FILES if not (run_dir / name).is_file()} == set()
    assert [row["epoch"] for row in read_history(run_dir)] == ["1", "2"]
    assert not [path for path in run_dir.rglob(".*") if path.is_file()]  # no temporary files


def test_the_output_lists_the_next_commands(finished) -> None:
    done, run_dir = finished
    lines = done.stdout.splitlines()
    first = lines.index(f"next      seedtf evaluate {run_dir}")
    following = [line.strip() for line in lines[first + 1 : first + 3]]
    predict = f"seedtf predict {run_dir} IMAGES --out=predictions.csv"
    assert following == [predict, f"seedtf export {run_dir}"]


def test_the_last_line_is_the_result(finished) -> None:
    done, run_dir = finished
    last = done.stdout.splitlines()[-1]
    result = json.loads(last.removeprefix("RESULT "))
    row = read_history(run_dir)[result["best_epoch"] - 1]
    assert last.startswith("RESULT {")
    assert result["run_dir"] == str(run_dir)
    assert result["val_loss"] == float(row["val_loss"])
    assert result["val_accuracy"] == float(row["val_accuracy"])
    assert result["val_loss"] == min(float(r["val_loss"]) for r in read_history(run_dir))
    assert result["epoch_seconds"] > 0
    assert result["images_per_second"] > 0


def test_without_a_terminal_there_is_one_line_per_epoch_and_no_control_code(finished) -> None:
    done, _ = finished
    assert sum(line.startswith("epoch ") for line in done.stdout.splitlines()) == 2
    assert not set("\r\x1b\b") & set(done.stdout + done.stderr)
    assert done.stderr == ""


def test_the_first_lines_of_the_output_list_the_data_and_the_settings(finished) -> None:
    done, run_dir = finished
    heads = [line.split()[0] for line in done.stdout.splitlines()]
    expected = [
        "layout",
        "run",
        "images",
        "split",
        "store",
        "model",
        "precision",
        "XLA",
        "augment",
        "device",
        "strategy",
        "recipe",
        "training",
    ]
    assert heads[: len(expected)] == expected
    assert "96 in 12 classes (8 each), 3 left out" in done.stdout
    assert "5 steps of 16 images" in done.stdout
    recipe = "\nrecipe    fast, because the initial weights are random (defaults: epochs=20, "
    assert recipe in done.stdout
    settings = json.loads((run_dir / "config.json").read_text())
    assert settings["resolved"]["steps_per_epoch"] == 5


def test_bad_files_are_named_and_skipped(finished) -> None:
    done, run_dir = finished
    with (run_dir / "data_report.csv").open() as file:
        faults = {row["path"]: row["fault"] for row in csv.DictReader(file)}
    assert faults == {
        "Maize/cut.png": "truncated",
        "Maize/empty.jpg": "empty file",
        "Charlock/page.jpg": "not an image",
    }
    assert all(path in done.stdout for path in faults)
    split = (run_dir / "split.csv").read_text()
    assert not [path for path in faults if path in split]


def test_the_flagfile_repeats_the_run_exactly(finished, tmp_path) -> None:
    _, run_dir = finished
    arguments = (f"--flagfile={run_dir / 'flags.txt'}", "--run_dir=again")
    done = forked.run("killed_run:main", [NEVER, "train", *arguments], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = (tmp_path / "again" / "history.csv").read_bytes()
    assert again == (run_dir / "history.csv").read_bytes()


@pytest.mark.usefixtures("without_figures")
def test_a_run_from_python_has_the_history_of_the_command(
    finished, faulty, tmp_path, capsys
) -> None:
    from seedtf.training.train import TrainConfig, train_and_evaluate

    _, run_dir = finished
    config = TrainConfig(
        data_dir=str(faulty),
        run_dir=str(tmp_path / "api"),
        model="tiny",
        weights="none",
        image_size=16,
        epochs=2,
        batch_size=16,
        lr=0.01,
    )
    result = train_and_evaluate(config)
    capsys.readouterr()
    assert (tmp_path / "api" / "history.csv").read_bytes() == (run_dir / "history.csv").read_bytes()
    assert result.val_loss == min(float(row["val_loss"]) for row in read_history(run_dir))


def test_the_best_checkpoint_has_the_validation_accuracy_of_the_training(finished, faulty) -> None:
    from seedtf.data.catalog import scan_folder
    from seedtf.data.split import read_split_csv
    from seedtf.data.store import CachePlan, build_store
    from seedtf.model.network import load_model

    done, run_dir = finished
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    store = build_store(scan_folder(faulty), 16, CachePlan("ram", 0, ""), run_dir)
    val = read_split_csv(run_dir / "split.csv", store.catalog).val
    probabilities = load_model(run_dir / "checkpoints" / "best.keras").predict(
        store.read(val).numpy(), verbose=0
    )
    accuracy = np.mean(probabilities.argmax(-1) == store.catalog.labels[val])
    assert accuracy == pytest.approx(result["val_accuracy"])
    names = (run_dir / "classes.txt").read_text().splitlines()
    assert names == list(store.catalog.class_names)


def test_an_existing_run_folder_is_refused_and_kept(finished, faulty) -> None:
    _, run_dir = finished
    before = (run_dir / "history.csv").read_bytes()
    done = forked.seedtf("train", *train_flags(faulty, run_dir))
    assert done.returncode == 2
    assert done.stderr == (
        f"seedtf train: --run_dir={run_dir}: already exists; pass a new folder or remove it\n"
    )
    assert (run_dir / "history.csv").read_bytes() == before


@pytest.fixture(scope="module")
def on_terminal(seedlings, shared) -> tuple[Path, str]:
    """The folder of a run with one frozen epoch, and its output on a terminal of 100 columns."""
    extra_flags = (
        "--freeze_epochs=1",
        "--augment_impl=tf_image",
        "--schedule=one_cycle",
        "--cache=disk",
    )

    def train(folder: Path) -> None:
        arguments = train_flags(seedlings, folder / "run", *extra_flags, "--schedule_per_step")
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = forked.Process("killed_run:main", [NEVER, "train", *arguments], terminal=follower)
        os.close(follower)
        seen = b""
        try:
            while part := os.read(leader, 1 << 16):
                seen += part
        except OSError:  # Linux raises EIO when the process has closed the terminal
            pass
        os.close(leader)
        assert process.wait() == 0, seen.decode()
        (folder / "seen").write_bytes(seen)

    folder = shared("train-on-terminal", train)
    return folder / "run", (folder / "seen").read_bytes().decode()


def test_on_a_terminal_the_line_of_an_epoch_is_redrawn(on_terminal) -> None:
    _, seen = on_terminal
    assert "\repoch 2/2" in seen
    assert "RESULT {" in seen


def test_the_numbers_of_epochs_continue_from_frozen_to_full_training(on_terminal) -> None:
    run_dir, seen = on_terminal
    assert [row["epoch"] for row in read_history(run_dir)] == ["1", "2"]
    assert "only the head in the first epoch" in seen


@pytest.mark.usefixtures("without_figures")
def test_a_time_limit_stops_early_and_is_the_reason_in_the_result(
    seedlings, tmp_path, capsys
) -> None:
    extra_flags = ("--time_limit=0.00001", "--augment_impl=tf_image")
    assert main(["train", *train_flags(seedlings, tmp_path / "run", *extra_flags)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    assert result["epochs"] == 1
    assert "time limit" in result["stopped"]


@pytest.mark.parametrize(
    ("extra_flags", "message"),
    [
        (["--batch_size=1000"], "--batch_size=1000: more than the 84 training images"),
        (["--model=resnet5"], "did you mean"),
        (["--model=resnet50"], "--image_size=16"),
        (["--weights=/no/such.keras"], "--weights=/no/such.keras"),
        (["--warmup_epochs=3"], "--warmup_epochs=3"),
        (["--run_dir=/proc/nowhere/run"], "--run_dir=/proc/nowhere/run"),
        (["--cache=disk", "--cache_dir=/proc/nowhere"], "another --cache_dir"),
    ],
)
def test_wrong_flags_give_a_one_line_error_and_exit_code_2(
    seedlings, tmp_path, capfd, extra_flags, message
) -> None:
    assert main(["train", *train_flags(seedlings, tmp_path / "run", *extra_flags)]) == 2
    stderr = capfd.readouterr().err
    assert stderr.startswith("seedtf train: ")
    assert len(stderr.splitlines()) == 1, stderr
    assert message in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "run"), [("--batch_size=1000", seedtf), ("--model=resnet5", forked.seedtf)]
)
def test_in_a_process_of_its_own_the_command_writes_one_error_line_to_stderr(
    seedlings, tmp_path, flag, run
) -> None:
    done = run("train", *train_flags(seedlings, tmp_path / "run", flag))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"seedtf train: {flag}")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_preview_accepts_the_flagfile_of_a_run(finished, tmp_path) -> None:
    from PIL import Image

    _, run_dir = finished
    out = tmp_path / "seen.png"
    done = forked.seedtf("preview", f"--flagfile={run_dir / 'flags.txt'}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    layout, last = done.stdout.splitlines()
    assert layout.startswith("layout    class folders in ")
    assert last == str(out)
    with Image.open(out) as image:
        assert min(image.size) > 300
    refused = forked.seedtf("preview", "--data_dir=sample", f"--out={tmp_path}/no/such/x.png")
    assert refused.returncode == 2
    assert "--out=" in refused.stderr


def test_the_history_does_not_depend_on_the_number_of_cores(
    finished, faulty, tmp_path, monkeypatch
) -> None:
    """A run on one core with TF_NUM_INTRAOP_THREADS=1 has the same history, also if deterministic."""
    _, run_dir = finished

    def train(name: str, *extra_flags: str) -> bytes:
        arguments = [NEVER, "train", *train_flags(faulty, tmp_path / name), *extra_flags]
        done = forked.run("killed_run:main", arguments)
        assert done.returncode == 0, done.stderr
        assert ("determinism" in done.stdout) == bool(extra_flags)
        return (tmp_path / name / "history.csv").read_bytes()

    deterministic = train("deterministic", "--deterministic")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # The forked process gets the same cores.
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    try:
        assert train("one_core") == (run_dir / "history.csv").read_bytes()
        assert train("one_core_deterministic", "--deterministic") == deterministic
    finally:
        os.sched_setaffinity(0, cores)
