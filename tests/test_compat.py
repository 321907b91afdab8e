"""``seedtf.compat`` hides the differences between the Keras 3 and the Keras 2.15 environment."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from seedtf.compat.keras import (
    KERAS_2,
    all_variables,
    build_optimizer,
    check_keras_version,
    keep_random_states_in_variables,
    metrics_variables,
    optimizer_variables,
)
from seedtf.compat.tensorflow import gpu_memory_limits, has_addons, import_addons
from seedtf.errors import UserError
from seedtf.images import header
from seedtf.images.header import read_header
from seedtf.images.transcode import to_decodable
from seedtf.model.network import build_network, load_model, save_model
from seedtf.training.optim.choice import check_strategy, describe_optimizer, first_averaged_epoch
from seedtf.training.optim.optimizers import make_optimizer


def model_with_dropout() -> keras.Model:
    keep_random_states_in_variables()
    image = keras.Input((8,))
    return keras.Model(image, keras.layers.Dropout(0.5)(keras.layers.Dense(8)(image)))


def test_without_a_gpu_no_memory_limit_is_known() -> None:
    assert gpu_memory_limits() == []


def test_the_random_state_of_dropout_can_be_restored() -> None:
    model = model_with_dropout()
    ones = np.ones((4, 8), np.float32)
    model(ones, training=True)
    states = [variable.numpy() for variable in all_variables(model)]
    assert len(states) == 3  # kernel, bias, random state
    outputs = [model(ones, training=True).numpy() for _ in range(3)]
    assert not np.array_equal(outputs[0], outputs[1])
    for variable, value in zip(all_variables(model), states, strict=True):
        variable.assign(value)
    repeated = [model(ones, training=True).numpy() for _ in range(3)]
    assert np.array_equal(repeated, outputs)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_optimizer_variables_include_the_step_count_and_the_slots(name: str) -> None:
    model = model_with_dropout()
    optimizer = make_optimizer(name, 0.125)
    build_optimizer(optimizer, model.trainable_variables)
    shapes = [tuple(variable.shape) for variable in optimizer_variables(optimizer)]
    slots = {"adam": 2, "adamw": 2, "sgd": 1, "rmsprop": 1}[name]
    assert shapes.count((8, 8)) == shapes.count((8,)) == slots
    assert float(optimizer.learning_rate) == 0.125
    counts = [v for v in optimizer_variables(optimizer) if "int" in str(v.dtype)]
    assert [int(count.numpy()) for count in counts] == [0]


def test_the_loss_scale_is_one_of_the_optimizer_variables() -> None:
    model = model_with_dropout()
    plain = make_optimizer("adam", 0.1)
    build_optimizer(plain, model.trainable_variables)
    scaled = keras.mixed_precision.LossScaleOptimizer(make_optimizer("adam", 0.1))
    build_optimizer(scaled, model.trainable_variables)
    scales = [v for v in optimizer_variables(scaled) if v.shape == () and v.numpy() > 1e3]
    assert len(scales) == 1
    assert len(optimizer_variables(scaled)) >= len(optimizer_variables(plain)) + 2


def test_metrics_variables_include_the_image_counts_of_loss_and_accuracy() -> None:
    model = model_with_dropout()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.test_on_batch(np.ones((4, 8), np.float32), np.zeros(4, np.int32))
    sums = [float(variable.numpy()) for variable in metrics_variables(model)]
    assert sums.count(4.0) >= 2  # loss and accuracy each count the four images


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "m.keras"
    save_model(build_network(model="tiny", num_classes=2, image_size=8, weights="none"), path)
    return path


def test_a_model_of_the_other_keras_version_is_refused(model_file: Path) -> None:
    check_keras_version(model_file)
    other = "3.15.1" if KERAS_2 else "2.15.0"
    with zipfile.ZipFile(model_file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["metadata.json"] = json.dumps({"keras_version": other}).encode()
    with zipfile.ZipFile(model_file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(
        UserError, match=f"written by Keras {other}, but this environment has Keras"
    ):
        load_model(model_file)


def test_a_model_file_without_a_keras_version_passes(tmp_path: Path) -> None:
    (tmp_path / "no.keras").write_bytes(b"PK")
    check_keras_version(tmp_path / "no.keras")
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as archive:
        archive.writestr("metadata.json", "[]")
    check_keras_version(tmp_path / "odd.keras")


def test_pillow_decodes_webp_if_tensorflow_cannot(monkeypatch) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "WEBP")
    monkeypatch.setattr(header, "DECODES_WEBP", False)
    webp_header = read_header(encoded.getvalue())
    assert webp_header.needs_pillow
    data, header_values = to_decodable(encoded.getvalue(), webp_header)
    # The values are width, height, orientation and has_alpha.
    assert (data[:2], header_values) == (b"BM", (8, 8, 1, 0))


def test_addons_are_imported_or_the_error_names_what_to_install() -> None:
    if has_addons():
        assert KERAS_2
        assert import_addons("this test").__version__.startswith("0.23")
    else:
        with pytest.raises(
            UserError, match=r"this test: needs TensorFlow Addons.*seedtf\[addons\]"
        ):
            import_addons("this test")


@pytest.mark.parametrize("name", ["lookahead", "ranger", "swa"])
def test_optimizers_that_wrap_another_are_refused_on_several_devices(name: str) -> None:
    check_strategy(name, "none")
    check_strategy("radam", "mirrored")
    with pytest.raises(UserError, match=rf"--optimizer={name}: .*--strategy is mirrored.*=none"):
        check_strategy(name, "mirrored")


def test_an_optimizer_is_described_with_what_it_wraps_and_when_it_averages() -> None:
    assert describe_optimizer("adam", 10) == "adam"
    assert describe_optimizer("ranger", 10).startswith("ranger (lookahead around radam)")
    assert "end of every epoch from epoch 8 on" in describe_optimizer("swa", 10)
    # These are counted from 0, so 7 is the epoch that users call 8.
    assert [first_averaged_epoch(epochs) for epochs in (1, 4, 10, 200)] == [0, 3, 7, 150]
