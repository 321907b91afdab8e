"""The exponential moving average of weights, and its callback."""

import math

import keras
import numpy as np
import pytest

from seedtf.compat.keras import all_variables
from seedtf.model.network import build_network
from seedtf.training.callbacks import EmaWeights
from seedtf.training.optim.ema import MovingAverage, ema_decay


@pytest.fixture
def network() -> keras.Model:
    return build_network(model="tiny", num_classes=3, image_size=16, weights="none")


def values(network: keras.Model) -> list[np.ndarray]:
    return [np.array(each.numpy()) for each in all_variables(network)]


def fill(network: keras.Model, value: float) -> None:
    for each in all_variables(network):
        each.assign(np.full(each.shape, value, np.float32))


def test_the_weight_of_earlier_values_is_1_over_e_after_the_horizon() -> None:
    decay, interval = ema_decay(0.1, 5000)  # the horizon is a tenth of the training: 500 steps
    assert interval == 10
    assert decay ** (500 / interval) == pytest.approx(1 / math.e)


def test_a_short_training_is_averaged_at_every_step() -> None:
    # The horizon is 10 steps, and the interval between two updates 1 step.
    assert ema_decay(0.5, 20) == (pytest.approx(math.exp(-0.1)), 1)


def test_the_initial_weights_soon_hardly_count_in_the_average(network: keras.Model) -> None:
    fill(network, 0.0)
    average = MovingAverage(network, 0.5, 1000)  # is updated every 10 steps
    fill(network, 1.0)
    for _ in range(20):
        average.update()
    # The updates at steps 10 and 20 have the decays 1/10 and 2/11: (1 + n) / (10 + n) for update n.
    wanted = 1.0 - 1 / 10 * 2 / 11
    for each in average.variables[:-1]:
        np.testing.assert_allclose(each.numpy(), wanted, rtol=1e-6)
    assert int(average.variables[-1]) == 20  # the number of steps


def test_batch_statistics_are_averaged_too(network: keras.Model) -> None:
    average = MovingAverage(network, 0.5, 1000)
    # The variables of the average are one for each of the network, and the number of steps.
    assert len(average.variables) == len(all_variables(network)) + 1


def test_swapping_twice_changes_nothing(network: keras.Model) -> None:
    average = MovingAverage(network, 0.5, 10)
    before = values(network)
    fill(network, 0.25)
    average.swap()
    for found, wanted in zip(values(network), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    average.swap()
    assert all((each == 0.25).all() for each in values(network))


def test_validation_and_checkpoints_see_the_average_and_training_does_not(
    network: keras.Model,
) -> None:
    average = MovingAverage(network, 0.5, 10)
    initial = values(network)
    fill(network, 0.25)
    callback = EmaWeights(average)
    callback.on_test_begin()
    for found, wanted in zip(values(network), initial, strict=True):
        np.testing.assert_array_equal(found, wanted)
    callback.on_epoch_end(0)
    assert all((each == 0.25).all() for each in values(network))
    callback.on_epoch_end(1)  # an epoch without validation
    assert all((each == 0.25).all() for each in values(network))
