"""The flags of training have their effect: whole runs of a tiny network on tiny images show it."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from figures import replace_figures

from seedtf.commands.main import main
from seedtf.compat.keras import all_variables
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.errors import StoppedError, UserError
from seedtf.model.network import load_model
from seedtf.runs.history import read_history
from seedtf.training import train
from seedtf.training.batches import TrainBatches
from seedtf.training.callbacks import SaveState, learning_rate
from seedtf.training.machine import inspect_machine
from seedtf.training.plan import Plan, make_plan
from seedtf.training.resolve import resolve
from seedtf.training.setup import load_training_data
from seedtf.training.state import TrainState, read_state
from seedtf.training.train import train_and_evaluate
from seedtf.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_figures")

SIZE = 16
PLAIN = {
    "recipe": "original",
    "model": "tiny",
    "weights": "none",
    "image_size": SIZE,
    "val_fraction": 0.3,  # 2 of the 6 images of each class
    "batch_size": 4,
    "epochs": 2,
    "optimizer": "sgd",
    "lr": 0.05,
    "precision": "float32",
    "strategy": "none",
}
STEPS_PER_EPOCH = 3
"""An epoch has 12 training images in batches of 4."""
QUICK = {"augment_impl": "tf_image"}
"""The default augmentation is slower in short runs, because each run has to compile it."""


@pytest.fixture
def config(tiny_folder: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(data_dir=str(tiny_folder), run_dir=str(tmp_path / "run"), **PLAIN)


def run_training(config: TrainConfig, **changes: Any) -> Path:
    """Trains and returns the run folder."""
    return Path(train_and_evaluate(dataclasses.replace(config, **changes)).run_dir)


def state_after(run_dir: Path, epoch: int) -> TrainState:
    return read_state(run_dir / "state" / f"{epoch:06d}-00000000.state")


def saved_weights(run_dir: Path, name: str) -> list[np.ndarray]:
    return [each.numpy() for each in all_variables(load_model(run_dir / "checkpoints" / name))]


def are_equal(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


# --- moving average of the weights, and snapshots ----------------------------------------------


def test_weights_are_averaged_at_every_step_and_the_average_is_saved(config: TrainConfig) -> None:
    result = train_and_evaluate(dataclasses.replace(config, ema_horizon=0.5, **QUICK))
    run_dir, best = Path(result.run_dir), result.best_epoch
    for epoch in (1, 2):
        *average, num_steps = state_after(run_dir, epoch).arrays["average"]
        assert num_steps == epoch * STEPS_PER_EPOCH
        # Every weight changes in every step, so none is equal to its average.
        weights = state_after(run_dir, epoch).arrays["weights"]
        assert not any(np.array_equal(a, b) for a, b in zip(weights, average, strict=True))
    for name, epoch in (("last.keras", 2), ("best.keras", best)):
        *average, _ = state_after(run_dir, epoch).arrays["average"]
        assert are_equal(saved_weights(run_dir, name), average)


def test_a_run_keeps_a_snapshot_at_the_end_of_every_cycle(config: TrainConfig) -> None:
    cyclic = {"schedule": "cyclic", "cycle_epochs": 1.5, "snapshots": True}
    run_dir = run_training(config, epochs=3, **cyclic, **QUICK)
    kept = sorted(path.name for path in (run_dir / "checkpoints").glob("snapshot-*"))
    # The rate is set once an epoch. Epoch 2, where the first cycle ends, has the cycle's lowest rate.
    assert kept == ["snapshot-0002.keras", "snapshot-0003.keras"]
    for epoch, name in ((2, kept[0]), (3, kept[1])):
        assert are_equal(
            saved_weights(run_dir, name), state_after(run_dir, epoch).arrays["weights"]
        )


# --- the contents of a batch -------------------------------------------------------------------


def plan_and_dataset(config: TrainConfig) -> tuple[Plan, Dataset]:
    """The plan and the data of the run that ``config`` describes."""
    settings = resolve(config, inspect_machine())
    dataset = load_training_data(settings.config)
    return make_plan(settings, dataset), dataset


def network_batches(
    config: TrainConfig, *, steps: int, start: int = 0
) -> list[tuple[np.ndarray, ...]]:
    """Training batches as the network gets them."""
    batches = TrainBatches(*plan_and_dataset(config))
    prepare = batches.make_prepare(SIZE) or (lambda batch: batch)
    pipeline = batches.train(SIZE, start).take(steps)
    prepared = [prepare(tf.nest.map_structure(tf.identity, batch)) for batch in pipeline]
    return [tuple(np.asarray(part) for part in parts) for parts in prepared]


@pytest.mark.parametrize("placement", ["host", "device"])
@pytest.mark.parametrize("flag", ["mixup", "cutmix"])
def test_mixed_labels_have_two_classes(config: TrainConfig, flag: str, placement: str) -> None:
    mixed = dataclasses.replace(config, placement=placement, batch_size=12, **{flag: 5.0})
    ((images, labels),) = network_batches(mixed, steps=1)
    assert labels.shape == (12, 3)
    assert labels.sum(1) == pytest.approx(np.ones(12), abs=1e-6)
    assert ((labels > 0).sum(1) == 2).sum() >= 3
    # Each image of the data has one colour. So two colours show that CutMix has joined two images.
    varied = np.ptp(images, axis=(1, 2)).max(1) > 5
    assert varied.any() == (flag == "cutmix")


def test_a_balanced_epoch_draws_every_class_equally_often(
    config: TrainConfig, tiny_copy: Path
) -> None:
    # The classes have 2, 3 and 6 images, of which 1, 2 and 4 are training images.
    first, second, _ = sorted(path for path in tiny_copy.iterdir())
    for path in [*sorted(first.iterdir())[2:], *sorted(second.iterdir())[3:]]:
        path.unlink()
    one_by_one = dataclasses.replace(config, data_dir=str(tiny_copy), batch_size=1)

    def counts(sampler: str) -> list[int]:
        chosen = dataclasses.replace(one_by_one, sampler=sampler)
        steps = len(plan_and_dataset(chosen)[1].split.train)
        labels = [int(labels[0]) for _, labels in network_batches(chosen, steps=steps)]
        return np.bincount(labels, minlength=3).tolist()

    assert counts("shuffle") == [1, 2, 4]
    assert sorted(counts("balanced")) == [2, 2, 3]


# --- strength of the augmentation that changes from epoch to epoch ------------------------------

BatchesByStart = dict[int, list[np.ndarray]]


@pytest.fixture
def produced_images(monkeypatch: pytest.MonkeyPatch) -> BatchesByStart:
    """The image batches of every training dataset, by the step at which the dataset starts."""
    produced: BatchesByStart = {}
    real = TrainBatches.train

    def recorded_train(self: TrainBatches, size: int, start_step: int) -> tf.data.Dataset:
        batches = produced.setdefault(start_step, [])

        def record(images: np.ndarray) -> np.ndarray:
            batches.append(images.copy())
            return images

        def record_batch(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            same = tf.numpy_function(record, [images], tf.float32)
            return tf.ensure_shape(same, images.shape), labels

        return real(self, size, start_step).map(record_batch)

    monkeypatch.setattr(TrainBatches, "train", recorded_train)
    return produced


def replace_controller(monkeypatch: pytest.MonkeyPatch, rule: Callable[[Any], float]) -> None:
    """Lets ``rule`` compute the strength of an epoch from the history rows before it."""
    monkeypatch.setattr(learning_rate, "next_strength", lambda rows, epochs, *, mixed: rule(rows))


def test_each_epoch_is_augmented_with_its_own_strength_and_records_it(
    config: TrainConfig, produced_images: BatchesByStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    strengths = [2.0, 0.0, 0.25]
    replace_controller(monkeypatch, lambda rows: strengths[len(rows)])
    config = dataclasses.replace(config, epochs=3, **QUICK)
    run_dir = run_training(config, augment_strength="auto")
    rows = read_history(run_dir / "history.csv")
    assert [row["augment_strength"] for row in rows] == strengths
    for epoch, strength in enumerate(strengths):
        for factor, is_equal in ((strength, True), (0.5, False)):
            fixed = dataclasses.replace(config, augment_strength=factor)
            start = epoch * STEPS_PER_EPOCH
            expected = network_batches(fixed, steps=STEPS_PER_EPOCH, start=start)
            # The pipeline may have prefetched more batches than were used.
            used = produced_images[start][:STEPS_PER_EPOCH]
            for found, (images, _) in zip(used, expected, strict=True):
                assert (np.abs(found - images).max() < 0.5) == is_equal


def test_augmentation_in_the_train_step_follows_the_strength(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def losses(strengths: list[float]) -> list[float]:
        replace_controller(monkeypatch, lambda rows: strengths[len(rows)])
        run_dir = str(tmp_path / str(strengths))
        return validation_losses(
            run_training(config, run_dir=run_dir, placement="device", augment_strength="auto")
        )

    rising, constant = losses([0.0, 2.0]), losses([0.0, 0.0])
    assert rising[0] == constant[0]
    assert rising[1] != constant[1]


def test_a_stopped_run_with_a_changing_strength_resumes_exactly(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The strength differs in every epoch and depends on all losses before it.
    replace_controller(
        monkeypatch, lambda rows: round(0.2 + 2 * sum(row["loss"] for row in rows) % 1, 4)
    )
    auto = dataclasses.replace(config, epochs=4, augment_strength="auto", **QUICK)
    whole = run_training(auto, run_dir=str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_before(patch, epoch=2, step=1)
        with pytest.raises(StoppedError, match="step 1 of epoch 3"):
            run_training(auto)
    run_training(TrainConfig(resume=auto.run_dir))
    found = Path(auto.run_dir) / "history.csv"
    assert found.read_bytes() == (whole / "history.csv").read_bytes()
    assert len({row["augment_strength"] for row in read_history(found)}) == 4
    resumed, wanted = state_after(found.parent, 4).arrays, state_after(whole, 4).arrays
    assert are_equal(resumed["weights"], wanted["weights"])


def stop_before(patch: pytest.MonkeyPatch, *, epoch: int, step: int) -> None:
    """Makes the next training send SIGTERM to this process before the given step of an epoch."""
    real = SaveState.on_train_batch_begin

    def stopping(self: SaveState, batch: int, logs: Any = None) -> None:
        if (self._position.epoch, batch) == (epoch, step):
            signal.raise_signal(signal.SIGTERM)
        real(self, batch, logs)

    patch.setattr(SaveState, "on_train_batch_begin", stopping)


# --- flags that change what is learned ---------------------------------------------------------


@pytest.fixture(scope="module")
def plain_run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    config = TrainConfig(data_dir=str(tiny_folder), run_dir=str(run_dir), **PLAIN, **QUICK)
    with pytest.MonkeyPatch.context() as patch:
        replace_figures(patch.setattr)
        return run_training(config)


def validation_losses(run_dir: Path) -> list[float]:
    """The validation loss of each epoch; the flags below affect it only through the weights."""
    return [row["val_loss"] for row in read_history(run_dir / "history.csv")]


@pytest.mark.parametrize(
    "flags",
    [
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"label_smoothing": 0.2},
        {"clip_norm": 0.01},
        {"class_weights": "alder:4"},
        {"body_lr_factor": 0.1},
        {"sampler": "balanced"},
    ],
    ids=lambda flags: next(iter(flags)),
)
def test_a_flag_changes_what_is_learned(
    config: TrainConfig, plain_run: Path, flags: dict[str, Any]
) -> None:
    found = validation_losses(run_training(config, **QUICK, **flags))
    assert all(
        abs(a - b) > 1e-4 * b for a, b in zip(found, validation_losses(plain_run), strict=True)
    )


# --- --dry_run ---------------------------------------------------------------------------------


def test_a_dry_run_times_a_few_steps_and_leaves_nothing(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    temporary, working_dir = tmp_path / "temporary", tmp_path / "working"
    for folder in (temporary, working_dir):
        folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir(working_dir)
    num_steps = record_num_steps(monkeypatch)
    flags = {**PLAIN, **QUICK, "data_dir": tiny_folder, "progressive_sizes": 12, "cycle_epochs": 1}
    given = [f"--{name}={value}" for name, value in flags.items()]
    assert main(["train", "--dry_run", *given, "--snapshots"]) == 0
    assert list(working_dir.iterdir()) == []
    # TensorFlow removes its generated files only when the process ends.
    assert [path for path in temporary.iterdir() if "autograph" not in path.name] == []

    lines = capsys.readouterr().out.splitlines()
    assert "run       none, because a dry run trains nothing" in lines
    *printed, last = lines[-6:]
    assert [line.split()[0] for line in printed] == ["epoch", "epoch", "end", "memory", "disk"]
    assert "at 12² pixels (1 epoch)" in printed[0] and "at 16² pixels (1 epoch)" in printed[1]
    assert "for 2 epochs" in printed[2]
    assert "4 models of" in printed[4]
    found = json.loads(last.removeprefix("RESULT "))
    assert [stage["size"] for stage in found["stages"]] == [12, 16]
    assert all(stage["train"] > 0 and stage["validation"] > 0 for stage in found["stages"])
    assert found["seconds"] > sum(found["epoch_seconds"]) > 0
    assert found["disk_bytes"] > found["run_bytes"] > 0
    assert found["snapshots"] == 2
    assert 1 <= found["steps"] <= 20
    # More steps are trained than timed, because the first steps of each stage trace and warm up.
    assert 0 < num_steps[0] - found["steps"] <= 2 * 6


def test_only_forecast_training_accepts_the_flag_dry_run_and_requires_it(
    config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^--dry_run: train_and_evaluate .* forecast_training"):
        train_and_evaluate(dataclasses.replace(config, dry_run=True))
    with pytest.raises(UserError, match=r"^--dry_run: forecast_training .* train_and_evaluate"):
        train.forecast_training(config)
    assert not list(tmp_path.iterdir())


def record_num_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which every later dry run appends the number of steps that it trained."""
    num_steps: list[int] = []
    real = train.time_training

    def counted(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        result = real(trainer, *args, **kwargs)
        num_steps.append(int(trainer.optimizer.iterations))
        return result

    monkeypatch.setattr(train, "time_training", counted)
    return num_steps


def test_a_dry_run_does_not_create_the_run_folder(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {**PLAIN, **QUICK, "data_dir": config.data_dir, "run_dir": config.run_dir}
    assert main(["train", "--dry_run", *(f"--{k}={v}" for k, v in flags.items())]) == 0
    assert not Path(config.run_dir).exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("RESULT {")
