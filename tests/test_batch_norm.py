"""Fused batch normalization equals Keras' own; ``zero_init_residuals`` finds the ends of branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from seedtf.model.batch_norm import (
    FusedBatchNormalization,
    finalize_layers,
    fuse_batch_norm,
)
from seedtf.model.residuals import zero_init_residuals

Pair = tuple[keras.layers.Layer, keras.layers.Layer]
# The largest difference from the Keras layer that the rounding of each format allows.
TOLERANCE = {"float32": 2e-5, "mixed_bfloat16": 0.04, "mixed_float16": 0.005}


@pytest.fixture
def float32_after() -> Iterator[None]:
    """Sets the mixed-precision policy back to float32 after the test."""
    yield
    keras.mixed_precision.set_global_policy("float32")


def keras_and_fused(**arguments: Any) -> Pair:
    """Returns a Keras layer and a fused layer with the same random gamma and beta."""
    layers = keras.layers.BatchNormalization(**arguments), FusedBatchNormalization(**arguments)
    draw = np.random.default_rng(1)
    gamma, beta = draw.uniform(0.5, 2, 6), draw.normal(size=6)
    for layer in layers:
        layer.build((None, 5, 4, 6))
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
    return layers


def batch(seed: int, size: int = 8) -> np.ndarray:
    draw = np.random.default_rng(seed)
    scale = draw.uniform(0.5, 4, 6)
    return draw.normal(draw.normal(0, 3, 6), scale, (size, 5, 4, 6)).astype(np.float32)


def train_step(layer: keras.layers.Layer, jit: bool | None = None) -> Callable[..., Any]:
    """A function of images and the gradient of the loss with respect to the outputs (``cotangent``).

    The function returns the outputs and the gradients with respect to images, gamma and beta.
    """

    @tf.function(jit_compile=jit)
    def step(images: tf.Tensor, cotangent: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = tf.cast(layer(images, training=True), tf.float32)
            total = tf.reduce_sum(outputs * cotangent)
        variables = [v.value for v in (layer.gamma, layer.beta)]
        return outputs, tape.gradient(total, [images, *variables])

    return step


def assert_close(actual: Any, expected: Any, policy: str) -> None:
    actual, expected = np.asarray(actual, np.float32), np.asarray(expected, np.float32)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, atol=TOLERANCE[policy])


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("jit", [None, True], ids=["graph", "xla"])
def test_training_equals_keras(policy: str, jit: bool | None) -> None:
    stock, fused = keras_and_fused(dtype=policy, momentum=0.7)
    stock_step, fused_step = train_step(stock, jit), train_step(fused, jit)
    for seed in range(3):
        images, cotangent = tf.constant(batch(seed)), tf.constant(batch(seed + 100))
        expected, expected_gradients = stock_step(images, cotangent)
        actual, gradients = fused_step(images, cotangent)
        assert_close(actual, expected, policy)
        for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
            assert_close(gradient, expected_gradient, policy)
    # The statistics are float32 under every policy, so only the order of summation differs.
    for actual, expected in zip(fused.weights, stock.weights, strict=True):
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("policy", TOLERANCE)
def test_inference_and_frozen_training_equal_keras(policy: str) -> None:
    stock, fused = keras_and_fused(dtype=policy)
    values = [weight + 0.5 for weight in stock.get_weights()]
    for layer in (stock, fused):
        layer.set_weights(values)
        layer.trainable = False
    assert_close(fused(batch(0)), stock(batch(0)), policy)
    assert_close(fused(batch(0), training=True), stock(batch(0), training=True), policy)
    for weight, value in zip(fused.get_weights(), values, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_moving_variance_has_no_bessel_correction() -> None:
    # The kernel returns the variance with Bessel's correction. With two values per channel, this is
    # twice the variance without the correction.
    fused = FusedBatchNormalization(momentum=0.0)
    fused(np.array([0.0, 2.0], np.float32).reshape(2, 1, 1, 1), training=True)
    np.testing.assert_allclose(fused.moving_variance.numpy(), [1.0], rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"scale": False}, {"center": False}, {"renorm": True}])
def test_scale_center_and_renorm_equal_keras(arguments: dict[str, bool]) -> None:
    stock = keras.layers.BatchNormalization(**arguments)
    fused = FusedBatchNormalization(**arguments)
    for seed in range(2):
        assert_close(
            fused(batch(seed), training=True), stock(batch(seed), training=True), "float32"
        )
    assert_close(fused(batch(3)), stock(batch(3)), "float32")


@pytest.mark.parametrize(
    ("shape", "axis"), [((8, 6), -1), ((4, 5, 6), -1), ((4, 6, 5, 3), 1), ((2, 3, 4, 5, 6), -1)]
)
def test_other_shapes_give_the_output_of_the_keras_layer(shape: tuple[int, ...], axis: int) -> None:
    images = np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)
    stock = keras.layers.BatchNormalization(axis=axis)
    fused = FusedBatchNormalization(axis=axis)
    assert_close(fused(images, training=True), stock(images, training=True), "float32")


def kernel_dtypes(layer: keras.layers.Layer) -> list[tf.DType]:
    """Returns the input dtype of every ``FusedBatchNormV3`` in the layer's training graph."""
    graph = tf.function(lambda images: layer(images, training=True)).get_concrete_function(
        tf.TensorSpec([2, 5, 4, 6], tf.bfloat16)
    )
    operations = graph.graph.get_operations()
    return [op.get_attr("T") for op in operations if op.type == "FusedBatchNormV3"]


