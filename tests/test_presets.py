"""Presets, the pretrained networks of KerasHub: what their files state, and where the files are found.

No test loads weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_presets import TINY, write_texts

from seedtf.commands.main import run_command
from seedtf.compat.keras_hub import builtin_presets
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.model.backbones import PACKAGES, ImageSizes, check_backbone, image_sizes_from_name
from seedtf.model.families import weights_licence
from seedtf.model.listing import PARAMETERS, list_models
from seedtf.model.presets import Preset, find_preset, is_folder, is_preset
from seedtf.report import silent
from seedtf.runs.presets import initial_weights_licence, resolve_preset
from seedtf.training.machine import Machine
from seedtf.training.resolve import resolve

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not installed: seedtf[hub]"
)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """The folder of a preset of a vision transformer, without its weights."""
    return write_texts(tmp_path / "vit", "ViTBackbone")


def test_scaling_sizes_licence_and_parameters_are_read_from_a_preset(vit: Path) -> None:
    preset = find_preset(str(vit))
    assert preset is not None
    assert (preset.name, preset.licence, preset.parameters) == ("vit", "mit", 1234)
    assert (preset.scale, preset.offset) == ([0.02, 0.01, 0.03], [-2.0, -1.0, 0.5])
    assert preset.sizes == ImageSizes(minimum=1, only=32)
    assert Preset.from_dict(json.loads(json.dumps(preset.as_dict()))) == preset


def test_mean_and_variance_of_an_older_preset_become_its_scaling(vit: Path) -> None:
    old = {"scale": 1 / 255, "mean": [0.5, 0.25, 0.0], "variance": [0.25, 0.04, 1.0]}
    (vit / "image_converter.json").write_text(json.dumps({"config": old}))
    preset = find_preset(str(vit))
    assert preset is not None
    assert preset.scale == pytest.approx([2 / 255, 5 / 255, 1 / 255])
    assert preset.offset == pytest.approx([-1.0, -1.25, 0.0])


@pytest.mark.parametrize(
    "config, scale, offset",
    [
        (
            {"scale": None, "mean": [1.0, 2.0, 3.0], "variance": [4.0] * 3},
            [0.5] * 3,
            [-0.5, -1.0, -1.5],
        ),
        ({"scale": 0.5, "mean": None, "variance": None}, 0.5, 0.0),
        ({"scale": None, "offset": None}, 1.0, 0.0),
    ],
)
def test_a_null_in_image_converter_json_has_no_effect(
    vit: Path, config: dict[str, Any], scale: list[float] | float, offset: list[float] | float
) -> None:
    (vit / "image_converter.json").write_text(json.dumps({"config": config}))
    preset = find_preset(str(vit))
    assert preset is not None
    assert (preset.scale, preset.offset) == (scale, offset)


def test_a_preset_without_scaling_warns(vit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (vit / "image_converter.json").unlink()
    preset = find_preset(str(vit))
    assert preset is not None
    # Pixel values from 0 to 255 are scaled to the range from -1 to 1.
    assert (255 * preset.scale + preset.offset, preset.offset) == (1.0, -1.0)
    assert "has no image_converter.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sizes", "size", "message"),
    [
        (ImageSizes(only=224), 96, "pass --image_size=224"),
        (ImageSizes(minimum=14, multiple=14), 100, "pass 98 or 112"),
        (ImageSizes(minimum=14, multiple=14), 7, "takes 14 or more"),
        (ImageSizes(minimum=32), 16, "takes 32 or more"),
    ],
)
def test_an_image_size_that_the_network_cannot_take_is_refused(
    sizes: ImageSizes, size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        sizes.check("name", size)


def test_progressive_sizes_are_refused_where_position_embeddings_have_one_size(vit: Path) -> None:
    config = TrainConfig(data_dir="x", model=str(vit), image_size=32, progressive_sizes="16")
    with pytest.raises(UserError, match="--progressive_sizes=16: --model=vit takes one image size"):
        resolve(config, Machine(), find_preset(str(vit)))


def test_the_name_of_a_network_is_not_the_path_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resnet50").mkdir()
    Path("mine").mkdir()
    values = ("resnet50", "./resnet50", "mine", "other", "hf://a/b", "dinov2_small", "resnet_50")
    assert [value for value in values if is_folder(value)] == ["./resnet50", "mine"]
    assert [value for value in values if is_preset(value)] == [
        "./resnet50",
        "mine",
        "hf://a/b",
        "dinov2_small",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no pretrained network"),
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"class_name": "GemmaBackbone", "config": {}}', "GemmaBackbone, which is no image"),
        ('{"registered_name": "x>ViTBackbone", "class_name": "Lambda", "config": {}}', "Lambda"),
    ],
)
def test_a_folder_without_an_image_network_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        find_preset(str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        find_preset(str(tmp_path / "missing"))


def test_only_backbones_of_known_modules_and_classes_are_allowed() -> None:
    config = {"module": "keras_hub.src.models.vit.vit_backbone", "class_name": "ViTBackbone"}
    check_backbone(config)
    for change in ({"module": "keras_hub.models"}, {"class_name": "CLIPBackbone"}):
        with pytest.raises(ValueError, match="seedtf does not use"):
            check_backbone({**config, **change})


def test_without_keras_hub_one_line_says_what_to_install(
    vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"vit: needs KerasHub.*pip install 'seedtf\[hub\]'"):
        resolve(
            TrainConfig(data_dir="x", model=str(vit)), Machine(hub=False), find_preset(str(vit))
        )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--model=dinov2_small: needs KerasHub"):
        find_preset("dinov2_small")
    models, has_hub = list_models("resnet50")
    assert not has_hub
    assert [model.name for model in models] == ["ResNet50", "ResNet50V2"]


def test_a_folder_becomes_absolute_in_the_flags(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vit.parent)
    config = TrainConfig(data_dir="x", model="vit")
    assert config.with_absolute_paths().model == str(vit)
    address = TrainConfig(data_dir="x", model="hf://owner/name")
    assert address.with_absolute_paths().model == "hf://owner/name"


def test_an_address_of_neither_hugging_face_nor_kaggle_is_refused() -> None:
    with pytest.raises(UserError, match="--model=s3://bucket/x: pass hf://"):
        find_preset("s3://bucket/x")


@needs_hub
def test_the_presets_of_keras_hub_are_listed() -> None:
    presets = builtin_presets("x", PACKAGES)
    assert len(presets) > 90
    assert presets["dinov2_small"].parameters == 22_582_656
    # KerasHub 0.32 gives efficientnet_el, _em and _es the address of efficientnet_b1_ft, so
    # `builtin_presets` leaves them out. The next line fails if a later KerasHub corrects the addresses.
    assert not {"efficientnet_el_ra_imagenet", "efficientnet_es_ra_imagenet"} & presets.keys()
    sizes = {str(image_sizes_from_name(each.class_name, name)) for name, each in presets.items()}
    assert sizes == {"32 or more", "224", "384", "multiples of 14", "multiples of 16"}


@needs_hub
def test_a_misspelled_preset_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"did you mean .*dinov2_small"):
        find_preset("dinov2_smal")


@needs_hub
def test_a_preset_by_name_comes_from_the_cache_of_kaggle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(handle: str, path: str) -> str:
        raise ConnectionError("Name or service not known\nmore")

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    # The real package would take seconds to import.
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=unreachable))
    name = "vit_base_patch16_224_imagenet"
    with pytest.raises(UserError, match=r"could not be downloaded \(Name or service not known\)"):
        find_preset(name)
    handle = builtin_presets("x", PACKAGES)[name].handle.removeprefix("kaggle://")
    folder = write_texts(tmp_path / "models" / handle, "ViTBackbone")
    (folder / "README.md").unlink()
    assert not next(model for model in list_models(name)[0]).cached
    (folder / "model.weights.h5").touch()
    assert next(model for model in list_models(name)[0]).cached
    by_name, by_address = find_preset(name), find_preset(f"kaggle://{handle}")
    assert by_name is not None
    assert by_address is not None
    assert by_name.folder == by_address.folder == str(folder)
    # The files of KerasHub state no licence. The licence is the one of the authors of the weights.
    assert by_name.licence == by_address.licence == "apache-2.0"
    assert by_address.name == name


@needs_hub
def test_a_404_of_kaggle_means_a_missing_file_and_not_a_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_texts(tmp_path / "served", "ViTBackbone")

    def serve(handle: str, path: str) -> str:
        sys.stderr.write("a progress bar")
        if not (folder / path).exists():
            raise RuntimeError("404 Client Error: Not Found")
        return str(folder / path)

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=serve))
    address = "kaggle://owner/vit/keras/small"
    assert find_preset(address) is not None
    assert capsys.readouterr().err == ""  # stderr is no terminal here
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        assert find_preset(address) is not None
        assert "a progress bar" in capsys.readouterr().err
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="Kaggle has no such preset"):
        find_preset(address)


@needs_hub
def test_files_of_hugging_face_come_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf://owner/vit: not in the cache .* HF_HUB_OFFLINE"):
        find_preset("hf://owner/vit")
    with pytest.raises(UserError, match="write it as hf://owner/name"):
        find_preset("hf://a/b/c")
    repository = tmp_path / "models--owner--vit"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    folder = write_texts(repository / "snapshots" / "abc", "ViTBackbone")
    (folder / "model.weights.h5").touch()
    preset = find_preset("hf://owner/vit")
    assert preset is not None
    assert (preset.source, preset.folder, preset.name) == ("hf://owner/vit", str(folder), "vit")


@pytest.mark.parametrize(
    ("error", "message"), [("GatedRepoError", "HF_TOKEN"), ("OSError", "full")]
)
@needs_hub
def test_a_failed_download_gives_a_one_line_error(
    error: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants
    import huggingface_hub.errors

    def fail(*args: object, **options: object) -> str:
        if error == "OSError":
            raise OSError("disk full\nand more")
        raise huggingface_hub.errors.GatedRepoError.__new__(huggingface_hub.errors.GatedRepoError)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=message) as caught:
        find_preset("hf://owner/name")
    assert "\n" not in str(caught.value)


@needs_hub
@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_download_shows_a_bar_on_a_terminal_unless_seedtf_is_silent(
    is_hidden: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants
    import huggingface_hub.utils

    were_disabled = []

    def download(*args: object, **options: object) -> str:
        were_disabled.append(huggingface_hub.utils.are_progress_bars_disabled())
        return str(write_texts(tmp_path / "vit", "ViTBackbone"))

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    huggingface_hub.utils.enable_progress_bars()
    try:
        with silent() if is_hidden else contextlib.nullcontext():
            find_preset("hf://owner/name", with_weights=False)
        assert were_disabled == [is_hidden]
        assert not huggingface_hub.utils.are_progress_bars_disabled()
    finally:
        huggingface_hub.utils.enable_progress_bars()


def test_models_prints_json_without_importing_tensorflow() -> None:
    code = (
        "import sys; from seedtf.commands.main import main; code = main(['models', 'vgg1', '--json']);"
        "print('tensorflow' in sys.modules, code)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    table, imported = process.stdout.splitlines()
    rows = {row["name"]: row for row in json.loads(table)}
    assert rows["VGG16"] == {
        "name": "VGG16",
        "parameters": 14_714_688,
        "sizes": "32 or more",
        "licence": "cc-by-4.0",
        "extra": "",
        "cached": False,
    }
    assert imported == "False 0"


def test_models_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("models", ["vgg1"]) == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "parameters", "image", "sizes", "licence", "extra", "cached"]
    assert first.split() == ["VGG16", "14.7", "M", "32", "or", "more", "cc-by-4.0"]
    assert run_command("models", ["nothing"]) == 2


def test_cached_weights_of_keras_are_found_by_the_names_of_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    for name in (
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "mobilenet_1_0_224_tf_no_top.h5",
        "efficientnetv2-b0_notop.h5",
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
    ):
        (tmp_path / "models" / name).touch()
    cached = {model.name for model in list_models()[0] if model.cached and not model.extra}
    assert cached == {"ResNet50V2", "MobileNetV3Small", "MobileNet", "EfficientNetV2B0"}


def test_the_number_of_parameters_of_every_network_of_keras_is_listed() -> None:
    import keras

    from seedtf.model.network import available_models

    assert {*PARAMETERS, "Tiny"} == set(available_models())
    with keras.StatelessScope(initialize_variables=False):
        body = keras.applications.MobileNetV2(include_top=False, weights=None)
    assert PARAMETERS["MobileNetV2"] == body.count_params()


@pytest.mark.parametrize(
    ("weights", "model", "licence"),
    [
        ("none", "resnet50", ""),
        ("imagenet", "resnet50", "mit"),
        ("imagenet", "RegNetX002", "not stated"),
    ],
)
def test_the_licence_follows_from_the_initial_weights_and_the_network(
    weights: str, model: str, licence: str
) -> None:
    config = TrainConfig(data_dir="x", model=model, weights=weights)
    assert initial_weights_licence(config, None) == licence
    assert weights_licence("ResNet50V2") == "bsd"


def test_a_run_that_starts_from_another_run_uses_the_preset_recorded_there(
    vit: Path, tmp_path: Path
) -> None:
    preset = find_preset(str(vit))
    assert preset is not None
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    best = run / "checkpoints" / "best.keras"
    texts = {
        "config.json": {},
        "preset.json": preset.as_dict(),
        "env.json": {"weights_licence": "mit"},
    }
    for name, values in texts.items():
        (run / name).write_text(json.dumps(values))
    (run / "classes.txt").touch()
    best.touch()
    (vit / "config.json").unlink()
    config = TrainConfig(data_dir="x", model=str(vit), weights=str(best))
    assert resolve_preset(config) == preset
    assert initial_weights_licence(config, preset) == "mit"
    assert set(TINY) <= set(PACKAGES)
