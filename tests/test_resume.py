"""Killed at any moment, a run that is resumed ends as if it had never been interrupted."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from seedtf.commands.main import main
from seedtf.data.sample.write import write_sample

# a longer mode: SEEDTF_KILLS=50 SEEDTF_KILL_DATA=folder SEEDTF_KILL_FLAGS="--image_size=32 …"
KILLS = int(os.environ.get("SEEDTF_KILLS", "10"))
SMALL = (
    "--image_size=16 --batch_size=16 --epochs=4 --freeze_epochs=1 --save_minutes=0.001 "
    # every ingredient that has a state, or draws, of its own
    "--progressive_sizes=12 --ema_horizon=0.2 --augment_strength=auto --mixup=0.2 --cutmix=1 "
    "--random_erasing=0.2 --class_weights=auto --sampler=balanced --body_lr_factor=0.5 --clip_norm=5"
)
FLAGS = os.environ.get("SEEDTF_KILL_FLAGS", SMALL).split()

# Kills its own process at a chosen call of the functions that every write goes through: before a
# rename, before a flush to disk, or with half a file written.
DEADLY = """
import os, pathlib, signal, sys
fatal, calls = int(sys.argv.pop(1)), 0
def deadly(function, torn=False):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == fatal:
            if torn:
                function(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
pathlib.Path.write_bytes = deadly(pathlib.Path.write_bytes, torn=True)
from seedtf.commands.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    if "SEEDTF_KILL_DATA" in os.environ:
        return Path(os.environ["SEEDTF_KILL_DATA"])
    return write_sample(tmp_path_factory.mktemp("data") / "s", images_per_class=5, image_size=20)


def train_flags(data: Path, run_dir: Path) -> list[str]:
    first = [f"--data_dir={data}", f"--run_dir={run_dir}", "--model=tiny", "--weights=none"]
    return ["train", *first, "--lr=0.01", "--warmup_epochs=1", *FLAGS]


def command(arguments: list[str], fatal: int = 0) -> list[str]:
    return [sys.executable, "-c", DEADLY, str(fatal), *arguments]


def run(arguments: list[str], fatal: int = 0, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(arguments, fatal), capture_output=True, text=True, check=False, **options
    )


def finish(arguments: list[str]) -> str:
    """Runs a command to its end in a fresh process, as the undisturbed run had one."""
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(train_flags(data, run_dir))
    assert done.returncode == 0, done.stderr
    return run_dir


def final_arrays(run_dir: Path) -> dict[str, list[np.ndarray]]:
    from seedtf.training.state import load_newest_state

    state, warnings = load_newest_state(run_dir / "state")
    assert not warnings
    return state.arrays


def assert_same_end(run_dir: Path, undisturbed: Path) -> None:
    assert (run_dir / "history.csv").read_bytes() == (undisturbed / "history.csv").read_bytes()
    found, wanted = final_arrays(run_dir), final_arrays(undisturbed)
    assert len(wanted["average"]) > 1 or SMALL.split() != FLAGS
    for group in ("weights", "optimizer", "average"):
        assert [a.tobytes() for a in found[group]] == [a.tobytes() for a in wanted[group]]
    for name in ("best.keras", "last.keras"):
        assert model_weights(run_dir, name) == model_weights(undisturbed, name)


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


def test_a_run_killed_at_any_moment_resumes_exactly(data, undisturbed, tmp_path) -> None:
    draw, run_dir, killed = random.Random(1), tmp_path / "run", 0
    while killed < KILLS:
        arguments = next_arguments(data, run_dir)
        if draw.random() < 0.7:
            done = run(arguments, fatal=draw.randint(1, 70))
            returncode, output = done.returncode, done.stderr
        else:
            returncode, output = kill_after(arguments, draw.uniform(3.0, 8.0)), ""
        if returncode == 0:  # the run ended before it was killed, so start another one
            assert_same_end(run_dir, undisturbed)
            shutil.rmtree(run_dir)
        else:
            assert returncode == -signal.SIGKILL, output
            killed += 1
    done = run(next_arguments(data, run_dir))
    assert done.returncode == 0, done.stderr
    assert_same_end(run_dir, undisturbed)
    assert not [path for path in run_dir.rglob(".*") if path.is_file()]  # leftovers are removed


def kill_after(arguments: list[str], seconds: float) -> int:
    with subprocess.Popen(
        command(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_75(data, undisturbed, tmp_path, number) -> None:
    run_dir = tmp_path / "run"
    with subprocess.Popen(
        command(train_flags(data, run_dir)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                process.send_signal(number)
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert f"continue with --resume={run_dir}" in errors.splitlines()[-1]
    finish(["train", f"--resume={run_dir}"])
    assert_same_end(run_dir, undisturbed)


@pytest.fixture
def finished(undisturbed, tmp_path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "copy"))


def test_a_damaged_state_falls_back_to_the_previous_one_with_a_warning(
    finished, undisturbed
) -> None:
    newest = max((finished / "state").glob("*.state"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    output = finish(["train", f"--resume={finished}"])
    assert f"{newest.name}: altered: its checksum does not match" in output
    assert_same_end(finished, undisturbed)


def test_a_time_limit_within_an_epoch_leaves_it_to_the_resumed_run(
    data, undisturbed, tmp_path
) -> None:
    run_dir = tmp_path / "run"
    assert "the time limit" in finish([*train_flags(data, run_dir), "--time_limit=0.00001"])
    finish(["train", f"--resume={run_dir}", "--time_limit=0"])
    assert_same_end(run_dir, undisturbed)


def test_a_run_moves_with_its_folder_and_its_data(data, undisturbed, tmp_path) -> None:
    run_dir = tmp_path / "run"
    finish([*train_flags(data, run_dir), "--time_limit=0.00001"])
    moved, elsewhere = tmp_path / "moved", tmp_path / "elsewhere"
    run_dir.rename(moved)
    shutil.copytree(data, elsewhere)
    resume = ["train", f"--resume={moved}", f"--data_dir={elsewhere}", "--time_limit=0"]
    finish(resume)
    assert_same_end(moved, undisturbed)


def test_new_states_survive_a_damaged_one_ahead(undisturbed, tmp_path) -> None:
    from dataclasses import replace

    from seedtf.training.state import StateFolder, load_newest_state, read_state

    whole = read_state(max((undisturbed / "state").glob("*.state")))
    for number in (9, 10):
        (tmp_path / f"{number:06d}-00000000.state").write_bytes(b"junk")
    folder = StateFolder(tmp_path)
    for epoch in (1, 2, 3):
        folder.write(replace(whole, epoch=epoch))
    assert [path.name[:6] for path in sorted(tmp_path.glob("*.state"))] == ["000002", "000003"]
    assert load_newest_state(tmp_path)[0].epoch == 3


def test_a_resume_without_a_complete_state_is_refused(finished, capsys) -> None:
    history = (finished / "history.csv").read_bytes()
    for path in (finished / "state").glob("*.state"):
        path.write_bytes(path.read_bytes()[:-1])
    assert main(["train", f"--resume={finished}"]) == 2
    assert "none of its states can be used" in capsys.readouterr().err
    assert (finished / "history.csv").read_bytes() == history


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


def test_changed_data_is_refused_by_name(data, tmp_path, capsys) -> None:
    from seedtf.training.train import TrainConfig, train_and_evaluate

    folder = Path(shutil.copytree(data, tmp_path / "data"))
    config = TrainConfig(
        data_dir=str(folder),
        run_dir=str(tmp_path / "run"),
        model="tiny",
        weights="none",
        image_size=16,
        batch_size=16,
        epochs=1,
    )
    train_and_evaluate(config)
    next(folder.glob("Maize/*.png")).unlink()
    assert main(["train", f"--resume={tmp_path / 'run'}"]) == 2
    assert "the number of images was 60 and is now 59" in capsys.readouterr().err


def test_a_running_run_cannot_be_resumed_twice(finished) -> None:
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
    with subprocess.Popen(
        command(train_flags(data, run_dir)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                shutil.rmtree(run_dir)
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.splitlines()[-1].startswith("seedtf train: ")
    assert "Traceback" not in errors


def test_a_full_disk_gives_a_one_line_error_and_keeps_the_last_state(
    data, undisturbed, tmp_path
) -> None:
    import resource

    run_dir = tmp_path / "run"
    done = run(train_flags(data, run_dir), fatal=60)
    assert done.returncode == -signal.SIGKILL
    kept = {path.name: path.read_bytes() for path in (run_dir / "state").glob("*.state")}
    assert kept

    def limit() -> None:  # every larger write fails as on a full disk, with an OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = run(["train", f"--resume={run_dir}"], preexec_fn=limit)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert "--resume" in done.stderr.splitlines()[-1]
    after = {path.name: path.read_bytes() for path in (run_dir / "state").glob("*.state")}
    assert after == kept
    finish(["train", f"--resume={run_dir}"])
    assert_same_end(run_dir, undisturbed)
