"""The forecast of ``--dry_run``: its arithmetic, with fake clocks, and the timing of a tiny model.

A stage is the epochs of a training that have the same image size.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seedtf.errors import UserError
from seedtf.model.network import build_network
from seedtf.training.dry_run import timing as forecast_timing
from seedtf.training.dry_run.forecast import Forecast, StageTime, Writing
from seedtf.training.dry_run.timing import (
    MAX_STEPS,
    TimedStage,
    median_step,
    process_age,
    time_training,
)
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.trainer import Trainer

# In each epoch, training waits 0.5 s, files are written for 3 s beside the training, and other threads
# prolong the training by 1.5 s. A model file has 10 MB and a state file 25 MB.
WRITING = Writing(waiting=0.5, beside=3.0, slowing=1.5, checkpoint=10_000_000, state=25_000_000)
# Image size, number of epochs, seconds of training and of validation in an epoch, seconds of tracing.
STAGES = (StageTime(32, 4, 6.0, 2.0, 8.0), StageTime(48, 6, 15.0, 3.0, 12.0))


@pytest.fixture
def sample_forecast():
    return Forecast(STAGES, WRITING, startup=20.0, host_memory=2_500_000_000, cache=60_000_000)


def test_the_duration_of_a_training_is_the_sum_of_its_parts(sample_forecast):
    # Training + validation + waiting + slowing: 6 + 2 + 0.5 + 1.5, then 15 + 3 + 0.5 + 1.5.
    assert [sample_forecast.epoch_seconds(stage) for stage in sample_forecast.stages] == [
        10.0,
        20.0,
    ]
    assert sample_forecast.training_seconds == 4 * 10 + 8 + 6 * 20 + 12
    assert sample_forecast.seconds == 20 + 180 + 3


def test_an_epoch_takes_at_least_as_long_as_the_writing_beside_it(sample_forecast):
    slow = replace(sample_forecast, writing=replace(WRITING, beside=30.0))
    assert [slow.epoch_seconds(stage) for stage in slow.stages] == [30.5, 30.5]
    assert slow.seconds == 20 + 10 * 30.5 + 8 + 12 + 30


def test_disk_space_is_the_sum_of_the_files(sample_forecast):
    # There are two networks and two states, and room for a third state while it is written.
    assert sample_forecast.run_bytes == 2 * 10_000_000 + 2 * 25_000_000
    assert sample_forecast.disk_bytes == 70_000_000 + 25_000_000 + 60_000_000
    assert replace(sample_forecast, snapshots=3).run_bytes == 100_000_000


@pytest.fixture
def _utc():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_utc")
def test_a_forecast_prints_its_epochs_end_memory_and_disk_space(sample_forecast):
    now = 1_000_000_000.0  # 2001-09-09 01:46:40 UTC
    assert replace(sample_forecast, gpu_memory=1_000_000).lines(now) == [
        ("epoch", "10.00 s at 32² pixels (4 epochs): training 6.00, validation 2.00, writing 2.00"),
        (
            "epoch",
            "20.00 s at 48² pixels (6 epochs): training 15.00, validation 3.00, writing 2.00",
        ),
        (
            "end",
            "01:50 if started now: 0:03:23 for 10 epochs, including 0:00:20 before the first one",
        ),
        ("memory", "2.50 GB of main memory, 1.0 MB of the GPU at the peak"),
        (
            "disk",
            "70.0 MB in the run folder: 2 models of 10.0 MB, 2 states of 25.0 MB; cache file "
            "60.0 MB; 155.0 MB while a file is being replaced",
        ),
    ]
    long = replace(sample_forecast, startup=86_420.0)
    assert long.lines(now)[2][1].startswith("2001-09-10 01:50 if started now: 1 day, 0:03:23")


def test_the_json_has_the_measured_and_the_computed_values(sample_forecast):
    values = json.loads(sample_forecast.as_json())
    assert values["stages"][1]["train"] == 15.0
    assert values["epoch_seconds"] == [10.0, 20.0]
    assert values["seconds"] == sample_forecast.seconds
    assert values["disk_bytes"] == sample_forecast.disk_bytes


class Clock:
    """A fake clock, which stands still except when ``advance`` is called."""

    def __init__(self):
        self.now = 7.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        """Sets the clock forward; returns what a train step returns, its logs."""
        self.now += seconds
        return {"loss": 1.0}


@pytest.mark.parametrize(
    ("steps", "costs", "expected"),
    [
        # Four blocks of five steps take 10, 15, 20 and 100 s. The median of 2, 3, 4 and 20 s is 3.5 s.
        (20, [*[2] * 5, *[3] * 5, *[4] * 5, 96, *[1] * 4], 3.5),
        (7, [1, 1, 5, 5, 2, 2, 99], 2.0),  # three blocks of two steps; the seventh step is not run
        (2, [3, 5], 4.0),
        (1, [3], 3.0),
    ],
)
def test_the_duration_of_a_step_is_the_median_of_blocks(steps, costs, expected):
    clock, left = Clock(), iter(costs)
    assert median_step(lambda: clock.advance(next(left)), steps, clock) == expected


class FakeTrainer:
    """A trainer whose batches are the seconds that their steps take.

    Tracing takes 60 s in ``fit`` and 30 s in ``evaluate``.
    """

    def __init__(self, clock):
        self.clock = clock
        self.average = None
        self.optimizer = SimpleNamespace(learning_rate=1.0)
        self.distribute_strategy = tf.distribute.get_strategy()
        self.train_batches = []

    def fit(self, batches, **_):
        assert self.optimizer.learning_rate == 0.0
        return self.clock.advance(60.0)

    def evaluate(self, batches, **_):
        return self.clock.advance(30.0)

    def train_function(self, batches):
        self.train_batches.append(next(batches))
        return self.clock.advance(self.train_batches[-1])

    def test_function(self, batches):
        return self.clock.advance(next(batches))


@pytest.fixture
def _constant_writing(monkeypatch):
    """Replaces the timing of writing files and drawing figures by constant times."""
    monkeypatch.setattr(forecast_timing, "_time_writing", lambda trainer, clock: WRITING)
    monkeypatch.setattr(forecast_timing, "_drawing_seconds", lambda: 1.0)


@pytest.mark.usefixtures("_constant_writing")
def test_stages_are_timed_separately_and_warm_up_does_not_count():
    clock = Clock()
    trainer = FakeTrainer(clock)
    entered = []

    def stage(size, epochs, step, val):
        train = [1000.0] * 4 + [step] * 50  # the first four steps are warm-up
        validation = [val + 4.0] + [val] * 50
        return TimedStage(
            size, epochs, lambda: train, lambda: validation, lambda: entered.append(size)
        )

    forecast = time_training(
        trainer,
        [stage(32, 4, 2.0, 0.5), stage(48, 6, 3.0, 1.0)],
        steps_per_epoch=100,
        val_steps=11,
        startup=5.0,
        snapshots=2,
        cache=7,
        clock=clock,
    )
    assert entered == [32, 48]
    assert forecast.stages == (
        StageTime(32, 4, 200.0, 4.5 + 10 * 0.5, 90.0),
        StageTime(48, 6, 300.0, 5.0 + 10 * 1.0, 90.0),
    )
    # Figures are drawn in each epoch, because an epoch is longer than the pause between two drawings.
    # The 1.0 s of drawing is added to ``slowing``.
    assert forecast.writing == replace(WRITING, slowing=2.5)
    assert (forecast.startup, forecast.snapshots, forecast.cache) == (5.0, 2, 7)
    assert forecast.host_memory > 50_000_000
    assert forecast.steps == len(trainer.train_batches) - 2 * 4 <= MAX_STEPS


@pytest.mark.usefixtures("_constant_writing")
def test_a_validation_may_have_a_single_batch():
    clock = Clock()
    stage = TimedStage(32, 1, lambda: [1.0] * 30, lambda: [4.0])
    forecast = time_training(
        FakeTrainer(clock), [stage], steps_per_epoch=2, val_steps=1, startup=0.0, clock=clock
    )
    assert forecast.stages[0].validation == 4.0


@given(st.integers(1, MAX_STEPS))
def test_the_number_of_timed_steps_is_limited(num_stages):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast_timing, "_time_writing", lambda trainer, clock: WRITING)
        patch.setattr(forecast_timing, "_drawing_seconds", lambda: 1.0)
        clock = Clock()
        trainer = FakeTrainer(clock)
        stage = TimedStage(32, 1, lambda: itertools.repeat(1.0), lambda: itertools.repeat(1.0))
        stages = [stage] * num_stages
        forecast = time_training(
            trainer, stages, steps_per_epoch=9, val_steps=9, startup=0.0, clock=clock
        )
    assert forecast.steps == len(trainer.train_batches) - 4 * num_stages
    assert num_stages <= forecast.steps <= MAX_STEPS
    assert all(each.train == 9.0 and each.validation == 9.0 for each in forecast.stages)


def test_timing_a_real_model_leaves_no_file_and_no_changed_weight(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    keras.utils.set_random_seed(0)
    network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
    trainer = Trainer(network)
    trainer.compile_for(make_optimizer("adam", 1e30), jit_compile=False)
    kernel = network.trainable_weights[0].numpy()

    def batches():
        images, labels = np.zeros((8, 16, 16, 3), np.float32), np.zeros(8, np.int32)
        return tf.data.Dataset.from_tensors((images, labels)).repeat()

    started = time.perf_counter()
    forecast = time_training(
        trainer, [TimedStage(16, 2, batches, batches)], steps_per_epoch=10, val_steps=3, startup=1.0
    )
    elapsed = time.perf_counter() - started
    assert list(tmp_path.iterdir()) == []
    (stage,) = forecast.stages
    # The timing has traced the step once, run 20 steps, as many as two epochs have, and written once.
    assert 0 < 2 * stage.train + stage.tracing + forecast.writing.beside < elapsed
    assert stage.validation > 0
    assert forecast.steps == 20
    weight_bytes = sum(each.numpy().nbytes for each in network.variables)
    state_bytes = weight_bytes + sum(each.numpy().nbytes for each in trainer.optimizer.variables)
    assert weight_bytes < forecast.writing.checkpoint < weight_bytes + 200_000
    assert state_bytes < forecast.writing.state < state_bytes + 50_000
    assert forecast.gpu_memory is None or forecast.gpu_memory > 0
    # An update with the learning rate 1e30 would have changed the weights.
    assert np.array_equal(network.trainable_weights[0].numpy(), kernel)


def test_a_temporary_folder_that_cannot_be_written_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"^--dry_run: .*missing cannot be written \(No such"):
        forecast_timing._time_writing(SimpleNamespace(average=None), time.perf_counter)


def test_the_age_of_the_process_increases():
    first = process_age()
    assert 0 < first < 1e6
    assert process_age() >= first


def test_a_restart_of_fit_adds_to_every_epoch(sample_forecast):
    stages = tuple(replace(stage, restart=1.5) for stage in STAGES)
    restarted = replace(sample_forecast, stages=stages)
    assert [restarted.epoch_seconds(stage) for stage in stages] == [11.5, 21.5]
    assert "restart of fit 1.50, writing 2.00" in restarted.lines(0.0)[0][1]
    assert "restart of fit" not in sample_forecast.lines(0.0)[0][1]
