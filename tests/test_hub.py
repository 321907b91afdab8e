"""Networks of KerasHub train, resume, evaluate, predict and export as other networks do."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hub_presets import (
    CONVERTER,
    SIZES,
    TINY,
    write_preset,
    write_timm_resnet18,
    write_transformers_vit,
)

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.export.export import export_run
from seedtf.export.formats import convert, rebuild_in_float32
from seedtf.export.serving_graph import ServingModule
from seedtf.model.batch_norm import FusedBatchNormalization
from seedtf.model.network import (
    build_features,
    build_network,
    load_model,
    save_model,
    set_body_trainable,
)
from seedtf.model.presets import find_preset
from seedtf.runs.open import load_run, open_validation
from seedtf.runs.presets import read_preset
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.optim.param_groups import layerwise_lr, no_decay_variables
from seedtf.training.state import capture_state, restore_optimizer, restore_weights
from seedtf.training.trainer import Trainer

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("keras_hub") is None,
        reason="KerasHub is not installed: seedtf[hub]",
    ),
    pytest.mark.usefixtures("module_without_figures"),
]

NUM_CLASSES = 3


def pixels_of(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.float32)


class Family:
    """A preset of a network family, a network with the preset's weights, and images of its size."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.size = name, folder, SIZES[name]
        self.network = self.build("imagenet")
        self.pixels = pixels_of(self.size)

    def build(self, weights: str) -> keras.Model:
        return build_network(
            model=str(self.folder),
            num_classes=NUM_CLASSES,
            image_size=self.size,
            weights=weights,
            bn_momentum=0.7,
        )

    def make_trainer(self, network: keras.Model) -> Trainer:
        trainer = Trainer(network)
        scales = layerwise_lr(network, 0.01)
        optimizer = make_optimizer("adamw", 1e-2, weight_decay=0.01, lr_scales=scales)
        trainer.compile_for(optimizer, jit_compile=False)
        trainer.run_eagerly = True  # tracing would take most of the time of these tests
        return trainer


@pytest.fixture(scope="module", params=TINY)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    root = tmp_path_factory.mktemp("family")
    return Family(request.param, write_preset(root / "preset", request.param))


def test_features_equal_those_of_keras_hub_behind_its_own_scaling(family: Family) -> None:
    import keras_hub

    options = {"image_shape": (family.size, family.size, 3)} if "DINO" in family.name else {}
    preset = find_preset(str(family.folder))
    assert preset is not None
    description = preset.backbone
    backbone = getattr(keras_hub.models, family.name)(**{**description["config"], **options})
    backbone.load_weights(str(family.folder / "model.weights.h5"))
    scaled = family.pixels * np.float32(CONVERTER["scale"]) + np.float32(CONVERTER["offset"])
    inputs = {"images": scaled} if isinstance(backbone.input, dict) else scaled
    expected = np.asarray(backbone(inputs, training=False))
    if expected.ndim == 3:
        # The output has a class token, register tokens (only in DINOV2), and the tokens of the patches,
        # row by row. Only the tokens of the patches belong to the feature map.
        num_skipped, side = {"ViTBackbone": (1, 4), "DINOV2Backbone": (3, 2)}[family.name]
        expected = expected[:, num_skipped:].reshape(2, side, side, -1)
    body = keras.Model(family.network.input, family.network.get_layer("pool").input)
    np.testing.assert_allclose(body(family.pixels), expected, atol=2e-4, rtol=2e-4)


def test_a_saved_network_predicts_the_same(family: Family, tmp_path: Path) -> None:
    network = family.network
    norms = [x for x in network.get_layer("backbone").backbone.layers if "batch" in x.name]
    assert all(type(x) is FusedBatchNormalization for x in norms)
    values = [np.asarray(variable) for variable in network.variables]
    save_model(network, tmp_path / "model.keras", values)
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(family.pixels), network(family.pixels))
    # A network with another number of classes can take the initial weights of its body from the file.
    other = build_network(
        model=str(family.folder),
        num_classes=NUM_CLASSES + 1,
        image_size=family.size,
        weights=str(tmp_path / "model.keras"),
    )
    body, wanted = other.get_layer("backbone"), network.get_layer("backbone")
    for value, expected in zip(body.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_converted_networks_predict_the_same(family: Family, tmp_path: Path) -> None:
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    module = ServingModule(family.network, ("a", "b", "c"), 1.0, str(tmp_path / "classes.txt"))
    expected = family.network(family.pixels)
    session = onnxruntime.InferenceSession(convert(module, "onnx", family.pixels))
    (onnx,) = session.run(None, {"pixels": family.pixels})
    np.testing.assert_allclose(onnx, expected, atol=1e-4)
    interpreter = Interpreter(model_content=convert(module, "litert", family.pixels))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], family.pixels[:1])
    interpreter.invoke()
    litert = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(litert, expected[:1], atol=1e-4)