def test_the_fused_kernel_takes_16_bit_input_without_a_cast() -> None:
    stock, fused = keras_and_fused(dtype="mixed_bfloat16")
    assert kernel_dtypes(fused) == [tf.bfloat16]
    assert kernel_dtypes(stock) == []


def small_network() -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3), name="image")
    features = keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    features = keras.layers.BatchNormalization(momentum=0.9, name="norm")(features)
    features = keras.layers.ReLU(name="relu")(features)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    pooled = keras.layers.BatchNormalization(name="flat_norm")(pooled)
    return keras.Model(image, keras.layers.Dense(3, activation="softmax", name="head")(pooled))


def fused_copy(model: keras.Model, momentum: float | None = None) -> keras.Model:
    """A copy of a Keras model, with the same weights, in which batch normalization is fused."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    finalize_layers(copy)
    fuse_batch_norm(copy, momentum)
    return copy


def train_losses(model: keras.Model) -> list[float]:
    """Trains the model for ten steps on the same batch and returns their losses."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(16, 8, 8, 3)).astype(np.float32)
    labels = draw.integers(0, 3, 16)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    return [float(np.ravel(model.train_on_batch(images, labels))[0]) for _ in range(10)]


def test_a_fused_model_has_the_losses_of_the_keras_model() -> None:
    stock = small_network()
    fused = fused_copy(stock)
    expected = train_losses(stock)
    np.testing.assert_allclose(train_losses(fused), expected, rtol=1e-4)
    assert expected[-1] < expected[0]


def test_fusing_keeps_names_variables_and_momentum() -> None:
    model = small_network()
    names, variables = [layer.name for layer in model.layers], list(model.variables)
    fuse_batch_norm(model)
    assert [layer.name for layer in model.layers] == names
    assert all(a is b for a, b in zip(model.variables, variables, strict=True))
    assert isinstance(model.get_layer("norm"), FusedBatchNormalization)
    assert model.get_layer("norm").momentum == 0.9


def test_a_given_momentum_is_set_in_every_layer() -> None:
    fused = fused_copy(small_network(), momentum=0.8)
    assert [fused.get_layer(name).momentum for name in ("norm", "flat_norm")] == [0.8, 0.8]


def test_a_copied_normalization_layer_uses_its_copied_statistics() -> None:
    image = keras.Input((8, 8, 3))
    normalization = keras.layers.Normalization()
    model = keras.Model(image, normalization(image))
    normalization.adapt(batch(0)[..., :3] + 7)
    model = keras.Model(image, normalization(image))
    images = np.full((1, 8, 8, 3), 7, np.float32)
    fused = fused_copy(model)
    np.testing.assert_allclose(fused(images), model(images), rtol=1e-6)


