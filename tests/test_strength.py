"""``--augment_strength=auto``: the rule is bounded, monotone and robust to noise, and it converges.

The dead zone is the range of differences between train and validation accuracy that do not change the
strength, unless the losses diverge. The push is a fraction of a full step, from -1 (weaker) to 1
(stronger).
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.augment.strength import INITIAL_STRENGTH, MAX_STRENGTH, MIN_STRENGTH, next_strength

with_100_examples = settings(max_examples=100)  # quick, because the rule is plain arithmetic

EPOCHS = 12
STEP = math.exp(3.3 / EPOCHS)  # the factor by which a full step changes the strength


def make_row(accuracy, val_accuracy, strength=1.0, loss=1.0, val_loss=1.0):
    return {
        "loss": loss,
        "accuracy": accuracy,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "augment_strength": strength,
    }


def constant_rows(accuracy, val_accuracy, epochs=6, strength=1.0):
    """A history of equal epochs. It has no noise, so the dead zone is narrow from 4 epochs on."""
    return [make_row(accuracy, val_accuracy, strength)] * epochs


fraction = st.one_of(st.floats(0, 1), st.just(math.nan))
loss = st.one_of(st.floats(0, 100), st.sampled_from([math.nan, math.inf]))
strength = st.one_of(
    st.floats(MIN_STRENGTH, MAX_STRENGTH), st.sampled_from([math.nan, math.inf, 0.0, -1.0])
)
histories = st.lists(st.builds(make_row, fraction, fraction, strength, loss, loss), max_size=9)


# --- invariants ------------------------------------------------------------------------------


@with_100_examples
@given(histories, st.integers(0, 300), st.booleans())
def test_any_history_gives_a_bounded_step_and_is_not_modified(rows, epochs, mixed):
    before = copy.deepcopy(rows)
    strength = next_strength(rows, epochs, mixed=mixed)
    assert repr(rows) == repr(before)
    assert strength == next_strength(before, epochs, mixed=mixed)
    assert MIN_STRENGTH <= strength <= MAX_STRENGTH
    last = rows[-1]["augment_strength"] if rows else INITIAL_STRENGTH
    used = last if math.isfinite(last) and last > 0 else INITIAL_STRENGTH
    # The largest step is 0.35. The strength, at least 0.1, is rounded to 4 decimals, which adds less
    # than 0.001.
    assert abs(math.log(strength / used)) <= 0.35 + 0.001


@with_100_examples
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8),
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
)
def test_more_train_accuracy_never_means_less_strength(accuracies, more, diverging, mixed):
    def strength(rise):
        rows = [
            make_row(a + rise, v, loss=-i, val_loss=i if diverging else -i)
            for i, (a, v) in enumerate(accuracies)
        ]
        return next_strength(rows, EPOCHS, mixed=mixed)

    assert strength(0) <= strength(more)


@with_100_examples
@given(st.floats(0, 1), st.floats(-0.0049, 0.0199), st.floats(MIN_STRENGTH, MAX_STRENGTH))
def test_strength_does_not_change_inside_the_dead_zone(validation, gap, strength):
    rows = constant_rows(validation + gap, validation, strength=strength)
    assert next_strength(rows, EPOCHS) == pytest.approx(strength, abs=5.1e-5)


@with_100_examples
@given(st.lists(st.builds(make_row, fraction, fraction), max_size=2), st.integers(1, 300))
def test_strength_does_not_change_before_three_epochs(rows, epochs):
    assert next_strength(rows, epochs) == INITIAL_STRENGTH


def test_strength_can_rise_after_three_epochs_and_fall_after_six():
    assert next_strength(constant_rows(0.9, 0.1, epochs=3), EPOCHS) > INITIAL_STRENGTH
    assert next_strength(constant_rows(0.1, 0.9, epochs=5), EPOCHS) == INITIAL_STRENGTH
    assert next_strength(constant_rows(0.1, 0.9, epochs=6), EPOCHS) < INITIAL_STRENGTH


# --- worked examples of the formula ------------------------------------------------------------


def test_train_accuracy_above_validation_raises_the_strength_and_below_lowers_it():
    # If train accuracy is higher, the dead zone ends at 0.02. The push is (0.095 - 0.02) / 0.15 = 0.5.
    assert next_strength(constant_rows(0.895, 0.8), EPOCHS) == pytest.approx(STEP**0.5, abs=1e-4)
    # If it is lower, the dead zone ends at 0.02 / 4. The push is -(0.025 - 0.005) / 0.04 = -0.5.
    assert next_strength(constant_rows(0.775, 0.8), EPOCHS) == pytest.approx(STEP**-0.5, abs=1e-4)


def test_a_large_difference_of_the_accuracies_makes_a_full_step_within_the_limits():
    assert next_strength(constant_rows(0.99, 0.5), EPOCHS) == pytest.approx(STEP, abs=1e-4)
    assert next_strength(constant_rows(0.99, 0.5), 1) == pytest.approx(math.exp(0.35), abs=1e-4)
    assert next_strength(constant_rows(0.99, 0.5), 200) == pytest.approx(math.exp(0.03), abs=1e-4)
    assert next_strength(constant_rows(0.99, 0.5, strength=2.9), EPOCHS) == MAX_STRENGTH
    assert next_strength(constant_rows(0.5, 0.99, strength=0.11), EPOCHS) == MIN_STRENGTH


def test_the_lag_of_train_accuracy_does_not_lower_the_strength():
    """Train accuracy is a mean over the epoch, so it lags validation by half an epoch's progress."""
    rows = [make_row(0.05 + 0.1 * epoch, 0.1 + 0.1 * epoch) for epoch in range(1, 8)]
    assert next_strength(rows, EPOCHS) == 1.0


