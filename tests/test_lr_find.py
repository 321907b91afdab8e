"""The learning-rate finder: its arithmetic, the restored state, and the whole command."""

from __future__ import annotations

import csv
import random
import re
import shutil
import subprocess
from pathlib import Path

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_run import draw_classes

from seedtf.commands.main import main
from seedtf.compat.keras import all_variables, metrics_variables, optimizer_variables
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.model.network import build_network
from seedtf.plots.lr_finder import draw_lr_sweep
from seedtf.training.lr_finder import run as lr_finder
from seedtf.training.lr_finder.finder import (
    LRSuggestion,
    LRSweep,
    lr_at,
    smooth_losses,
    suggest_lr,
    sweep_lr,
)
from seedtf.training.optim.ema import MovingAverage
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.setup import runtime_errors_as_user_errors
from seedtf.training.trainer import Trainer


def test_rates_are_equally_spaced_in_their_logarithm():
    assert [lr_at(step, 5, 1e-4, 1.0) for step in range(5)] == pytest.approx(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0], rel=1e-12
    )


def test_the_smoothed_loss_has_no_bias_at_its_start():
    # Computed by hand: 0.5·2 / 0.5, (0.5·1 + 0.5·4) / 0.75 and (0.5·2.5 + 0.5·0) / 0.875.
    assert smooth_losses([2.0, 4.0, 0.0], 0.5) == pytest.approx([2.0, 2.5 / 0.75, 1.25 / 0.875])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_smoothed_losses_lie_between_the_losses(losses):
    averages = smooth_losses(losses)
    assert len(averages) == len(losses)
    slack = 1e-9 * (1 + max(losses))
    assert all(min(losses) - slack <= each <= max(losses) + slack for each in averages)


def test_the_suggestions_are_the_steepest_point_and_a_tenth_of_the_lowest_point():
    # The loss is flat, then falls along a line with one steeper piece, then rises.
    rates = [lr_at(step, 101, 1e-5, 1.0) for step in range(101)]
    falls = [0.0] * 40 + [0.01] * 20 + [0.05] * 10 + [0.01] * 10 + [-0.2] * 20
    curve = [3.0, *(3.0 - np.cumsum(falls))]
    suggestion = suggest_lr(rates, curve)
    assert suggestion.tenth == pytest.approx(rates[80] / 10)
    assert suggestion.steepest == pytest.approx(rates[65])
    assert suggestion.lr == min(suggestion.steepest, suggestion.tenth)


def test_a_loss_that_rises_or_hardly_falls_suggests_nothing():
    rates = [lr_at(step, 30, 1e-5, 1.0) for step in range(30)]
    assert suggest_lr(rates, [2.0 + 0.1 * step for step in range(30)]) is None
    assert suggest_lr(rates, [2.0 - 1e-3 * step for step in range(30)]) is None
    assert suggest_lr(rates[:1], [2.0]) is None
    # The loss must fall by 2 % of its value after five steps: by 0.04. In the second curve above, it
    # falls by 0.024 only, and in the curve below by 0.12.
    assert suggest_lr(rates, [2.0 - 5e-3 * step for step in range(30)]) is not None


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60))
def test_suggestions_lie_within_the_sweep(curve):
    rates = [lr_at(step, 60, 1e-6, 1.0) for step in range(len(curve))]
    suggestion = suggest_lr(rates, curve)
    if suggestion is not None:
        rate_of_lowest_loss = rates[5 + int(np.argmin(curve[5:]))]
        assert suggestion.tenth == pytest.approx(rate_of_lowest_loss / 10)
        assert rates[0] <= suggestion.steepest <= rate_of_lowest_loss


def make_trainer(optimizer="adamw", average=False):
    keras.utils.set_random_seed(3)
    network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
    trainer = Trainer(network)
    if average:
        trainer.average = MovingAverage(network, 0.1, 100)
    trainer.compile_for(make_optimizer(optimizer, 1e-3), jit_compile=False)
    return trainer


