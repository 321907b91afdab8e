"""Networks of KerasHub: presets train, resume, evaluate, predict and export as others do."""

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

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.model.batch_norm import FusedBatchNormalization
from seedtf.model.network import build_features, build_network, load_model, save_model
from seedtf.model.presets import ImageSizes, Preset, find_preset, is_preset
from seedtf.runs.folder import read_preset, resolve_preset, resolve_weights
from seedtf.training.machine import Machine
from seedtf.training.optim.param_groups import layerwise_lr
from seedtf.training.resolve import resolve

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not installed: seedtf[hub]"
)

TINY = {
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0],
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [1, 2],
        "stackwise_input_filters": [8, 8],
        "stackwise_output_filters": [8, 16],
        "stackwise_expansion_ratios": [1, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        "stackwise_strides": [1, 2],
        "stackwise_block_types": ["v1", "unfused"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, True],
        "num_features": 24,
    },
    "ResNetBackbone": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 64],
        "stackwise_num_blocks": [1, 1],
        "stackwise_num_strides": [1, 2],
        "block_type": "basic_block",
    },
    "ViTBackbone": {
        "image_shape": [32, 32, 3],
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 32,
    },
    "DINOV2Backbone": {
        "patch_size": 14,
        "num_layers": 2,
        "hidden_dim": 16,
        "num_heads": 2,
        "intermediate_dim": 32,
        "num_register_tokens": 2,
        "image_shape": [56, 56, 3],
        "position_embedding_shape": [56, 56],
    },
}
"""Arguments of a small backbone of each family, by its class."""

VIT = {"module": "", "class_name": "ViTBackbone", "config": TINY["ViTBackbone"]}
PRESET = Preset("/x/vit", VIT, 1.0, 0.0, ImageSizes(minimum=1, only=32), "mit", 0)

SIZES = {"EfficientNetBackbone": 32, "ResNetBackbone": 32, "ViTBackbone": 32, "DINOV2Backbone": 28}
CONVERTER = {"scale": [0.02, 0.01, 0.03], "offset": [-2.0, -1.0, 0.5]}