@with_100_examples
@given(st.integers(0, 5), st.floats(0, 1))
def test_one_unusual_validation_accuracy_does_not_change_the_strength(when, value):
    rows = constant_rows(0.8, 0.8)
    rows[when] = make_row(0.8, value)
    assert next_strength(rows, EPOCHS) == 1.0


def test_the_dead_zone_grows_with_the_noise_of_validation():
    noisy = [make_row(0.87, accuracy) for accuracy in (0.8, 0.83) * 3]
    # Second differences of 0.06 mean a noise of 0.0363 and a dead zone of 0.0514. Train accuracy is
    # inside the dead zone, because it is only 0.04 above the best validation accuracy.
    assert next_strength(noisy, EPOCHS) == 1.0
    assert next_strength(constant_rows(0.87, 0.83), EPOCHS) > 1.0
    ahead = [each | {"accuracy": 0.9} for each in noisy]
    push = (0.07 - 2 / math.sqrt(2) * 1.4826 / math.sqrt(6) * 0.06) / 0.15
    assert next_strength(ahead, EPOCHS) == pytest.approx(STEP**push, abs=1e-4)


def test_the_dead_zone_is_limited_and_wide_while_the_noise_is_unknown():
    wild = [make_row(0.95, validation) for validation in (0.2, 0.6) * 3]
    assert next_strength(wild, EPOCHS) == pytest.approx(STEP, abs=1e-4)
    # Before the noise is known, the dead zone is 2 / sqrt(2) * 0.05 = 0.0707.
    assert next_strength(constant_rows(0.865, 0.8, epochs=3), EPOCHS) == 1.0
    assert next_strength(constant_rows(0.88, 0.8, epochs=3), EPOCHS) > 1.0


def diverging_rows(accuracy, validation=0.8):
    return [make_row(accuracy, validation, loss=1 - i / 10, val_loss=1 + i / 10) for i in range(6)]


