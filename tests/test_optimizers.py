"""Weight decay, clipping and layer-wise learning rates: the arithmetic of one step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.compat.keras import KERAS_2, build_optimizer, optimizer_variables
from seedtf.compat.keras_adam import shared_bias_correction_class
from seedtf.errors import UserError
from seedtf.model.network import HEAD, build_network, set_body_trainable
from seedtf.training.machine import Machine
from seedtf.training.optim.choice import check_optimizer
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.optim.param_groups import is_decayed, layerwise_lr, no_decay_variables

NAMES = ["adam", "adamw", "sgd", "rmsprop", *([] if KERAS_2 else ["lamb"])]
LR, DECAY = 0.25, 0.125

pytestmark = pytest.mark.filterwarnings("ignore:.*skipping variable loading")
keras_3_only = pytest.mark.skipif(
    KERAS_2, reason="layer-wise rates and the shared bias correction need Keras 3"
)


def build_tiny() -> keras.Model:
    keras.utils.set_random_seed(3)
    return build_network(model="tiny", num_classes=4, image_size=8, weights="none")


def randomized(network: keras.Model) -> keras.Model:
    """Sets all trainable weights to random values, which decay would change; returns the network."""
    draws = np.random.default_rng(5)
    for variable in network.trainable_variables:
        variable.assign(draws.uniform(0.5, 1.5, variable.shape))
    return network


def gradients(network: keras.Model, scale: float = 1.0) -> list[Any]:
    draws = np.random.default_rng(7)
    return [
        tf.constant(scale * draws.normal(size=each.shape), tf.float32)
        for each in network.trainable_variables
    ]


def zeros(network: keras.Model) -> list[Any]:
    return gradients(network, 0.0)


def weights_after(
    optimizer: Any, grads: list[Any], network: keras.Model, steps: int = 1
) -> list[Any]:
    """The trainable weights after ``steps`` steps with ``grads``; leaves the network unchanged."""
    variables = network.trainable_variables
    before = [each.numpy() for each in variables]
    for _ in range(steps):
        optimizer.apply_gradients(list(zip(grads, variables, strict=True)))
    values = [each.numpy() for each in variables]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return values


def with_decay(name: str, network: keras.Model, decay: float, **options: Any) -> Any:
    """An optimizer whose weight decay leaves the biases and scales of ``network`` alone."""
    no_decay = no_decay_variables(network)
    return make_optimizer(name, LR, weight_decay=decay, no_decay=no_decay, **options)


def last_name(variable: Any) -> str:
    return variable.name.rpartition("/")[2].partition(":")[0]


def test_kernels_decay_and_nothing_else() -> None:
    network = build_tiny()
    no_decay = {id(variable) for variable in no_decay_variables(network)}
    trainable = network.trainable_variables
    decayed = [variable for variable in trainable if id(variable) not in no_decay]
    others = [variable for variable in trainable if id(variable) in no_decay]
    assert {last_name(variable) for variable in decayed} == {"kernel"}
    assert {last_name(variable) for variable in others} == {"bias", "gamma", "beta"}


def test_frozen_variables_keep_their_exclusion_from_decay() -> None:
    network = build_tiny()
    expected = [id(variable) for variable in no_decay_variables(network)]
    set_body_trainable(network, False)
    assert [id(variable) for variable in no_decay_variables(network)] == expected


@pytest.mark.parametrize("name", ["gamma", "bias_beta"])
def test_the_name_of_a_layer_does_not_exclude_its_kernel(name: str) -> None:
    layer = keras.layers.Dense(3, name=name)
    layer.build((None, 2))
    kernel, bias = layer.trainable_variables
    assert (is_decayed(kernel), is_decayed(bias)) == (True, False)


def test_the_scale_of_a_normalization_does_not_decay_even_if_it_has_rank_two() -> None:
    layer = keras.layers.LayerNormalization(axis=(1, 2))
    layer.build((None, 3, 4))
    assert [len(each.shape) for each in layer.trainable_variables] == [2, 2]
    assert not any(map(is_decayed, layer.trainable_variables))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_subtracts_lr_times_decay_from_kernels_only(name: str) -> None:
    network = randomized(build_tiny())
    before = [each.numpy() for each in network.trainable_variables]
    optimizer = with_decay(name, network, DECAY)
    values = weights_after(optimizer, zeros(network), network)
    for variable, old, new in zip(network.trainable_variables, before, values, strict=True):
        # LR and DECAY are powers of two, so only the difference itself is rounded.
        decay = old * np.float32(LR * DECAY) if is_decayed(variable) else np.float32(0.0)
        np.testing.assert_array_equal(new, old - decay, err_msg=variable.name)


@pytest.mark.parametrize("name", NAMES)
def test_without_decay_no_weight_shrinks(name: str) -> None:
    network = randomized(build_tiny())
    values = weights_after(make_optimizer(name, LR), zeros(network), network)
    for variable, new in zip(network.trainable_variables, values, strict=True):
        np.testing.assert_array_equal(new, variable.numpy(), err_msg=variable.name)


@keras_3_only
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_with_a_shared_bias_correction_equals_that_of_keras_exactly(name: str) -> None:
    network = randomized(build_tiny())
    base, variables = getattr(keras.optimizers, name), network.trainable_variables
    results, num_operations = [], []
    for optimizer_class in (base, shared_bias_correction_class(base)):
        optimizer = optimizer_class(LR, weight_decay=DECAY)
        build_optimizer(optimizer, variables)
        step = tf.function(lambda grads, optimizer=optimizer: optimizer.apply(grads, variables))
        before = [each.numpy() for each in variables]
        for scale in (1.0, -0.3, 0.0):
            step(gradients(network, scale))
        results.append([each.numpy() for each in (*variables, *optimizer_variables(optimizer))])
        graph = step.get_concrete_function(gradients(network)).graph
        num_operations.append(len(graph.get_operations()))
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        assert type(optimizer).__name__ == name
    for plain, shared in zip(*results, strict=True):
        np.testing.assert_array_equal(shared, plain)
    assert num_operations[1] < 0.8 * num_operations[0]


def test_the_weight_decay_of_adamw_does_not_enter_its_moments() -> None:
    network = randomized(build_tiny())
    grads = gradients(network)
    plain = weights_after(make_optimizer("adam", LR), grads, network)
    decayed = weights_after(with_decay("adamw", network, DECAY), grads, network)
    for variable, by_adam, by_adamw in zip(
        network.trainable_variables, plain, decayed, strict=True
    ):
        decay = variable.numpy() * LR * DECAY * is_decayed(variable)
        np.testing.assert_allclose(by_adam - by_adamw, decay, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(norm=st.floats(0.01, 100.0), scale=st.floats(0.01, 10.0))
def test_the_gradient_is_clipped_by_its_global_norm(norm: float, scale: float) -> None:
    make_variable = tf.Variable if KERAS_2 else keras.Variable
    variables = [make_variable(np.zeros(shape, np.float32)) for shape in ((3, 2), (4,))]
    grads = [
        np.full(each.shape, scale * sign, np.float32)
        for each, sign in zip(variables, (1, -2), strict=True)
    ]
    optimizer = make_optimizer("sgd", 1.0, clip_norm=norm)
    optimizer.apply_gradients(list(zip(map(tf.constant, grads), variables, strict=True)))
    global_norm = np.sqrt(sum(float(np.sum(grad**2)) for grad in grads))
    for variable, grad in zip(variables, grads, strict=True):
        # The first step of SGD with Nesterov momentum 0.9 is 1.9 times the gradient.
        expected = -1.9 * grad * min(1.0, norm / global_norm)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4)


@keras_3_only
def test_lr_scales_rise_geometrically_from_the_first_layer_to_the_head() -> None:
    network = build_tiny()
    scales = layerwise_lr(network, 0.01)
    layers = ["conv1", "conv1_bn", "conv2", "conv2_bn", "conv3", "conv3_bn", HEAD]
    by_layer = [scales[network.get_layer(each).weights[0].path] for each in layers]
    np.testing.assert_allclose(by_layer, 0.01 ** (1 - np.arange(7) / 6))
    assert by_layer[0] == 0.01 and by_layer[-1] == 1.0
    assert set(scales) == {each.path for each in network.weights}
    set_body_trainable(network, False)
    assert layerwise_lr(network, 0.01) == scales


@keras_3_only
@pytest.mark.parametrize(
    ("name", "decay"),
    # LAMB with decay is left out: its trust ratio is computed from weights that have decayed already.
    [*((name, 0.0) for name in NAMES), ("adamw", DECAY), ("sgd", DECAY)],
)
def test_an_lr_scale_is_a_factor_on_the_whole_change(name: str, decay: float) -> None:
    network = randomized(build_tiny())
    scales = layerwise_lr(network, 0.25)
    before = [each.numpy() for each in network.trainable_variables]
    for gradient_scale in (1.0, 1e3):
        grads = gradients(network, gradient_scale)
        plain = weights_after(with_decay(name, network, decay), grads, network)
        scaled = weights_after(with_decay(name, network, decay, lr_scales=scales), grads, network)
        for variable, old, unscaled_new, scaled_new in zip(
            network.trainable_variables, before, plain, scaled, strict=True
        ):
            expected = (unscaled_new - old) * scales[variable.path]
            np.testing.assert_allclose(scaled_new - old, expected, rtol=1e-4, atol=1e-6)


@keras_3_only
@pytest.mark.parametrize("name", NAMES)
def test_lr_scales_of_one_equal_the_plain_optimizer_exactly(name: str) -> None:
    network = randomized(build_tiny())
    options: dict[str, Any] = {
        "weight_decay": DECAY,
        "no_decay": no_decay_variables(network),
        "clip_norm": 2.0,
    }
    plain = make_optimizer(name, LR, **options)
    scaled = make_optimizer(name, LR, lr_scales=layerwise_lr(network, 1.0), **options)
    grads = gradients(network)
    results = [weights_after(each, grads, network, steps=3) for each in (plain, scaled)]
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_options_do_not_change_the_variables_of_an_optimizer(name: str) -> None:
    network = build_tiny()
    scales = None if KERAS_2 else layerwise_lr(network, 0.1)
    shapes = []
    no_decay = no_decay_variables(network)
    all_options = {
        "weight_decay": DECAY,
        "no_decay": no_decay,
        "clip_norm": 1.0,
        "lr_scales": scales,
    }
    for options in ({}, all_options):
        optimizer = make_optimizer(name, LR, **options)
        for _ in range(2):  # the second call must add no variables
            build_optimizer(optimizer, network.trainable_variables)
        shapes.append([tuple(each.shape) for each in optimizer_variables(optimizer)])
    assert shapes[0] == shapes[1]


@keras_3_only
@pytest.mark.parametrize("loss_scaling", [False, True])
def test_a_restored_state_continues_exactly(loss_scaling: bool) -> None:
    network = randomized(build_tiny())
    variables = network.trainable_variables
    grads = gradients(network, 256.0 if loss_scaling else 1.0)

    def make() -> Any:
        scales = layerwise_lr(network, 0.1)
        made = with_decay("adamw", network, DECAY, clip_norm=2.0, lr_scales=scales)
        if loss_scaling:
            made = keras.mixed_precision.LossScaleOptimizer(made, initial_scale=256.0)
        build_optimizer(made, variables)
        return made

    first, second = make(), make()
    weights_after(first, grads, network, steps=2)
    for target, source in zip(optimizer_variables(second), optimizer_variables(first), strict=True):
        target.assign(source.numpy())
    one, other = weights_after(first, grads, network), weights_after(second, grads, network)
    for variable, a, b in zip(variables, one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, variable.numpy())


@keras_3_only
def test_loss_scaling_changes_no_layer_wise_rate() -> None:
    network = randomized(build_tiny())
    scales = layerwise_lr(network, 0.1)
    options: dict[str, Any] = {
        "weight_decay": DECAY,
        "no_decay": no_decay_variables(network),
        "lr_scales": scales,
    }
    plain = weights_after(make_optimizer("sgd", LR, **options), gradients(network), network)
    wrapped = keras.mixed_precision.LossScaleOptimizer(
        make_optimizer("sgd", LR, **options), initial_scale=256.0
    )
    scaled = weights_after(wrapped, gradients(network, 256.0), network)
    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@keras_3_only
def test_a_compiled_train_step_uses_the_lr_scales() -> None:
    network = build_tiny()
    before = network.get_weights()
    scales = {path: 1.0 if path.startswith(HEAD) else 0.0 for path in layerwise_lr(network, 0.5)}
    optimizer = make_optimizer("adamw", 0.1, weight_decay=DECAY, lr_scales=scales)
    network.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    network.train_on_batch(np.ones((2, 8, 8, 3), np.float32), np.array([0, 1]))
    moved = {
        variable.path
        for variable, old in zip(network.weights, before, strict=True)
        if variable.trainable and not np.array_equal(variable.numpy(), old)
    }
    assert moved == {f"{HEAD}/kernel", f"{HEAD}/bias"}


def test_options_that_keras_supports_are_accepted() -> None:
    for name in NAMES:
        check_optimizer(name, Machine())
        check_optimizer(name, Machine(), weight_decay=0.1, clip_norm=1.0)


def test_options_that_optimizers_of_addons_do_not_support_are_refused() -> None:
    machine = Machine(keras_2=True, addons=True)
    check_optimizer("ranger", machine)
    for flag, value in (("weight_decay", 0.5), ("clip_norm", 2.0)):
        refusal = f"--{flag}={value:g}: not supported by --optimizer=ranger of TensorFlow Addons; "
        remedy = f"pass --{flag}=0, or --optimizer=adam, adamw, sgd or rmsprop"
        with pytest.raises(UserError) as caught:
            check_optimizer("ranger", machine, **{flag: value})
        assert str(caught.value) == refusal + remedy
        with pytest.raises(ValueError, match="ranger"):
            make_optimizer("ranger", 0.1, **{flag: value})
    with pytest.raises(ValueError, match="ranger"):
        make_optimizer("ranger", 0.1, lr_scales=lambda variable: 0.5)


def test_missing_addons_are_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"--optimizer=radam: needs TensorFlow Addons.*pip install"):
        check_optimizer("radam", Machine())


def test_layer_wise_rates_are_refused_under_keras_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedtf.training.optim.optimizers.KERAS_2", True)
    for name in ("adam", "ranger"):
        for addons in (False, True):
            machine = Machine(keras_2=True, addons=addons)
            with pytest.raises(
                UserError, match=r"--body_lr_factor=0\.5: needs Keras 3.*_factor=1$"
            ):
                check_optimizer(name, machine, body_lr_factor=0.5)
    with pytest.raises(ValueError, match="adam"):
        make_optimizer("adam", 0.1, lr_scales=lambda variable: 0.5)