def test_weights_files_of_either_layer_load_into_the_other(tmp_path: Path) -> None:
    stock, trained = small_network(), fused_copy(small_network())
    train_losses(trained)
    trained.save_weights(tmp_path / "fused.weights.h5")
    stock.load_weights(tmp_path / "fused.weights.h5")
    stock.save_weights(tmp_path / "stock.weights.h5")
    fused = fused_copy(small_network())
    fused.load_weights(tmp_path / "stock.weights.h5")
    for model in (stock, fused):
        for actual, expected in zip(model.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_a_fused_model_is_still_fused_when_it_is_loaded(tmp_path: Path) -> None:
    fused = fused_copy(small_network(), momentum=0.85)
    train_losses(fused)
    fused.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("norm"), FusedBatchNormalization)
    assert loaded.get_layer("norm").momentum == 0.85
    images = np.random.default_rng(5).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(images), fused(images))


@pytest.mark.usefixtures("float32_after")
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 0.03), ("mixed_float16", 0.01)]
)
def test_losses_in_16_bit_are_equal_up_to_rounding(policy: str, tolerance: float) -> None:
    keras.mixed_precision.set_global_policy(policy)
    stock = small_network()
    fused = fused_copy(stock)
    expected = train_losses(stock)
    np.testing.assert_allclose(train_losses(fused), expected, rtol=tolerance)
    assert expected[-1] < expected[0]


def zeroed_in(join: Callable[[Any, Any], Any]) -> set[str]:
    """The names of the layers that ``zero_init_residuals`` sets to gamma 0.

    ``join`` combines the trunk and the branch of the network.
    """
    image = keras.Input((8, 8, 3))
    trunk = keras.layers.ReLU(name="trunk")(conv_bn(image, "stem"))
    outputs = join(trunk, conv_bn(keras.layers.ReLU()(conv_bn(trunk, "first")), "last"))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(outputs))
    num_zeroed = zero_init_residuals(model)
    norms = [norm for norm in model.layers if isinstance(norm, keras.layers.BatchNormalization)]
    zeroed = {norm.name for norm in norms if norm.scale and not norm.gamma.numpy().any()}
    assert num_zeroed == len(zeroed)
    return zeroed


def conv_bn(features: Any, name: str, **options: Any) -> Any:
    features = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(features)
    return keras.layers.BatchNormalization(name=name, **options)(features)


def add(*inputs: Any) -> Any:
    return keras.layers.Add()(list(inputs))


def test_a_branch_is_zeroed_on_either_side_of_its_sum() -> None:
    assert zeroed_in(add) == {"last"}
    assert zeroed_in(lambda trunk, branch: add(branch, trunk)) == {"last"}


def test_a_projected_shortcut_is_not_a_branch() -> None:
    assert zeroed_in(lambda trunk, branch: add(conv_bn(trunk, "p"), branch)) == {"last"}
    assert zeroed_in(lambda trunk, branch: add(branch, conv_bn(trunk, "p"))) == {"last"}


def test_only_dropout_may_follow_the_norm_of_a_branch() -> None:
    drop, relu = keras.layers.Dropout(0.2), keras.layers.ReLU()
    assert zeroed_in(lambda trunk, branch: add(drop(branch), trunk)) == {"last"}
    assert zeroed_in(lambda trunk, branch: add(relu(branch), trunk)) == set()


def test_a_norm_whose_output_is_used_twice_is_not_changed() -> None:
    assert zeroed_in(lambda trunk, branch: add(branch, add(branch, trunk))) == set()
    concatenate = keras.layers.Concatenate()
    assert zeroed_in(lambda trunk, branch: concatenate([add(branch, trunk), branch])) == set()


def test_a_sum_that_does_not_have_exactly_one_branch_is_not_changed() -> None:
    def shortcut(trunk: Any, num_relus: int) -> Any:
        for number in range(num_relus):
            trunk = keras.layers.ReLU()(conv_bn(trunk, f"shortcut{number}"))
        return conv_bn(trunk, "shortcut")

    for num_relus in (0, 1, 2):  # With a ReLU, the shortcut is a second branch.
        zeroed = zeroed_in(lambda trunk, branch: add(shortcut(trunk, num_relus), branch))  # noqa: B023
        assert zeroed == ({"last"} if num_relus == 0 else set())
    assert zeroed_in(lambda trunk, branch: add(trunk, trunk)) == set()
    assert zeroed_in(lambda trunk, branch: add(trunk, branch, conv_bn(trunk, "p"))) == set()
    unscaled = {"scale": False}
    assert zeroed_in(lambda trunk, branch: add(trunk, conv_bn(branch, "n", **unscaled))) == set()