def test_diverging_losses_raise_the_strength_unless_train_accuracy_is_behind():
    assert next_strength(diverging_rows(0.8), EPOCHS) == pytest.approx(STEP**0.5, abs=1e-4)
    assert next_strength(diverging_rows(0.799), EPOCHS) == 1.0
    assert next_strength(diverging_rows(0.7), EPOCHS) < 1.0
    assert next_strength(diverging_rows(0.99), EPOCHS) == pytest.approx(STEP, abs=1e-4)
    rows = diverging_rows(0.8)
    rows[-1]["val_loss"] = rows[-2]["val_loss"]
    assert next_strength(rows, EPOCHS) == 1.0


def test_with_mixed_labels_the_strength_never_falls():
    assert next_strength(constant_rows(0.4, 0.8), EPOCHS, mixed=True) == 1.0
    assert next_strength(constant_rows(0.895, 0.8), EPOCHS, mixed=True) == next_strength(
        constant_rows(0.895, 0.8), EPOCHS
    )


@pytest.mark.parametrize("name", ["accuracy", "val_accuracy"])
def test_an_epoch_without_accuracy_keeps_the_strength_and_does_not_stop_the_rule(name):
    rows = constant_rows(0.99, 0.5, strength=1.5)
    unknown = [*rows, rows[-1] | {name: math.nan}]
    assert next_strength(unknown, EPOCHS) == 1.5
    assert next_strength([*unknown, rows[-1]], EPOCHS) > 1.5


def test_a_history_without_strengths_starts_at_the_initial_strength():
    rows = [
        {k: v for k, v in each.items() if k != "augment_strength"}
        for each in constant_rows(0.8, 0.8)
    ]
    assert next_strength(rows, EPOCHS) == INITIAL_STRENGTH


# --- simulated trainings -----------------------------------------------------------------------


def simulate(epochs, target, *, noise=0.0, seed=0, sensitivity=0.15):
    """The strengths of a simulated training whose best strength is ``target``.

    Train accuracy is the epoch's mean validation accuracy + sensitivity · log(target / strength).
    """
    random = np.random.default_rng(seed)
    rows, strength = [], INITIAL_STRENGTH
    for epoch in range(epochs):
        validation = 0.9 * (1 - math.exp(-6 * (epoch + 1) / epochs))
        before = 0.9 * (1 - math.exp(-6 * epoch / epochs))
        accuracy = (validation + before) / 2 + sensitivity * math.log(target / strength)
        measured = validation + random.normal(scale=noise)
        rows.append(
            make_row(accuracy, measured, strength, loss=1 - accuracy, val_loss=1 - measured)
        )
        strength = next_strength(rows, epochs)
    return [each["augment_strength"] for each in rows]


@pytest.mark.parametrize("epochs", [12, 20, 50, 200])
@pytest.mark.parametrize("target", [0.4, 1.0, 2.4])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_strength_converges_near_the_target(epochs, target, noise):
    strengths = simulate(epochs, target, noise=noise)
    # The strength does not change inside the dead zone. Without noise, the dead zone begins where
    # log(target / strength) is 0.02 / 0.15 or, for a falling strength, a quarter of this. Noise widens
    # the dead zone.
    error = abs(math.log(strengths[-1] / target))
    if target == 1.0:
        assert error <= 0.1
    else:
        assert error < 0.6 * abs(math.log(target))
    assert max(map(abs, np.diff(np.log(strengths[-max(epochs // 6, 2) :])))) < 0.35


@pytest.mark.parametrize("target", [0.4, 2.4])
def test_the_strength_does_not_overshoot(target):
    logs = np.log(simulate(200, target, sensitivity=0.3))
    beyond = logs * np.sign(math.log(target)) - abs(math.log(target))
    assert beyond.max() < 0.1


def test_noise_alone_moves_the_strength_only_a_little():
    for seed in range(20):
        # The accuracy 0.8 of 600 images has the standard deviation 0.016.
        strengths = simulate(20, 1.0, noise=0.016, seed=seed)
        assert min(strengths) > 0.75 and max(strengths) < 1.33