def write_preset(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Saves a small backbone with random weights as KerasHub does, with every variable changed."""
    import keras_hub

    keras.utils.set_random_seed(seed)
    backbone = getattr(keras_hub.models, name)(**TINY[name])
    for variable in backbone.weights:
        variable.assign(variable + 0.05 * np.random.default_rng(seed).random(variable.shape))
    backbone.save_to_preset(str(folder))
    # KerasHub leaves these two arguments out of the files it writes itself
    config = json.loads((folder / "config.json").read_text())
    config["config"].update(TINY[name])
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "image_converter.json").write_text(json.dumps({"config": CONVERTER}))
    (folder / "README.md").write_text("---\nlibrary_name: keras-hub\nlicense: mit\n---\n# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("presets")
    return {name: write_preset(root / name.lower(), name) for name in TINY}


@needs_hub
@pytest.mark.parametrize("name", TINY)
def test_features_equal_those_of_keras_hub_behind_its_own_scaling(
    presets: dict[str, Path], name: str
) -> None:
    import keras_hub

    size = SIZES[name]
    model = build_features(str(presets[name]), size, "imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    features = model.predict(pixels, verbose=0)
    options = {"image_shape": (size, size, 3)} if name == "DINOV2Backbone" else {}
    backbone = keras_hub.models.Backbone.from_preset(str(presets[name]), **options)
    scaled = pixels * np.array(CONVERTER["scale"]) + np.array(CONVERTER["offset"])
    scaled = {"images": scaled} if isinstance(backbone.input, dict) else scaled
    expected = np.asarray(backbone(tf.nest.map_structure(np.float32, scaled), training=False))
    if expected.ndim == 3:  # tokens: the class token, the register tokens, then row by row
        skipped = {"ViTBackbone": 1, "DINOV2Backbone": 3}[name]
        side = {"ViTBackbone": 4, "DINOV2Backbone": 2}[name]
        expected = expected[:, skipped:].reshape(2, side, side, -1)
    np.testing.assert_allclose(features, expected, atol=1e-4, rtol=1e-4)


@needs_hub
def test_batch_norm_inside_other_layers_is_fused(presets: dict[str, Path], tmp_path: Path) -> None:
    folder = str(presets["EfficientNetBackbone"])
    model = build_network(
        model=folder, num_classes=3, image_size=32, weights="imagenet", bn_momentum=0.7
    )
    block = next(x for x in model.get_layer("backbone").backbone.layers if hasattr(x, "bn2"))
    assert type(block.bn2) is FusedBatchNormalization
    assert block.bn2.momentum == 0.7
    save_model(model, tmp_path / "model.keras")
    pixels = np.random.default_rng(0).random((2, 32, 32, 3), np.float32) * 255
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
    )


@needs_hub
@pytest.mark.parametrize("change", [-0.1, 0.1])
def test_trained_position_embeddings_are_saved_exactly(
    presets: dict[str, Path], tmp_path: Path, change: float
) -> None:
    folder = str(presets["DINOV2Backbone"])
    model = build_network(model=folder, num_classes=3, image_size=28, weights="imagenet")
    embeddings = model.get_layer("backbone").backbone.embeddings.interpolated_position_embeddings
    embeddings.assign(embeddings + change)
    save_model(model, tmp_path / "model.keras", [np.asarray(v) for v in model.variables])
    loaded = load_model(tmp_path / "model.keras").get_layer("backbone").backbone.embeddings
    np.testing.assert_array_equal(loaded.interpolated_position_embeddings, embeddings)


@needs_hub
def test_the_rates_of_a_vision_transformer_rise_by_block(presets: dict[str, Path]) -> None:
    for name in ("ViTBackbone", "DINOV2Backbone"):
        network = build_network(
            model=str(presets[name]), num_classes=3, image_size=SIZES[name], weights="none"
        )
        scales = layerwise_lr(network, 0.01)
        assert set(scales) == {variable.path for variable in network.weights}
        # embedding, two blocks, last normalization; the head has the full rate
        expected = {0.01 ** (k / 4) for k in range(5)}
        np.testing.assert_allclose(sorted(set(scales.values())), sorted(expected))


@pytest.mark.parametrize(
    ("sizes", "size", "words"),
    [
        (ImageSizes(only=224), 96, "pass --image_size=224"),
        (ImageSizes(minimum=14, multiple=14), 100, "pass 98 or 112"),
        (ImageSizes(minimum=14, multiple=14), 7, "takes 14 or more"),
        (ImageSizes(minimum=32), 16, "takes 32 or more"),
    ],
)
def test_an_image_size_that_does_not_work_is_one_line(
    sizes: ImageSizes, size: int, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        sizes.check("name", size)


def test_a_folder_is_told_from_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resnet50").mkdir()
    Path("mine").mkdir()
    assert [is_preset(x) for x in ("resnet50", "./resnet50", "mine", "other")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no KerasHub preset"),
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"class_name": "GemmaBackbone", "config": {}}', "GemmaBackbone, which is no image"),
    ],
)
def test_a_folder_without_an_image_network_is_refused(
    tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=words):
        find_preset(str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        find_preset(str(tmp_path / "missing"))


def test_without_keras_hub_one_line_says_what_to_install() -> None:
    with pytest.raises(
        UserError, match=r"--model=.*x/y: needs KerasHub.*pip install 'seedtf\[hub\]'"
    ):
        resolve(TrainConfig(data_dir="x", model="x/y"), Machine(hub=False), PRESET)


@pytest.fixture(scope="module")
def run(presets: dict[str, Path], tiny_folder: Path, tmp_path_factory: Any) -> TrainConfig:
    """A finished run of two epochs; its preset has been moved away."""
    from seedtf.training.train import train_and_evaluate

    root = tmp_path_factory.mktemp("hub_run")
    folder = shutil.copytree(presets["EfficientNetBackbone"], root / "preset")
    config = TrainConfig(
        data_dir=str(tiny_folder),
        run_dir=str(root / "run"),
        model=str(folder),
        image_size=32,
        epochs=2,
        batch_size=4,
        val_fraction=0.34,
        freeze_epochs=1,
        body_lr_factor=0.1,
        cache="ram",
    )
    train_and_evaluate(config)
    shutil.rmtree(folder)
    return config


@needs_hub
def test_a_run_records_its_preset(run: TrainConfig) -> None:
    preset = read_preset(run.run_dir)
    assert preset is not None
    assert (preset.name, preset.licence, preset.parameters > 0) == ("preset", "mit", True)


@needs_hub
def test_a_run_resumes_to_the_byte_without_the_folder(run: TrainConfig, tmp_path: Path) -> None:
    from seedtf.training.train import train_and_evaluate

    resumed = shutil.copytree(run.run_dir, tmp_path / "run")
    states = sorted((resumed / "state").glob("*.state"))
    states[-1].unlink()
    train_and_evaluate(replace(run, run_dir="", resume=str(resumed)))
    for name in ("history.csv", "checkpoints/last.keras"):
        assert (resumed / name).stat().st_size == (Path(run.run_dir) / name).stat().st_size
    assert (resumed / "history.csv").read_bytes() == (
        Path(run.run_dir) / "history.csv"
    ).read_bytes()
    one, other = (load_model(Path(x) / "checkpoints/last.keras") for x in (resumed, run.run_dir))
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@needs_hub
def test_a_run_is_the_first_weights_of_another_one_without_the_folder(run: TrainConfig) -> None:
    best = resolve_weights(run.run_dir)
    preset = resolve_preset(replace(run, weights=best, run_dir=""))
    assert preset == read_preset(run.run_dir)


def test_progressive_sizes_are_refused_where_position_embeddings_have_one_size() -> None:
    config = TrainConfig(data_dir="x", model="/x/vit", image_size=32, progressive_sizes="16")
    with pytest.raises(UserError, match="--progressive_sizes=16: --model=vit takes one image size"):
        resolve(config, Machine(), PRESET)
