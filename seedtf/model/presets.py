"""Reads class, input scaling, image sizes and licence of a pretrained network from its folder.

The folder is a preset of KerasHub, or contains ``config.json`` and ``model.safetensors`` of timm or
transformers, which KerasHub converts. Only the conversion imports TensorFlow and Keras.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seedtf.compat.keras_hub import convert_config
from seedtf.errors import UserError, first_line
from seedtf.model.backbones import (
    CLASSES,
    DINOV2,
    NOT_STATED,
    ImageSizes,
    accepts_patch_multiples,
    image_shape_argument,
    image_sizes,
    original_licence,
    returns_map,
    supported_module,
)
from seedtf.model.downloads import is_url, locate
from seedtf.model.families import is_efficientnet, is_network_name, short_name
from seedtf.report import warn

__all__ = ["Numbers", "Preset", "find_preset", "is_folder", "is_preset", "names_efficientnet"]

_CONFIG, _CONVERTER, _METADATA = "config.json", "image_converter.json", "metadata.json"
_PROCESSOR = "preprocessor_config.json"
_LICENCE = re.compile(r"^licen[sc]e:\s*[\"']?([^\s\"']+)", re.MULTILINE)
# Used if a preset does not record its scaling. Most of these presets were trained on pixels in -1 to 1.
_DEFAULT_SCALE, _DEFAULT_OFFSET = 1 / 127.5, -1.0
# The addresses of KerasHub's own presets start like this.
_KERAS_HUB = ("hf://keras/", "kaggle://keras/")
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

Numbers = float | Sequence[float]
"""One number, or one for each channel."""


@dataclass(frozen=True)
class Preset:
    """A pretrained network of KerasHub.

    A run saves this description, so that the run can be resumed when the files of the preset are gone.

    Attributes:
        source: the value of ``--model``; for a folder, its absolute path.
        backbone: ``module``, ``class_name`` and ``config`` of KerasHub's class, as JSON values.
        scale, offset: the network was trained on ``pixels * scale + offset`` with pixels in 0–255.
        sizes: the image sizes that the network accepts.
        licence: the licence of the weights, such as ``apache-2.0``.
        parameters: number of parameters of the backbone; 0 if unknown.
        folder: the absolute path of the files.
        converted: whether the files are in the format of timm or transformers, so KerasHub converts
            them.
    """

    source: str
    backbone: dict[str, Any]
    scale: Numbers
    offset: Numbers
    sizes: ImageSizes
    licence: str
    parameters: int
    folder: str = ""
    converted: bool = False

    @property
    def name(self) -> str:
        """The last part of ``source``, as ``short_name`` returns it."""
        return short_name(self.source)

    @property
    def class_name(self) -> str:
        """The name of KerasHub's class."""
        return str(self.backbone["class_name"])

    @property
    def is_efficientnet(self) -> bool:
        """Whether the network is an EfficientNet."""
        return self.class_name == "EfficientNetBackbone"

    def backbone_for(self, image_size: int) -> dict[str, Any]:
        """Returns ``backbone`` with the arguments for square images of ``image_size`` pixels."""
        config = dict(self.backbone["config"])
        config.pop("dtype", None)  # the dtype policy of the run decides
        if returns_map(self.class_name):
            config[image_shape_argument(self.class_name)] = [None, None, 3]
        elif accepts_patch_multiples(self.class_name):
            config["image_shape"] = [image_size, image_size, 3]
            config["use_mask_token"] = False  # pretraining needs the token, a classifier does not
        if self.class_name == DINOV2:  # see ``compat.keras_hub.save_exact_position_embeddings``
            config["position_embedding_shape"] = [image_size, image_size, 3]
        return {**self.backbone, "config": config}

    def as_dict(self) -> dict[str, Any]:
        """The preset as JSON values; ``from_dict`` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preset:
        """The preset from the JSON values of ``as_dict``."""
        return cls(**{**values, "sizes": ImageSizes(**values["sizes"])})


def is_folder(model: str) -> bool:
    """Whether a value of ``--model`` is a path.

    A name of keras.applications is not a path, even if there is a folder with this name. The path of
    such a folder can be written ``./name``.
    """
    if is_url(model) or is_network_name(model):
        return False
    return "/" in model or os.path.isdir(model)


def is_preset(model: str) -> bool:
    """Whether a value of ``--model`` is a folder, an address or the name of a preset of KerasHub.

    A name with an underscore is the name of a preset, unless it is a name of keras.applications when
    the underscores are removed, such as ``resnet_50``.

    Example:
        >>> is_preset("models/mine"), is_preset("hf://timm/resnet18.a1_in1k"), is_preset("dinov2_small")
        (True, True, True)
        >>> is_preset("ResNet50"), is_preset("resnet_50")
        (False, False)
    """
    is_name = "_" in model and not is_network_name(model.replace("_", ""))
    return is_url(model) or is_folder(model) or is_name


def find_preset(model: str, *, with_weights: bool = True) -> Preset | None:
    """The preset that a value of ``--model`` names; None if ``is_preset`` is false for the value.

    Args:
        model: a folder, an address such as ``hf://timm/resnet18.a1_in1k``, or a name.
        with_weights: whether to download the weights too.

    Raises:
        UserError: there is no such preset, a file of the preset is damaged, seedtf cannot use its
            network, the download fails, or a package is missing.
    """
    if not is_preset(model):
        return None
    if not is_folder(model):
        return _read_folder(locate(model, with_weights=with_weights), model)
    if not os.path.isdir(model):
        raise UserError(f"--model={model}: no such folder; pass the folder of a KerasHub preset")
    return _read_folder(Path(model), os.path.abspath(model))


def names_efficientnet(model: str) -> bool:
    """Whether a value of ``--model`` names an EfficientNet.

    Raises:
        UserError: for the same reasons as in ``find_preset``.
    """
    preset = find_preset(model, with_weights=False)
    return is_efficientnet(model) if preset is None else preset.is_efficientnet


def _read_folder(folder: Path, source: str) -> Preset:
    """The preset in ``folder``; ``source`` is the value of ``--model`` that led to it."""
    config = _read_json(folder, _CONFIG)
    if config is None:
        raise UserError(
            f"--model={source}: no pretrained network (no {_CONFIG}); pass the folder of a KerasHub "
            f"preset, or one with {_CONFIG} and model.safetensors"
        )
    converted = "registered_name" not in config and not {"model_type", "architecture"}.isdisjoint(
        config
    )
    if converted:
        backbone = convert_config(folder, f"--model={source}")
    else:
        backbone = {name: config.get(name) for name in ("class_name", "config")}
    name = backbone["class_name"]
    if name not in CLASSES or not isinstance(backbone["config"], dict):
        raise UserError(
            f"--model={source}: {_CONFIG} describes {name or 'no class'}, which is no image network "
            f"that seedtf can use; pass one of the classes {', '.join(CLASSES)}"
        )
    scale, offset = _read_converted_scaling(folder, config) if converted else _read_scaling(folder)
    return Preset(
        source=source,
        folder=os.path.abspath(folder),
        backbone={"module": supported_module(name), **backbone},
        scale=scale,
        offset=offset,
        sizes=image_sizes(name, backbone["config"]),
        licence=_read_licence(folder) or _assume_licence(source, name),
        parameters=int((_read_json(folder, _METADATA) or {}).get("parameter_count", 0)),
        converted=converted,
    )


def _read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file."""
    try:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model={folder}: {name} cannot be read ({first_line(error)}); restore the folder"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"--model={folder}: {name} holds no JSON object; restore the folder")
    return values