def test_a_restored_state_trains_on_with_the_same_bits(family: Family) -> None:
    labels = np.array([0, 2], np.int32)
    network = family.build("imagenet")  # the other tests need the fixture's network untrained
    trainer = family.make_trainer(network)
    trainer.train_on_batch(family.pixels, labels)
    state = capture_state(trainer, epoch=0, step=0, facts={})
    trainer.train_on_batch(family.pixels, labels)
    other = family.build("none")
    restored = family.make_trainer(other)
    restore_weights(other, state)
    restore_optimizer(restored, state)
    restored.train_on_batch(family.pixels, labels)
    for value, wanted in zip(other.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_a_frozen_body_does_not_change(family: Family) -> None:
    network = family.build("imagenet")
    set_body_trainable(network, False)
    body = network.get_layer("backbone")
    before, head = body.get_weights(), network.get_layer("logits").get_weights()
    trainer = family.make_trainer(network)
    trainer.train_on_batch(family.pixels, np.array([0, 2], np.int32))
    assert len(trainer.optimizer.variables) < 10
    for value, wanted in zip(body.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert np.abs(network.get_layer("logits").get_weights()[0] - head[0]).min() > 0


def test_the_rates_of_a_vision_transformer_rise_by_block(family: Family) -> None:
    scales = layerwise_lr(family.network, 0.01)
    assert set(scales) == {variable.path for variable in family.network.weights}
    if "ResNet" not in family.name and "Efficient" not in family.name:
        # From the largest scale: the head, which has the full rate; the last normalization; two blocks;
        # the embedding.
        expected = [0.01 ** (k / 4) for k in range(5)]
        np.testing.assert_allclose(sorted(set(scales.values())), sorted(expected))
        no_decay = {each.path.rpartition("/")[2] for each in no_decay_variables(family.network)}
        tokens = {"class_token"} if "ViT" in family.name else {"cls_token", "register_tokens"}
        assert tokens < no_decay
        assert not any("kernel" in name for name in no_decay)


def test_batch_norm_inside_other_layers_is_fused(tmp_path: Path) -> None:
    family = Family("EfficientNetBackbone", write_preset(tmp_path, "EfficientNetBackbone"))
    layers = family.network.get_layer("backbone").backbone.layers
    block = next(layer for layer in layers if hasattr(layer, "bn2"))
    assert type(block.bn2) is FusedBatchNormalization
    assert block.bn2.momentum == 0.7
    # KerasHub's own get_config omits nores (no residual), so that a loaded network would differ.
    assert block.nores
    assert family.network.get_layer("pool").input.shape[-1] == 24


def test_every_layer_of_a_backbone_has_the_precision_of_the_run(tmp_path: Path) -> None:
    folder = write_preset(tmp_path / "preset", "EfficientNetBackbone")
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        network = build_network(
            model=str(folder), num_classes=NUM_CLASSES, image_size=32, weights="imagenet"
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    save_model(network, tmp_path / "model.keras")
    loaded, pixels = load_model(tmp_path / "model.keras"), pixels_of(32)
    for model in (network, loaded):
        layers = model.get_layer("backbone").backbone.layers[1:]
        assert {layer.compute_dtype for layer in layers} == {"bfloat16"}
    assert keras.mixed_precision.dtype_policy().name == "float32"
    exported = rebuild_in_float32(loaded)
    assert {x.compute_dtype for x in exported.get_layer("backbone").backbone.layers} == {"float32"}
    np.testing.assert_allclose(exported(pixels), loaded(pixels), atol=0.05)


@pytest.mark.parametrize("change", [-0.1, 0.1])
def test_trained_position_embeddings_are_saved_exactly(tmp_path: Path, change: float) -> None:
    folder = str(write_preset(tmp_path / "preset", "DINOV2Backbone"))
    model = build_network(model=folder, num_classes=3, image_size=28, weights="imagenet")
    embeddings = model.get_layer("backbone").backbone.embeddings.interpolated_position_embeddings
    embeddings.assign(embeddings + change)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras").get_layer("backbone").backbone.embeddings
    np.testing.assert_array_equal(loaded.interpolated_position_embeddings, embeddings)


def test_files_of_timm_are_converted(tmp_path: Path) -> None:
    tensors = write_timm_resnet18(tmp_path / "resnet18.a1_in1k")
    pixels = pixels_of(64, 1)
    model = build_features(str(tmp_path / "resnet18.a1_in1k"), 64, "imagenet")
    scaled = (pixels / 255 - np.float32([0.4, 0.5, 0.6])) / np.float32([0.2, 0.25, 0.3])
    expected = resnet18(tensors, tf.constant(scaled))
    np.testing.assert_allclose(model(pixels), expected, rtol=2e-3, atol=2e-3)


def resnet18(tensors: dict[str, np.ndarray], x: tf.Tensor) -> tf.Tensor:
    """torchvision's ResNet-18 up to its last feature map, in plain TensorFlow."""

    def conv(x: tf.Tensor, name: str, stride: int = 1) -> tf.Tensor:
        kernel = tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
        pad = kernel.shape[0] // 2
        padded = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        return tf.nn.conv2d(padded, kernel, stride, "VALID")

    def norm(x: tf.Tensor, name: str) -> tf.Tensor:
        parts = [tensors[f"{name}.{part}"] for part in ("running_mean", "running_var")]
        return tf.nn.batch_normalization(
            x, *parts, tensors[f"{name}.bias"], tensors[f"{name}.weight"], 1e-5
        )

    x = tf.nn.relu(norm(conv(x, "conv1", 2), "bn1"))
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in tensors:
                shortcut = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = tf.nn.relu(norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1"))
            x = tf.nn.relu(norm(conv(x, f"{name}.conv2"), f"{name}.bn2") + shortcut)
    return x


def test_files_of_transformers_are_converted(tmp_path: Path) -> None:
    import keras_hub

    folder = tmp_path / "small-vit"
    write_transformers_vit(folder)
    preset = find_preset(str(folder))
    assert preset is not None
    assert (preset.licence, preset.sizes.only, preset.converted) == ("apache-2.0", 32, True)
    pixels = pixels_of(32)
    scaled = (pixels / 255 - np.float32([0.5, 0.4, 0.3])) / np.float32([0.5, 0.2, 0.1])
    tokens = keras_hub.models.Backbone.from_preset(str(folder))(scaled)
    features = build_features(str(folder), 32, "imagenet")(pixels)
    np.testing.assert_allclose(features, np.reshape(tokens[:, 1:], (2, 4, 4, 16)), atol=1e-4)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="its weights cannot be loaded"):
        build_features(str(folder), 32, "imagenet")


def test_an_architecture_without_a_converter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "convnext_tiny"}))
    with pytest.raises(UserError, match=r"KerasHub cannot convert this network .*convnext_tiny"):
        find_preset(str(tmp_path))


