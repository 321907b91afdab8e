"""Learning-rate schedules: values computed by hand, properties for any settings, refused settings."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.config.optim_flags import SCHEDULES
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.training.optim.schedules import (
    cosine,
    cyclic_decay,
    make_schedule,
    one_cycle,
    smooth_decay,
    with_warmup,
)

EPOCHS = st.floats(-10, 1000)


@st.composite
def settings_of_a_schedule(draw):
    lr = draw(st.floats(1e-6, 10))
    return {
        "lr": lr,
        "min_lr": lr * draw(st.floats(1e-6, 1)),
        "epochs": draw(st.floats(0.5, 300)),
        "cycle_epochs": draw(st.floats(0.1, 100)),
        "cycle_decay": draw(st.floats(0.01, 1)),
    }


def rates_at(schedule, epochs):
    return [schedule(epoch) for epoch in epochs]


def test_cyclic_decay_has_the_values_computed_by_hand():
    def rate(epoch):
        return cyclic_decay(epoch, lr=1.0, min_lr=0.2, cycle_epochs=10, cycle_decay=0.5)

    # The peaks are 1.0, 0.5, 0.25 and then min_lr, 0.2. Half-way through a cycle, the rate is half-way
    # between its peak and min_lr.
    assert rates_at(rate, [0, 5, 10, 15, 20, 25, 30, 35]) == pytest.approx(
        [1.0, 0.6, 0.5, 0.35, 0.25, 0.225, 0.2, 0.2]
    )
    assert rate(2.5) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert rate(9.999) == pytest.approx(0.2, abs=1e-6)


def test_smooth_decay_has_the_values_computed_by_hand():
    def rate(epoch):
        return smooth_decay(epoch, lr=1.0, min_lr=0.01, epochs=10)

    assert rates_at(rate, [0, 2.5, 5, 7.5, 10]) == pytest.approx(
        [1.0, 0.1**0.5, 0.1, 0.1**1.5, 0.01]
    )


def test_one_cycle_has_the_values_computed_by_hand():
    def rate(epoch):
        return one_cycle(epoch, lr=1.0, min_lr=0.0, epochs=10)

    # The rate rises linearly from lr / 25 to lr in the first 30 % of the epochs, and then falls as a
    # cosine does.
    assert rates_at(rate, [0, 1.5, 3, 6.5, 10]) == pytest.approx([0.04, 0.52, 1.0, 0.5, 0.0])


def test_cosine_has_the_values_computed_by_hand():
    def rate(epoch):
        return cosine(epoch, lr=1.0, min_lr=0.2, epochs=4)

    assert rates_at(rate, [0, 2, 4]) == pytest.approx([1.0, 0.6, 0.2])


def test_warmup_is_linear_and_starts_at_a_hundredth_of_the_rate_at_its_end():
    rate = with_warmup(lambda epoch: 1.0 if epoch < 4 else 0.5, 2)
    assert rates_at(rate, [0, 1, 2, 3, 4]) == pytest.approx([0.01, 0.505, 1.0, 1.0, 0.5])


def test_warmup_rises_to_the_rate_of_the_schedule_at_the_end_of_the_warmup():
    rate = make_schedule("cosine", lr=1.0, min_lr=0.0, epochs=10, warmup_epochs=5)
    assert rates_at(rate, [0, 2.5, 5, 10]) == pytest.approx([0.005, 0.2525, 0.5, 0.0], abs=1e-12)


def test_no_warmup_returns_the_schedule_itself():
    schedule = make_schedule("cosine", lr=1.0, min_lr=0.0, epochs=10)
    assert with_warmup(schedule, 0) is schedule


@pytest.mark.parametrize(
    ("name", "first_rate", "last_rate"),
    [
        ("cyclic", 1.0, 0.1),
        ("smooth", 1.0, 0.1),
        ("one_cycle", 0.1, 0.1),
        ("cosine", 1.0, 0.1),
        ("constant", 1.0, 1.0),
    ],
)
def test_outside_of_training_the_rate_is_the_first_or_the_last_one(name, first_rate, last_rate):
    rate = make_schedule(name, lr=1.0, min_lr=0.1, epochs=10, cycle_epochs=5, cycle_decay=0.5)
    assert rates_at(rate, [-3, 0]) == pytest.approx([first_rate, first_rate])
    assert rates_at(rate, [10, 11, 1000]) == pytest.approx([last_rate, last_rate, last_rate])


def test_make_schedule_forwards_the_cycle_settings():
    rate = make_schedule(
        "cyclic", lr=1.0, min_lr=0.0, epochs=20, warmup_epochs=1, cycle_epochs=4, cycle_decay=0.5
    )
    assert rates_at(rate, [4, 6, 8]) == pytest.approx([0.5, 0.25, 0.25])
    assert rate(0) < 0.01


@given(st.sampled_from(SCHEDULES), settings_of_a_schedule(), EPOCHS)
def test_without_warmup_every_rate_lies_between_min_lr_and_lr(name, settings, epoch):
    value = make_schedule(name, **settings)(epoch)
    assert settings["min_lr"] <= value <= settings["lr"]


@given(st.sampled_from(SCHEDULES), settings_of_a_schedule(), EPOCHS, st.floats(0.01, 0.99))
def test_a_rate_with_warmup_is_above_zero_and_at_most_lr(name, settings, epoch, fraction):
    rate = make_schedule(name, **settings, warmup_epochs=fraction * settings["epochs"])
    assert 0 < rate(epoch) <= settings["lr"]


@given(settings_of_a_schedule(), st.integers(0, 20), st.floats(0.001, 0.999))
def test_a_cycle_is_continuous_and_falls(settings, cycle, fraction):
    del settings["epochs"]
    length = settings["cycle_epochs"]
    rate = cyclic_decay((cycle + fraction) * length, **settings)
    later_rate = cyclic_decay((cycle + fraction + 1e-4) * length, **settings)
    # The slope of the cosine over [0, 1] is at most pi / 2; the added term allows for rounding.
    assert (
        -1e-9 * settings["lr"] <= rate - later_rate <= settings["lr"] * (math.pi / 2 * 1e-4 + 1e-9)
    )


@given(
    st.sampled_from([name for name in SCHEDULES if name != "cyclic"]),
    settings_of_a_schedule(),
    st.floats(0, 1),
    st.floats(0, 0.99),
)
def test_schedules_without_cycles_never_jump(name, settings, fraction, warmup):
    epochs = settings["epochs"]
    rate = make_schedule(name, **settings, warmup_epochs=warmup * epochs)
    # The steepest slope, scaled to a whole training: "smooth", the steepest schedule, falls by at most
    # ln(1e6) times lr, and a warm-up rises by lr within the fraction ``warmup`` of the training.
    steepest = max(math.log(1e6), 1 / max(warmup, 1e-6)) * settings["lr"]
    assert abs(rate(fraction * epochs) - rate((fraction + 1e-5) * epochs)) <= steepest * 1.1e-5


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"min_lr": 2.0}, "--min_lr=2"),
        ({"name": "smooth", "min_lr": 0.0}, "--min_lr=0"),
        ({"warmup_epochs": 10}, "--warmup_epochs=10"),
    ],
)
def test_the_error_for_flags_that_contradict_each_other_names_one_of_them(change, flag):
    settings = {"name": "cyclic", "lr": 1.0, "min_lr": 0.1, "epochs": 10} | change
    with pytest.raises(UserError, match=flag):
        make_schedule(settings.pop("name"), **settings)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"schedule": "linear"}, "--schedule=linear"),
        ({"lr": 0.0}, "--lr=0.0"),
        ({"lr": math.nan}, "--lr=nan"),
        ({"min_lr": -1.0}, "--min_lr=-1.0"),
        ({"epochs": 0}, "--epochs=0"),
        ({"warmup_epochs": -1.0}, "--warmup_epochs=-1.0"),
        ({"cycle_epochs": 0}, "--cycle_epochs=0"),
        ({"cycle_decay": 1.5}, "--cycle_decay=1.5"),
    ],
)
def test_the_error_for_a_value_out_of_range_names_the_flag(change, flag):
    with pytest.raises(UserError, match=flag):
        TrainConfig(data_dir="images", **change)


def test_schedules_do_not_import_tensorflow():
    code = "import sys, seedtf.training.optim.schedules; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