def _read_scaling(folder: Path) -> tuple[Numbers, Numbers]:
    """Scale and offset from the image converter of a KerasHub preset."""
    converter = _read_json(folder, _CONVERTER)
    if converter is None:
        warn(
            f"{folder}: has no {_CONVERTER}, so the input scaling of the weights is unknown; pixels "
            "are scaled to -1 to 1"
        )
        return _DEFAULT_SCALE, _DEFAULT_OFFSET
    config = converter.get("config", {})
    scale = 1.0 if config.get("scale") is None else config["scale"]
    if config.get("mean") and config.get("variance"):  # presets of KerasHub 0.17 and before
        deviations = [variance**0.5 for variance in config["variance"]]
        return _standardization_as_scaling(config["mean"], deviations, scale)
    return scale, 0.0 if config.get("offset") is None else config["offset"]


def _read_converted_scaling(folder: Path, config: Mapping[str, Any]) -> tuple[Numbers, Numbers]:
    """Scale and offset from config.json of timm, or from preprocessor_config.json of transformers."""
    statistics = config.get("pretrained_cfg") or {}
    if processor := _read_json(folder, _PROCESSOR):
        statistics = {"mean": processor.get("image_mean"), "std": processor.get("image_std")}
    if not (statistics.get("mean") and statistics.get("std")):
        warn(
            f"{folder}: does not state the input scaling of the weights; pixels are standardized with "
            "the means and standard deviations of ImageNet"
        )
        statistics = _IMAGENET
    return _standardization_as_scaling(statistics["mean"], statistics["std"], 1 / 255)


def _standardization_as_scaling(
    mean: Sequence[float], deviations: Sequence[float], scale: float
) -> tuple[list[float], list[float]]:
    """Scale and offset for each channel that equal ``(pixels * scale - mean) / deviation``."""
    pairs = zip(mean, deviations, strict=True)
    return [scale / deviation for deviation in deviations], [-m / d for m, d in pairs]


def _read_licence(folder: Path) -> str:
    """The licence in the metadata of the model card (README.md); empty if there is none."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    header = card.partition("---")[2].partition("\n---")[0]
    found = _LICENCE.search(header)
    return found[1] if found else ""


def _assume_licence(source: str, class_name: str) -> str:
    """The licence of weights whose model card states none; known only for KerasHub's own presets."""
    is_keras_hub = source.startswith(_KERAS_HUB) if is_url(source) else not is_folder(source)
    return original_licence(class_name) if is_keras_hub else NOT_STATED