@pytest.mark.parametrize("change", ["module", "class", "width", "position"])
def test_hostile_networks_are_refused_before_anything_is_built(
    family: Family, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "model.keras"
    save_model(family.network, path)
    rewrite_config(path, change)
    with pytest.raises(UserError, match="damaged or not a seedtf model"):
        load_model(path)


def rewrite_config(path: Path, change: str) -> None:
    """Replaces one value in the configuration of the backbone in a ``.keras`` file."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    layers = config["config"]["layers"]
    layer = next(each for each in layers if each["class_name"] == "KerasHubBackbone")
    backbone = layer["config"]["backbone"]
    if change == "module":
        backbone["module"] = "keras_hub.src.models.clip.clip_backbone"
    elif change == "class":
        backbone["class_name"] = "Task"
    elif change == "width":
        widths = ("hidden_dim", "stackwise_num_filters", "stackwise_output_filters")
        name = next(each for each in widths if each in backbone["config"])
        value = backbone["config"][name]
        backbone["config"][name] = 10**8 if isinstance(value, int) else [10**8] * len(value)
    else:
        backbone["config"]["image_shape"] = [10**6, 10**6, 3]
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: Any) -> TrainConfig:
    """The configuration of a finished run of two epochs, whose preset has been removed."""
    from seedtf.training.train import train_and_evaluate

    root = tmp_path_factory.mktemp("hub_run")
    folder = write_preset(root / "preset", "ViTBackbone")
    config = TrainConfig(
        data_dir=str(tiny_folder),
        run_dir=str(root / "run"),
        model=str(folder),
        image_size=32,
        epochs=2,
        batch_size=4,
        val_fraction=0.34,
        body_lr_factor=0.1,
        cache="ram",
    )
    train_and_evaluate(config)
    shutil.rmtree(folder)
    return config


def test_a_run_records_its_preset_and_its_licence(run: TrainConfig) -> None:
    preset = read_preset(run.run_dir)
    assert preset is not None
    assert (preset.name, preset.licence, preset.parameters) == ("preset", "mit", 1234)
    environment = json.loads((Path(run.run_dir) / "env.json").read_text())
    assert environment["weights_licence"] == "mit"
    assert environment["keras-hub"]


def test_a_run_resumes_exactly_without_its_preset(run: TrainConfig, tmp_path: Path) -> None:
    from seedtf.training.train import train_and_evaluate

    resumed, whole = Path(shutil.copytree(run.run_dir, tmp_path / "run")), Path(run.run_dir)
    # Without its last state, the copy has to train the last part of the run again.
    sorted((resumed / "state").glob("*.state"))[-1].unlink()
    for name in ("best", "last"):
        (resumed / "checkpoints" / f"{name}.keras").unlink()
    train_and_evaluate(replace(run, run_dir="", resume=str(resumed)))
    assert (resumed / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    found, wanted = (
        load_model(run_dir / "checkpoints" / "last.keras").get_weights()
        for run_dir in (resumed, whole)
    )
    for value, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.usefixtures("forked_subprocesses")
def test_a_run_is_evaluated_and_exported_without_its_preset(run: TrainConfig) -> None:
    evaluate_run(run.run_dir)
    opened = load_run(run.run_dir)
    out = Path(run.run_dir) / "export"
    exported = export_run(opened, out, *open_validation(opened))
    assert exported.rows[0].top1_agreement == 1.0
    parity = json.loads((exported.folder / "assets.extra" / "parity.json").read_text())
    assert parity["weights_licence"] == "mit"