def batches():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (24, 16, 16, 3)).astype(np.float32)
    labels = (np.arange(24) % 3).astype(np.int32)
    images[:, 0, 0, :] = 85.0 * labels[:, None]  # the first pixel shows the label
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8).repeat()


def all_values(trainer):
    variables = [
        *all_variables(trainer.network),
        *optimizer_variables(trainer.optimizer),
        *metrics_variables(trainer),
        *(trainer.average.variables if trainer.average else ()),
    ]
    rate = np.float32(trainer.optimizer.learning_rate).tobytes()
    return [each.numpy().tobytes() for each in variables] + [rate]


@pytest.fixture(scope="module", params=[("adamw", False), ("sgd", True)], ids=["adamw", "sgd, ema"])
def trained(request):
    """A trainer after some steps, so that none of its variables has its initial value."""
    trainer = make_trainer(*request.param)
    trainer.fit(batches(), steps_per_epoch=3, verbose=0, shuffle=False)
    return trainer


def test_a_sweep_restores_everything_that_it_changed(trained):
    before = all_values(trained)
    random.seed(1)
    np.random.seed(2)
    states = random.getstate(), np.random.get_state()[1].tobytes()
    sweep = sweep_lr(trained, batches(), start=1e-4, end=1.0, steps=12)
    assert len(sweep.losses) == 12 or sweep.stop_reason
    assert all_values(trained) == before
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states
    trained.fit(batches(), steps_per_epoch=2, verbose=0, shuffle=False)
    assert all_values(trained) != before  # fit changes the values that the sweep has restored


def test_a_sweep_records_the_loss_of_each_step_at_its_own_learning_rate():
    keras.utils.set_random_seed(0)
    trainer, reference = make_trainer("sgd"), make_trainer("sgd")
    sweep = sweep_lr(trainer, batches(), start=1e-3, end=0.1, steps=5)
    expected = []
    for step, (images, labels) in enumerate(batches().take(5)):
        reference.optimizer.learning_rate = lr_at(step, 5, 1e-3, 0.1)
        reference.reset_metrics()
        expected.append(float(reference.train_on_batch(images, labels, return_dict=True)["loss"]))
    assert sweep.losses == pytest.approx(expected, rel=1e-5)
    assert sweep.lrs == [lr_at(step, 5, 1e-3, 0.1) for step in range(5)]
    assert sweep.smoothed == smooth_losses(sweep.losses)
    assert sweep.stop_reason == ""


def test_a_sweep_stops_when_the_loss_diverges_and_leaves_finite_weights():
    trainer = make_trainer("sgd")
    sweep = sweep_lr(trainer, batches(), start=1.0, end=1e6, steps=60)
    assert len(sweep.losses) < 60
    assert "loss was" in sweep.stop_reason
    assert all(np.isfinite(sweep.losses))
    assert not trainer.stop_training
    assert all(np.isfinite(each.numpy()).all() for each in trainer.network.weights)


def test_a_first_loss_of_nan_is_an_error_and_leaves_the_weights_unchanged():
    trainer = make_trainer()
    trainer.compile(make_optimizer("adamw", 1e-3), loss=lambda label, output: output[:, 0] * np.nan)
    before = [each.numpy().tobytes() for each in all_variables(trainer.network)]
    with pytest.raises(UserError, match=r"^--start_lr=0\.001: the loss was nan"):
        sweep_lr(trainer, batches(), start=1e-3, end=1.0, steps=5)
    assert [each.numpy().tobytes() for each in all_variables(trainer.network)] == before


@pytest.mark.parametrize(("start", "end", "steps"), [(0, 1, 5), (1, 1, 5), (1e-3, 1, 1)])
def test_rates_and_steps_out_of_range_are_refused(start, end, steps):
    with pytest.raises(ValueError, match="0 < start < end"):
        sweep_lr(make_trainer(), batches(), start=start, end=end, steps=steps)


