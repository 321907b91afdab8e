"""``seedtf benchmark step``, ``epoch`` and ``startup``; the parts of an epoch add up to its time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time

import forked
import pytest

from seedtf.benchmark import epoch, startup
from seedtf.benchmark.epoch import Epoch, best_flag
from seedtf.commands.benchmark_epoch import EpochConfig
from seedtf.commands.benchmark_startup import StartupConfig
from seedtf.commands.main import main
from seedtf.errors import UserError

EPOCH = Epoch(
    epochs=3,
    steps=10,
    images=320,
    seconds=10.0,
    step=9.0,
    wait=0.1,
    loop=0.2,
    validation=0.5,
    callbacks=0.2,
    read=0.1,
    decode=2.0,
    augment=0.5,
    decodes_every_epoch=False,
    device="cpu",
    precision="float32",
    image_size=150,
)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({}, "--image_size=100"),
        ({"image_size": 32}, "--model"),
        ({"loop": 3.0}, "--batch_size"),
        ({"device": "gpu"}, "--precision=mixed_bfloat16"),
        ({"device": "gpu", "precision": "mixed_bfloat16"}, "--image_size=100"),
        ({"validation": 4.0}, "--val_fraction"),
        ({"wait": 2.0}, "--placement=device"),
        ({"wait": 2.0, "augment": 0.0}, "--cache=ram"),
        ({"wait": 2.0, "decodes_every_epoch": True}, "--cache=disk"),
    ],
)
def test_the_recommended_flag_depends_on_which_part_of_an_epoch_takes_long(changes, flag) -> None:
    assert best_flag(dataclasses.replace(EPOCH, **changes)).startswith(f"{flag}:")


def test_the_training_ratio_leaves_out_validation() -> None:
    assert EPOCH.training_ratio == pytest.approx(9.5 / 9.0)


@pytest.mark.parametrize(("num_steps", "expected"), [(4, 4.0), (9, 5.0)])
def test_the_time_of_a_bare_step_is_the_mean_of_the_steps_that_start_within_the_limit(
    monkeypatch: pytest.MonkeyPatch, num_steps: int, expected: float
) -> None:
    # The first two steps warm up. The limit of 20 s ends the measurement after the step of 9 s.
    now, durations = 0.0, iter([50.0, 50.0, 1.0, 1.0, 1.0, 13.0, 9.0, 1.0, 1.0])

    def work() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(epoch.time, "perf_counter", lambda: now)
    monkeypatch.setattr(epoch, "_MAX_BARE_SECONDS", 20.0)
    assert epoch._measure_mean_seconds(work, num_steps) == expected


@pytest.mark.usefixtures("without_figures")
def test_epochs_are_measured_and_their_parts_add_up(tiny_folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr(epoch, "_ROUND_SECONDS", 0.05)
    flags = ["--model=tiny", "--image_size=16", "--batch_size=4", "--epochs=1", "--json"]
    assert main(["benchmark", "epoch", f"--data_dir={tiny_folder}", *flags]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["epochs"], result["steps"], result["images"]) == (1, 3, 12)
    # seedtf is based on a Kaggle solution, which needed 125 s for an epoch.
    assert (result["original_seconds"], result["original_card"]) == (125.0, "GTX 1080 Ti")
    parts = sum(result[name] for name in ("step", "wait", "loop", "validation", "callbacks"))
    assert parts == pytest.approx(result["seconds"], rel=1e-3)
    assert all(result[name] > 0 for name in ("step", "validation", "read", "decode", "seconds"))
    assert result["flag"].startswith("--")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"run_dir": "runs/x"}, "--run_dir=runs/x: the benchmark trains in a temporary folder"),
        ({"resume": "runs/x"}, "--resume=runs/x: the benchmark trains a new run"),
        ({"continue_from": "runs/x"}, "--continue_from=runs/x: the benchmark trains a new run"),
        ({"dry_run": True}, "--dry_run=True: a dry run does not train"),
        ({"patience": 2}, "--patience=2: may end the training before all epochs"),
        ({"time_limit": 0.5}, "--time_limit=0.5: may end the training before all epochs"),
    ],
)
def test_flags_that_the_epoch_benchmark_cannot_use_are_refused(flags, message) -> None:
    with pytest.raises(UserError) as error:
        EpochConfig(data_dir="d", **flags)
    assert str(error.value).startswith(message)


def test_steps_are_measured_in_separate_processes(capsys) -> None:
    flags = ["--model=tiny", "--image_size=16", "--batch_size=4", "--rounds=2", "--steps=2"]
    assert main(["benchmark", "step", *flags, "--json"]) == 0
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert step["variant"].startswith("seedtf, 16²")
    assert step["images_per_second"] == pytest.approx(4 / step["milliseconds"] * 1e3)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--image_size=96,", "--image_size=96,: pass whole numbers from 8 to 2048"),
        ("--image_size=4", "--image_size=4: pass whole numbers from 8 to 2048"),
        ("--image_size=²", "--image_size=²: pass whole numbers from 8 to 2048"),
        ("--precision=float8", "--precision=float8: choose from auto, float32"),
        ("--jit_compile=yes", "--jit_compile=yes: choose from auto, on, off"),
        ("--model=resnet51", "--model=resnet51 is not a known network"),
    ],
)
def test_a_wrong_flag_of_benchmark_step_gives_a_one_line_error(flag, message, capsys) -> None:
    assert main(["benchmark", "step", flag]) == 2
    assert message in capsys.readouterr().err


def test_the_stock_network_refuses_an_image_that_is_too_small_for_it() -> None:
    from seedtf.benchmark.step import Variant, make_step

    with pytest.raises(UserError, match="--image_size=16 is too small for --model=ResNet50"):
        make_step(Variant("resnet50", 16, batch_size=1, stock=True))


def test_memory_growth_compares_the_last_quarter_of_the_epochs_with_the_second() -> None:
    warm = [100, 900, *[1000] * 7, *[1010] * 3]
    assert startup.Growth(tuple(warm)).fraction == pytest.approx(0.01)
    assert startup.Growth((5, 7, 100, 110)).fraction == pytest.approx(0.1)


@pytest.mark.usefixtures("forked_subprocesses")
def test_memory_is_recorded_at_every_epoch(tiny_folder) -> None:
    flags = [f"--data_dir={tiny_folder}", "--model=tiny", "--weights=none", "--image_size=16"]
    grown = startup.measure_growth([*flags, "--batch_size=4", "--augment_impl=tf_image"], 2)
    assert len(grown.sizes) == 2
    assert all(size > 50 << 20 for size in grown.sizes)


@pytest.mark.usefixtures("forked_subprocesses")
def test_a_cache_is_measured_against_a_decode_pass(tiny_folder) -> None:
    built = startup.measure_cache_build(str(tiny_folder), 16, "ram", rounds=1)
    assert built.decoded_bytes == 18 * 16 * 16 * 3
    assert built.ratio == pytest.approx(built.seconds / built.pass_seconds)


def test_a_benchmark_process_that_fails_gives_a_one_line_error() -> None:
    with pytest.raises(UserError, match=r"a benchmark process failed: .*No module named .*absent"):
        startup._run("absent")


def test_the_start_is_measured_up_to_the_end_of_the_first_step(
    tiny_folder, tmp_path, monkeypatch
) -> None:
    flags = [
        f"--data_dir={tiny_folder}",
        "--model=tiny",
        "--weights=none",
        "--image_size=16",
        "--batch_size=4",
    ]
    before = time.time()
    seedtf_ended = startup._run("train", "first_step", *flags, f"--run_dir={tmp_path / 'run'}")
    # One new interpreter is enough for this test.
    monkeypatch.setattr(subprocess, "run", forked.run_python)
    keras_ended = startup._run("plain_keras", "VGG16", "32", "4", "3")
    assert before < seedtf_ended < keras_ended < time.time()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_startup_without_data_dir_is_refused(capsys) -> None:
    assert main(["benchmark", "startup"]) == 2
    assert "--data_dir is missing" in capsys.readouterr().err


@pytest.mark.parametrize("epochs", [1, 3])
def test_too_few_epochs_to_measure_growth_are_refused(epochs: int) -> None:
    with pytest.raises(UserError, match=f"^--epochs={epochs}: too few .*; pass 4 or more, or 0"):
        StartupConfig(data_dir="d", epochs=epochs)
    assert [StartupConfig(data_dir="d", epochs=allowed).epochs for allowed in (0, 4)] == [0, 4]
