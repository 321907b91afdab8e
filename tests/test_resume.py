"""A run that is killed at any moment and resumed ends as if it had never been interrupted."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from seedtf.commands.main import main
from seedtf.data.sample.write import write_sample

HERE = Path(__file__).parent
# For a longer test: SEEDTF_KILLS=50 SEEDTF_KILL_DATA=folder SEEDTF_KILL_FLAGS="--image_size=32 …"
NUM_KILLS = int(os.environ.get("SEEDTF_KILLS", "7"))
SMALL_RUN_FLAGS = (
    "--image_size=16 --batch_size=16 --epochs=3 --freeze_epochs=1 --save_minutes=0.001 "
    # Most of these options have a state or random numbers of their own.
    "--progressive_sizes=12 --ema_horizon=0.2 --augment_strength=auto --mixup=0.2 --cutmix=1 "
    "--random_erasing=0.2 --class_weights=auto --sampler=balanced --body_lr_factor=0.5 --clip_norm=5 "
    # With --augment_strength=auto, --augment_impl=fused would be traced in every epoch.
    "--augment_impl=tf_image"
)
FLAGS = os.environ.get("SEEDTF_KILL_FLAGS", SMALL_RUN_FLAGS).split()


@pytest.fixture(scope="module")
def data(shared) -> Path:
    if "SEEDTF_KILL_DATA" in os.environ:
        return Path(os.environ["SEEDTF_KILL_DATA"])
    return shared("seedlings", draw_seedlings) / "s"


def draw_seedlings(folder: Path) -> None:
    write_sample(folder / "s", images_per_class=5, image_size=20)


def train_flags(data: Path, run_dir: Path) -> list[str]:
    first = [f"--data_dir={data}", f"--run_dir={run_dir}", "--model=tiny", "--weights=none"]
    return ["train", *first, "--lr=0.01", "--warmup_epochs=1", *FLAGS]


def start(arguments: list[str]) -> forked.Process:
    return forked.Process("killed_run:main", ["0", *arguments])


def run(arguments: list[str], fatal_write: int = 0) -> subprocess.CompletedProcess:
    """Runs a command that kills itself instead of making its write number ``fatal_write``.

    Writes are counted from 1; with 0 the command ends as usual. ``killed_run.py`` says what a write is.
    """
    return forked.run("killed_run:main", [str(fatal_write), *arguments])


def finish(arguments: list[str]) -> str:
    """Runs a command to its end in a forked process; returns its output."""
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(data, shared) -> Path:
    """An uninterrupted run in a new interpreter, which hashes strings differently from forked runs."""

    def train(folder: Path) -> None:
        command = [sys.executable, HERE / "killed_run.py", "0", *train_flags(data, folder / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return shared("undisturbed", train) / "run"


def end_of(run_dir: Path) -> dict[str, object]:
    """The history, the last state and the models of a run, for comparison with the undisturbed run."""
    from seedtf.training.state import load_newest_state

    state, warnings = load_newest_state(run_dir / "state")
    assert not warnings
    # The default flags include --ema_horizon, so the state has averaged weights.
    assert len(state.arrays["average"]) > 1 or SMALL_RUN_FLAGS.split() != FLAGS
    end: dict[str, object] = {"history": (run_dir / "history.csv").read_bytes()}
    for group in ("weights", "optimizer", "average"):
        end[group] = [array.tobytes() for array in state.arrays[group]]
    for name in ("best.keras", "last.keras"):
        end[name] = model_weights(run_dir, name)
    return end


@pytest.fixture(scope="module")
def expected(undisturbed) -> dict[str, object]:
    return end_of(undisturbed)


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    for name, value in expected.items():
        assert found[name] == value, name


def model_weights(run_dir: Path, name: str) -> list[bytes]:
    from seedtf.model.network import load_model

    return [
        weight.numpy().tobytes() for weight in load_model(run_dir / "checkpoints" / name).weights
    ]


def next_arguments(data: Path, run_dir: Path) -> list[str]:
    """The command after a kill: resumes the run, or starts it if it was killed before it began."""
    if (run_dir / "config.json").exists():
        return ["train", f"--resume={run_dir}"]
    return train_flags(data, run_dir)


def test_a_run_killed_at_any_moment_resumes_exactly(data, expected, tmp_path) -> None:
    rng, run_dir, num_killed = random.Random(1), tmp_path / "run", 0
    while num_killed < NUM_KILLS:
        arguments = next_arguments(data, run_dir)
        if rng.random() < 0.7:
            done = run(arguments, fatal_write=rng.randint(1, 70))
            returncode, output = done.returncode, done.stderr
        else:
            returncode, output = kill_after(arguments, rng.uniform(0.2, 4.0)), ""
        if returncode == 0:  # the run ended before it was killed, so start another one
            assert_same(end_of(run_dir), expected)
            shutil.rmtree(run_dir)
        else:
            assert returncode == -signal.SIGKILL, output
            num_killed += 1
    done = run(next_arguments(data, run_dir))
    assert done.returncode == 0, done.stderr
    assert_same(end_of(run_dir), expected)
    # No temporary files are left.
    assert not [path for path in run_dir.rglob(".*") if path.is_file()]


def kill_after(arguments: list[str], seconds: float) -> int:
    process = start(arguments)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@pytest.fixture(scope="module")
def interrupted(data, shared) -> Path:
    """A run that was stopped by SIGTERM, a full disk, SIGINT and a time limit, then moved and finished.

    The sub-folder ``run`` is where the run began, ``moved`` where it ended. ``before`` and ``after``
    hold its states before and after a resume on a full disk. ``steps.json`` has the output, the errors
    and the exit code of each process.
    """
    return shared("interrupted", lambda folder: interrupt(data, folder))


@pytest.fixture(scope="module")
def end_of_interrupted(interrupted) -> dict[str, object]:
    return end_of(interrupted / "moved")


def interrupt(data: Path, folder: Path) -> None:
    run_dir, moved, elsewhere = (folder / name for name in ("run", "moved", "elsewhere"))
    resume = ["train", f"--resume={run_dir}"]
    steps = {"SIGTERM": stop(train_flags(data, run_dir), "epoch 1/", signal.SIGTERM)}
    shutil.copytree(run_dir / "state", folder / "before")
    on_full_disk = start(resume)
    # A write beyond 30 kB fails with an OSError, as on a full disk.
    resource.prlimit(on_full_disk.pid, resource.RLIMIT_FSIZE, (30_000, 30_000))
    steps["full disk"] = [*on_full_disk.communicate(), on_full_disk.returncode]
    shutil.copytree(run_dir / "state", folder / "after")
    steps["SIGINT"] = stop(resume, "epoch 2/", signal.SIGINT)
    limited = run([*resume, "--time_limit=0.00001"])
    steps["time limit"] = [limited.stdout, limited.stderr, limited.returncode]
    run_dir.rename(moved)
    shutil.copytree(data, elsewhere)
    rest = run(["train", f"--resume={moved}", f"--data_dir={elsewhere}", "--time_limit=0"])
    steps["moved"] = [rest.stdout, rest.stderr, rest.returncode]
    (folder / "steps.json").write_text(json.dumps(steps))


def stop(arguments: list[str], line_start: str, signal_number: int) -> list[str | int]:
    """Runs a command and sends a signal when a line of its output begins with ``line_start``.

    Returns:
        The rest of the output, the errors and the exit code.
    """
    process = start(arguments)
    for line in process.stdout:
        if line.startswith(line_start):
            process.send_signal(signal_number)
            break
    return [*process.communicate(timeout=60), process.returncode]


def read_step(interrupted: Path, name: str) -> tuple[str, str, int]:
    """The output, the errors and the exit code of one process of the interrupted run."""
    return tuple(json.loads((interrupted / "steps.json").read_text())[name])


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_75(
    interrupted, end_of_interrupted, expected, signal_number
) -> None:
    _, errors, returncode = read_step(interrupted, signal_number.name)
    assert returncode == 75, errors
    assert f"continue with --resume={interrupted / 'run'}" in errors.splitlines()[-1]
    assert_same(end_of_interrupted, expected)


def test_a_run_stopped_by_a_time_limit_within_an_epoch_resumes_exactly(
    interrupted, end_of_interrupted, expected
) -> None:
    output, errors, returncode = read_step(interrupted, "time limit")
    assert returncode == 0, errors
    assert "the time limit" in output
    assert_same(end_of_interrupted, expected)


def test_a_run_resumes_after_its_folder_and_its_data_were_moved(
    interrupted, end_of_interrupted, expected
) -> None:
    _, errors, returncode = read_step(interrupted, "moved")
    assert returncode == 0, errors
    assert_same(end_of_interrupted, expected)


def test_a_full_disk_gives_a_one_line_error_and_keeps_the_last_state(
    interrupted, end_of_interrupted, expected
) -> None:
    output, errors, returncode = read_step(interrupted, "full disk")
    assert returncode == 2, output
    assert "Traceback" not in errors
    assert "--resume" in errors.splitlines()[-1]
    kept, after = (
        {path.name: path.read_bytes() for path in (interrupted / name).glob("*.state")}
        for name in ("before", "after")
    )
    assert kept
    assert after == kept
    assert_same(end_of_interrupted, expected)


@pytest.fixture
def finished(undisturbed, tmp_path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


def test_if_the_newest_state_is_damaged_the_previous_one_is_used_with_a_warning(
    finished, expected
) -> None:
    newest = max((finished / "state").glob("*.state"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    output = finish(["train", f"--resume={finished}"])
    assert f"{newest.name}: altered: its checksum does not match" in output
    assert_same(end_of(finished), expected)


def test_writing_states_removes_damaged_ones_of_later_epochs(undisturbed, tmp_path) -> None:
    from dataclasses import replace

    from seedtf.training.state import StateFolder, load_newest_state, read_state

    complete = read_state(max((undisturbed / "state").glob("*.state")))
    for number in (9, 10):
        (tmp_path / f"{number:06d}-00000000.state").write_bytes(b"junk")
    folder = StateFolder(tmp_path)
    for epoch in (1, 2, 3):
        folder.write(replace(complete, epoch=epoch))
    assert [path.name[:6] for path in sorted(tmp_path.glob("*.state"))] == ["000002", "000003"]
    assert load_newest_state(tmp_path)[0].epoch == 3


def test_a_resume_without_a_complete_state_is_refused(finished, capsys) -> None:
    history = (finished / "history.csv").read_bytes()
    for path in (finished / "state").glob("*.state"):
        path.write_bytes(path.read_bytes()[:-1])
    assert main(["train", f"--resume={finished}"]) == 2
    assert "none of its states can be used" in capsys.readouterr().err
    assert (finished / "history.csv").read_bytes() == history


def test_a_resumed_run_reports_where_it_continues(tmp_path, capsys) -> None:
    from seedtf.training.resume import load_resume_state
    from seedtf.training.state import StateFolder, TrainState

    for epoch, step, where in ((0, 0, "at the first step"), (0, 2, "after step 2 of epoch 1")):
        state = TrainState(epoch, step, {"identity": {}, "replicas": 1}, {})
        StateFolder(tmp_path / "state").write(state)
        load_resume_state(tmp_path, {}, 1)
        assert f"continuing {where}\n" in capsys.readouterr().out


def test_resume_without_a_value_takes_the_newest_run(
    finished, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("old", "new"):
        shutil.copytree(finished, tmp_path / "runs" / name)
        time.sleep(0.02)
        (tmp_path / "runs" / name / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume"]) == 0
    assert '"run_dir": "runs/new"' in capsys.readouterr().out


def test_a_run_without_a_state_starts_again_from_its_initial_weights(
    data, undisturbed, tmp_path
) -> None:
    run_dir = tmp_path / "run"
    small = ["--model=tiny", "--image_size=16", "--batch_size=16", "--epochs=1"]
    flags = [f"--data_dir={data}", f"--run_dir={run_dir}", f"--weights={undisturbed}", *small]
    finish(["train", *flags])
    history = (run_dir / "history.csv").read_bytes()
    # A run that was killed in its first epoch has neither of these files.
    for path in [*run_dir.glob("state/*.state"), run_dir / "history.csv"]:
        path.unlink()
    assert "no state was saved yet" in finish(["train", f"--resume={run_dir}"])
    assert (run_dir / "history.csv").read_bytes() == history


def test_a_run_needs_its_initial_weights_file_until_it_has_a_state(tmp_path) -> None:
    from seedtf.config.train_config import TrainConfig
    from seedtf.errors import UserError
    from seedtf.training.machine import Machine
    from seedtf.training.resolve import resolve
    from seedtf.training.setup import configure_tensorflow

    run_dir, state = str(tmp_path), tmp_path / "state"
    flags = {"model": "tiny", "weights": str(tmp_path / "gone.keras"), "threads": os.cpu_count()}
    config = TrainConfig(data_dir="x", run_dir=run_dir, resume=run_dir, **flags)
    state.mkdir()
    with pytest.raises(UserError, match=r"gone\.keras: no such file"):
        configure_tensorflow(resolve(config, Machine()))
    (state / "000001-00000000.state").touch()
    configure_tensorflow(resolve(config, Machine()))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--seed=5", "--seed=5: the run in"),
        ("--batch_size=8", "--batch_size=8: the run in"),
        ("--lr=0.5", "--lr=0.5: the run in"),
    ],
)
def test_flags_that_change_the_run_are_refused_by_name(finished, flag, message, capsys) -> None:
    assert main(["train", f"--resume={finished}", flag]) == 2
    assert message in capsys.readouterr().err


def test_changed_data_is_refused_with_the_difference(data, finished, tmp_path, capsys) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    next(folder.glob("Maize/*.png")).unlink()
    assert main(["train", f"--resume={finished}", f"--data_dir={folder}"]) == 2
    assert "the number of images was 60 and is now 59" in capsys.readouterr().err


def test_a_run_cannot_be_resumed_while_it_is_training(finished) -> None:
    from seedtf.errors import UserError
    from seedtf.runs.folder import lock_run

    with (
        lock_run(finished),
        pytest.raises(UserError, match="another process is training there"),
        lock_run(finished),
    ):
        pass


def test_a_folder_removed_while_running_gives_a_one_line_error(data, tmp_path) -> None:
    run_dir = tmp_path / "run"
    # The run has so many epochs that it does not end before its folder is removed.
    flags = ["--image_size=16", "--batch_size=16", "--epochs=500", "--augment_impl=tf_image"]
    command = [
        "train",
        f"--data_dir={data}",
        f"--run_dir={run_dir}",
        "--model=tiny",
        "--weights=none",
    ]
    process = start([*command, *flags])
    for line in process.stdout:
        if line.startswith("epoch   1/"):
            shutil.rmtree(run_dir)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith("seedtf train: ")
    assert "Traceback" not in errors