def test_the_plot_shows_the_falling_loss_and_the_suggestions():
    rates = [lr_at(step, 20, 1e-5, 1.0) for step in range(20)]
    losses = [2.0 - 0.05 * step for step in range(15)] + [50.0, 80.0, 90.0, 100.0, 1e9]
    sweep = LRSweep(rates, losses, losses)
    axes = draw_lr_sweep(sweep, LRSuggestion(1e-2, 1e-3), title="$x$").axes[0]
    labels = [line.get_label() for line in axes.get_lines()]
    assert "0.001: a tenth of the rate with the lowest loss (suggested)" in labels
    assert "0.01: where the loss falls fastest" in labels
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 3.0  # The diverging losses are cut off.


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_classes(tmp_path_factory.mktemp("lr_find") / "data", ["a", "b", "c"], per_class=12)


def lr_find(folder: Path, data: Path, *more: str) -> subprocess.CompletedProcess:
    flags = ["--model=tiny", "--weights=none", "--image_size=16", "--batch_size=8", *more]
    return forked.seedtf("lr_find", f"--data_dir={data}", *flags, cwd=folder)


def test_the_command_prints_a_flag_and_writes_plot_and_table(tmp_path, data):
    done = lr_find(tmp_path, data, "--start_lr=1e-5", "--steps=100", "--optimizer=adam")
    assert done.returncode == 0, done.stderr
    layout, first, *lines = done.stdout.splitlines()
    assert layout.startswith("layout    class folders in ")
    # Of the 12 images of each of 3 classes, 2 are for validation. The other 30 images make 3 batches of
    # 8 in an epoch.
    assert first.startswith("lr_find   9 steps of 8 images with adam, learning rates 1e-05 to 1")
    assert lines[0] == (
        "warning   --steps=100: cut to 9, the length of 3 epochs; fewer than 30 give a rough curve; "
        "lower --batch_size"
    )
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-lr_find")
    assert sorted(each.name for each in folder.iterdir()) == ["lr_find.csv", "lr_find.png"]
    assert 1e-7 < float(lines[-1].removeprefix("--lr=")) < 1.0
    assert done.stderr == ""
    with (folder / "lr_find.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    assert float(rows[0]["lr"]) == 1e-5
    losses = [float(row["loss"]) for row in rows]
    assert [float(row["smoothed_loss"]) for row in rows] == smooth_losses(losses)
    with Image.open(folder / "lr_find.png") as image:
        assert image.size[0] > 500


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--end_lr=1e-9", "--end_lr=1e-09: is not above --start_lr=1e-07"),
        ("--resume=runs/x", "--resume=runs/x: lr_find does not resume a run"),
        ("--dry_run", "--dry_run=True: lr_find has no dry run"),
        ("--steps=3", "--steps=3: out of range"),
        ("--out=run", "--out=run: is the folder of a run"),
    ],
)
def test_wrong_flags_are_refused_by_name(flag, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert main(["lr_find", "--data_dir=sample", flag]) == 2
    assert capsys.readouterr().err.startswith(f"seedtf lr_find: {message}")


def tiny_config(data: Path, **flags) -> TrainConfig:
    # The fused augmentation takes seconds to compile, and nothing here depends on it.
    quick = {"augment_impl": "tf_image", "model": "tiny", "weights": "none"}
    given = {**quick, "image_size": 16, "batch_size": 8, **flags}
    return TrainConfig(data_dir=str(data), **given)


def test_the_flags_of_a_run_are_read_and_unused_ones_reported(tmp_path, data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(data, freeze_epochs=1, progressive_sizes="12", run_dir="mine")
    Path("flags.txt").write_text(config.to_flagfile())
    # These learning rates are so low that the loss cannot fall.
    rates = ["--start_lr=1e-12", "--end_lr=1e-11", "--out=out"]
    assert main(["lr_find", "--flagfile=flags.txt", "--run_dir=mine", *rates]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:2] == [
        "not used  --freeze_epochs, --progressive_sizes: lr_find trains the whole network at 16×16 on "
        "one device",
        "not used  --run_dir: lr_find makes no run; its results go to --out",
    ]
    assert shown.err == (
        "seedtf lr_find: --batch_size=8: the loss never fell in 9 steps, the length of 3 epochs "
        "(see out/lr_find.png); lower --batch_size\n"
    )
    assert sorted(path.name for path in Path("out").iterdir()) == ["lr_find.csv", "lr_find.png"]
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("requested", "num_steps", "message"),
    [
        (100, 100, ""),
        (100, 45, "--steps=100: cut to 45, the length of 3 epochs; lower --batch_size"),
        (10, 10, "--steps=10: fewer than 30 give a rough curve; pass more"),
    ],
)
def test_few_steps_give_a_warning(requested, num_steps, message, capsys):
    lr_finder._warn_if_few(requested, num_steps)
    assert capsys.readouterr().out == (f"warning   {message}\n" if message else "")


@pytest.mark.parametrize("stop_reason", ["", "the loss was nan at a rate of 1.00e-03"])
def test_a_higher_end_is_advised_only_if_the_sweep_reached_its_end(stop_reason, capsys):
    losses = [2.0 - 0.1 * step for step in range(10)]
    rates = [lr_at(step, 10, 1e-5, 1.0) for step in range(10)]
    sweep = LRSweep(rates, losses, losses, stop_reason)
    lr_finder._report_suggestion(sweep, LRSuggestion(1e-3, 1e-3))
    assert ("a higher --end_lr shows more" in capsys.readouterr().out) == (not stop_reason)


def test_a_folder_that_cannot_be_written_is_refused_before_the_sweep(
    tmp_path, data, monkeypatch, capsys
):
    monkeypatch.setattr(
        lr_finder, "_sweep", lambda *_: pytest.fail("the sweep was run for nothing")
    )
    (tmp_path / "file").touch()
    out_dir = tmp_path / "file" / "below"
    assert main(["lr_find", f"--data_dir={data}", f"--out={out_dir}"]) == 2
    assert capsys.readouterr().err == (
        f"seedtf lr_find: --out={out_dir}: Not a directory; pass another folder\n"
    )


def test_a_sweep_that_fails_leaves_no_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for out_dir in ("", "new", "mine"):
        with pytest.raises(UserError, match=r"^--data_dir=.*missing: no such folder"):
            lr_finder.find_learning_rate(
                TrainConfig(data_dir="missing"), start=1e-5, end=1.0, steps=10, out=out_dir
            )
    # For the empty name, a folder was made in runs/. This folder has been removed, and runs/ is left.
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "runs"]


