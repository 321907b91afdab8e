"""The network: its scaling, body, head, weights files and saved form."""

from __future__ import annotations

import re
import shutil
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from seedtf.errors import UserError
from seedtf.model.batch_norm import FusedBatchNormalization
from seedtf.model.families import minimum_image_size, scaling_mode
from seedtf.model.network import (
    InputScaling,
    available_models,
    build_network,
    load_model,
    resolve_model_name,
    save_model,
    set_body_trainable,
)


@pytest.fixture(autouse=True)
def _reset_precision() -> Iterator[None]:
    """Sets the precision policy back to float32 after each test."""
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="module")
def resnet() -> keras.Model:
    return build_network(model="resnet50", num_classes=12, image_size=32, weights="none")


@pytest.fixture(scope="module")
def stock_resnet() -> keras.Model:
    return keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def stock_mobilenet() -> keras.Model:
    return keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))


def build_tiny(
    num_classes: int = 4, weights: str = "none", seed: int = 0, **options: Any
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_network(
        model="tiny", num_classes=num_classes, image_size=16, weights=weights, **options
    )


def random_images(size: int, count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def body_weights(model: keras.Model) -> list[np.ndarray]:
    return model.get_weights()[:-2]


def assert_same(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for value, expected_value in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, expected_value)


# Names


def test_every_offered_network_resolves_in_any_case() -> None:
    assert {"ResNet50", "MobileNetV3Small", "EfficientNetB0", "Tiny"} <= set(available_models())
    for name in available_models():
        assert resolve_model_name(name.upper()) == resolve_model_name(name.lower()) == name


def test_the_error_for_an_unknown_network_suggests_similar_names() -> None:
    # The last character of resnet5O is the letter O.
    with pytest.raises(UserError, match=r"--model=resnet5O .*ResNet50") as raised:
        resolve_model_name("resnet5O")
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="--model=qqq"):
        resolve_model_name("qqq")


# Input scaling


@pytest.mark.parametrize("name", [name for name in available_models() if name != "Tiny"])
def test_scaling_equals_preprocess_input_of_the_network(name: str) -> None:
    family = sys.modules[getattr(keras.applications, name).__module__]
    pixels = random_images(8).astype(np.float32)
    scaled = InputScaling(scaling_mode(name))(pixels)
    np.testing.assert_allclose(scaled, family.preprocess_input(pixels.copy()), atol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_scaling_is_computed_in_float32_then_cast(policy: str) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    image = keras.Input((8, 8, 3))
    exact = keras.Model(image, InputScaling("caffe")(image))(pixels)
    keras.mixed_precision.set_global_policy(policy)
    image = keras.Input((8, 8, 3), dtype="float32")
    scaled = keras.Model(image, InputScaling("caffe")(image))(pixels)
    assert scaled.dtype == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(scaled, np.asarray(exact).astype(scaled.dtype.as_numpy_dtype))


def test_an_unknown_scaling_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="mode must be"):
        InputScaling("imagenet")


# The built network


def test_the_body_is_that_of_keras_applications(
    resnet: keras.Model, stock_resnet: keras.Model
) -> None:
    ours = ["image", "input_scaling", "pool", "logits", "probabilities"]
    names = [layer.name for layer in resnet.layers]
    assert [name for name in names if name not in ours] == [
        layer.name for layer in stock_resnet.layers[1:]
    ]
    assert resnet.name == "resnet50"
    head_params = resnet.get_layer("logits").count_params()
    assert resnet.count_params() - head_params == stock_resnet.count_params()


def test_every_batch_norm_is_fused_and_trainable(resnet: keras.Model) -> None:
    norms = [x for x in resnet.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 53
    assert all(isinstance(norm, FusedBatchNormalization) for norm in norms)
    assert len(resnet.trainable_weights) == len(resnet.weights) - 2 * len(norms)


def test_the_body_computes_what_the_stock_network_computes(
    resnet: keras.Model, stock_resnet: keras.Model
) -> None:
    stock_resnet.set_weights(body_weights(resnet))
    pixels = random_images(32, 2)
    expected = stock_resnet(keras.applications.resnet.preprocess_input(pixels.astype(np.float32)))
    features = keras.Model(resnet.input, resnet.get_layer("pool").input)(pixels)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(features / scale, expected / scale, atol=1e-5)


def test_uint8_and_float_images_have_the_same_probabilities() -> None:
    model = build_tiny()
    probabilities = model.predict(random_images(16), verbose=0)
    as_float = model.predict(random_images(16).astype(np.float32), verbose=0)
    np.testing.assert_array_equal(probabilities, as_float)
    assert model.input.shape == (None, 16, 16, 3)
    assert model.input.name.split(":")[0] == "image"


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_probabilities_are_float32_under_every_policy(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    model = build_tiny(num_classes=5)
    assert model.get_layer("conv1").compute_dtype == policy.removeprefix("mixed_")
    probabilities = model.predict(random_images(16), verbose=0)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (8, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_training_lowers_the_loss(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    model = build_tiny()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    labels = np.arange(8) % 4
    curve = model.fit(random_images(16), labels, epochs=15, batch_size=8, verbose=0).history["loss"]
    assert curve[-1] < 0.7 * curve[0]


def test_the_same_seed_builds_the_same_weights() -> None:
    assert_same(build_tiny(seed=5).get_weights(), build_tiny(seed=5).get_weights())
    assert not np.array_equal(
        build_tiny(seed=5).get_weights()[0], build_tiny(seed=6).get_weights()[0]
    )


def test_momentum_reaches_every_batch_norm() -> None:
    momenta = {
        layer.momentum for layer in build_tiny(bn_momentum=0.85).layers if "bn" in layer.name
    }
    assert momenta == {0.85}
    assert {layer.momentum for layer in build_tiny().layers if "bn" in layer.name} == {0.99}


@pytest.mark.parametrize("name", ["ResNet50", "InceptionV3", "Xception", "EfficientNetB0"])
def test_minimum_image_size_is_that_of_keras(name: str) -> None:
    minimum = minimum_image_size(name)
    with pytest.raises(UserError, match=f"--image_size={minimum - 1} .* pass {minimum} or more"):
        build_network(model=name, num_classes=2, image_size=minimum - 1, weights="none")
    with pytest.raises(ValueError, match=f"at least {minimum}x{minimum}"):
        getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=(minimum - 1, minimum - 1, 3)
        )


def test_freezing_leaves_the_head_trainable() -> None:
    model = build_tiny()
    set_body_trainable(model, False)
    assert [w.shape for w in model.trainable_weights] == [(64, 4), (4,)]
    set_body_trainable(model, True)
    assert len(model.trainable_weights) == len(build_tiny().trainable_weights)


# ImageNet weights


def test_a_failed_download_gives_a_one_line_error_with_the_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(_: str, origin: str, **__: Any) -> None:
        try:
            raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))
        except urllib.error.URLError as error:
            # Without a connection, keras.utils.get_file raises a plain Exception.
            raise Exception(f"URL fetch failure on {origin}: None -- {error.reason}") from error

    monkeypatch.setattr(sys.modules[keras.utils.get_file.__module__], "get_file", offline)
    with pytest.raises(UserError) as raised:
        build_network(model="mobilenet", num_classes=3, image_size=32, weights="imagenet")
    message = str(raised.value)
    assert message.startswith("--weights=imagenet could not be downloaded (<urlopen error")
    assert "name resolution" in message
    assert "--weights=none" in message
    assert ".weights.h5" in message
    assert "\n" not in message


def test_imagenet_weights_reach_the_fused_body(
    monkeypatch: pytest.MonkeyPatch, stock_mobilenet: keras.Model
) -> None:
    original = keras.applications.MobileNet

    def downloaded(*, weights: str, **options: Any) -> keras.Model:
        assert weights == "imagenet"
        body = original(weights=None, **options)
        body.set_weights(stock_mobilenet.get_weights())
        return body

    monkeypatch.setattr(keras.applications, "MobileNet", downloaded)
    model = build_network(model="MobileNet", num_classes=3, image_size=32, weights="imagenet")
    assert_same(body_weights(model), stock_mobilenet.get_weights())


def test_tiny_has_no_imagenet_weights() -> None:
    with pytest.raises(UserError, match="--weights=imagenet: Tiny has no ImageNet weights"):
        build_tiny(weights="imagenet")


# Weights files


def test_a_weights_file_of_a_stock_resnet_loads_into_the_body(
    stock_resnet: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stock.weights.h5"
    stock_resnet.save_weights(path)
    model = build_network(model="ResNet50", num_classes=3, image_size=48, weights=str(path))
    assert_same(body_weights(model), stock_resnet.get_weights())
    assert "all weights were loaded except the classifier" in capsys.readouterr().out


@pytest.mark.parametrize("file_name", ["mobilenet_notop.h5", "body.keras", "body.weights.h5"])
def test_the_weights_of_a_body_are_loaded_from_every_type_of_file(
    file_name: str, stock_mobilenet: keras.Model, tmp_path: Path
) -> None:
    path = tmp_path / file_name
    write = stock_mobilenet.save_weights if ".weights." in file_name else stock_mobilenet.save
    write(path)
    model = build_network(model="MobileNet", num_classes=3, image_size=32, weights=str(path))
    assert_same(body_weights(model), stock_mobilenet.get_weights())


def test_weights_files_of_efficientnet_give_a_warning_about_a_layer_they_may_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "body.weights.h5"
    options = {"include_top": False, "weights": None, "input_shape": (32, 32, 3)}
    keras.applications.EfficientNetB0(**options).save_weights(path)
    build_network(model="EfficientNetB0", num_classes=3, image_size=32, weights=str(path))
    assert "built only with --weights=imagenet" in capsys.readouterr().out


@pytest.mark.parametrize("file_name", ["whole.keras", "whole.weights.h5"])
def test_the_head_is_loaded_only_if_the_number_of_classes_is_equal(
    file_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, trained = tmp_path / file_name, build_tiny(seed=1)
    write = trained.save_weights if ".weights." in file_name else trained.save
    write(path)
    assert_same(build_tiny(weights=str(path), seed=2).get_weights(), trained.get_weights())
    assert capsys.readouterr().out == ""
    other = build_tiny(num_classes=5, weights=str(path), seed=2)
    assert_same(body_weights(other), body_weights(trained))
    assert_same(other.get_weights()[-2:], build_tiny(num_classes=5, seed=2).get_weights()[-2:])
    assert "classifier" in capsys.readouterr().out


def write_unusable_files(folder: Path) -> dict[str, Path]:
    """Writes files that cannot be loaded as weights or model; returns their paths by name."""
    whole = folder / "whole.keras"
    save_model(build_tiny(), whole)
    build_tiny().save_weights(folder / "whole.weights.h5")
    contents = {
        "truncated.keras": whole.read_bytes()[:-3000],
        "truncated.weights.h5": (folder / "whole.weights.h5").read_bytes()[:-3000],
        "empty.keras": b"",
        "empty.weights.h5": b"",
        "text.keras": b"not a zip",
        "text.h5": b"not HDF5",
        "model.ckpt": whole.read_bytes(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with h5py.File(folder / "foreign.weights.h5", "w") as file:
        file["table"] = np.arange(3)
    shutil.make_archive(str(folder / "foreign"), "zip", folder, "text.h5")
    (folder / "foreign.zip").rename(folder / "foreign.keras")
    (folder / "folder.keras").mkdir()
    others = ("foreign.weights.h5", "foreign.keras", "folder.keras")
    return {name: folder / name for name in (*contents, *others)}


def test_unusable_weights_files_give_a_one_line_error(tmp_path: Path) -> None:
    for path in write_unusable_files(tmp_path).values():
        with pytest.raises(UserError) as raised:
            build_tiny(weights=str(path))
        message = str(raised.value)
        assert message.startswith(f"--weights={path} ")
        assert "\n" not in message
        assert "no such" not in message


def test_a_missing_weights_file_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--weights=.*gone\.keras: no such file"):
        build_tiny(weights=str(tmp_path / "gone.keras"))


def test_weights_of_another_network_are_refused(
    stock_mobilenet: keras.Model, tmp_path: Path
) -> None:
    stock_mobilenet.save_weights(tmp_path / "mobilenet.weights.h5")
    stock_mobilenet.save(tmp_path / "mobilenet.h5")
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=r"does not fit this network .* --model, here tiny"):
            build_tiny(weights=str(path))


# Saved models


def test_a_loaded_model_equals_the_saved_one(tmp_path: Path) -> None:
    model = build_tiny()
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert isinstance(loaded.get_layer("conv1_bn"), FusedBatchNormalization)
    np.testing.assert_array_equal(
        loaded.predict(random_images(16), verbose=0), model.predict(random_images(16), verbose=0)
    )


def test_a_mixed_precision_model_keeps_its_precision(tmp_path: Path) -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    save_model(build_tiny(), tmp_path / "model.keras")
    keras.mixed_precision.set_global_policy("float32")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.get_layer("conv1").compute_dtype == "bfloat16"
    assert loaded.predict(random_images(16), verbose=0).dtype == np.float32


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "model.keras", build_tiny()
    save_model(model, path)
    before = path.read_bytes()

    def disk_full(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_model(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unusable_model_files_are_reported_as_damaged_or_not_seedtf(tmp_path: Path) -> None:
    files = write_unusable_files(tmp_path)
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "other.keras")
    unsafe = keras.Model(image, keras.layers.Lambda(lambda x: x)(image))
    unsafe.save(tmp_path / "lambda.keras")
    for path in [*files.values(), tmp_path / "other.keras", tmp_path / "lambda.keras"]:
        with pytest.raises(UserError) as raised:
            load_model(path)
        assert f"{path}: the file is damaged or not a seedtf model" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_missing_model_file_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.keras: no such model file"):
        load_model(tmp_path / "gone.keras")


# Residual branches

# Some batch normalization layers end a residual branch. For each network: the pattern of the names of
# these layers, and their number.
BRANCH_ENDS = {
    "ResNet50": (r"conv\d_block\d_3_bn", 16),
    "ResNet50V2": ("", 0),  # a branch ends in a convolution
    "EfficientNetB0": (r"block\d[b-d]_project_bn", 9),
    "EfficientNetV2B0": (r"block\d[b-h]_project_bn", 15),
    "Xception": (r"block([5-9]|1[0-2])_sepconv3_bn", 8),  # the other branches end in pooling
    "MobileNetV2": (r"block_\d+_project_BN", 10),
    "MobileNetV3Small": (r"expanded_conv_\d+.project.*", 6),
    # In NASNet, only the sums after these layers add a shortcut to a branch; others add two branches.
    "NASNetMobile": (r"separable_conv_2_bn_normal_left5_\d+", 12),
    "ConvNeXtTiny": ("", 0),  # has no batch normalization
}


@pytest.mark.parametrize("model", BRANCH_ENDS)
def test_residual_branches_start_at_zero_but_the_outputs_of_images_differ(model: str) -> None:
    keras.utils.set_random_seed(0)
    size = minimum_image_size(model)
    network = build_network(
        model=model, num_classes=3, image_size=size, weights="none", zero_init_residual=True
    )
    zeroed = [
        layer.name
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.scale
        and not layer.gamma.numpy().any()
    ]
    pattern, count = BRANCH_ENDS[model]
    assert [name for name in zeroed if not re.fullmatch(pattern, name)] == []
    assert len(zeroed) == count
    # ``training=True`` normalizes by the statistics of the batch. Without them, a deep network with
    # initial weights would give all images equal outputs.
    probabilities = np.asarray(network(random_images(size, 4).astype(np.float32), training=True))
    assert np.ptp(probabilities, axis=0).max() > 0.01