def test_an_image_that_became_unreadable_is_named(data, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    load, config = lr_finder.load_training_data, tiny_config(folder, cache="off")

    def load_then_truncate(config):
        dataset = load(config)
        for path in folder.rglob("*.png"):
            path.write_bytes(path.read_bytes()[:60])
        return dataset

    monkeypatch.setattr(lr_finder, "load_training_data", load_then_truncate)
    with pytest.raises(UserError, match=r"became unreadable during .* restore it or remove it"):
        lr_finder.find_learning_rate(
            config, start=1e-5, end=1.0, steps=10, out=str(tmp_path / "out")
        )


def test_out_of_memory_gives_a_one_line_error(data, tmp_path, monkeypatch):
    def out_of_memory(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(lr_finder, "sweep_lr", out_of_memory)
    with pytest.raises(UserError, match=r"^--batch_size=8: out of memory; lower it"):
        lr_finder.find_learning_rate(
            tiny_config(data), start=1e-5, end=1.0, steps=10, out=str(tmp_path / "out")
        )


def test_only_an_error_in_a_run_folder_suggests_to_resume_the_run(data):
    config = tiny_config(data)
    message = r"^--run_dir=r: cannot be written .* --resume=r$"
    with (
        pytest.raises(UserError, match=message),
        runtime_errors_as_user_errors(config, None, Path("r")),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"), runtime_errors_as_user_errors(config, None):
        raise OSError(28, "No space left on device")


def test_help_starts_with_the_flags_of_lr_find_and_omits_the_flags_it_refuses(capsys):
    with pytest.raises(SystemExit):
        main(["lr_find", "--help"])
    flags = re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert flags[:5] == ["start_lr", "end_lr", "steps", "out", "data_dir"]
    assert not {"resume", "dry_run"} & set(flags)
