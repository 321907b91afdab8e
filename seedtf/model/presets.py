"""What the folder of a KerasHub preset says: class, input scaling, image sizes and licence.

Nothing here imports TensorFlow, Keras or KerasHub, so ``--model`` can be checked before they load.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seedtf.errors import UserError, first_line
from seedtf.model.families import is_spelling, normalizes_batches, short_name

__all__ = [
    "ImageSizes",
    "Numbers",
    "Preset",
    "check_backbone",
    "find_preset",
    "has_batch_norm",
    "is_preset",
    "token_grid",
]

# Backbone class of KerasHub -> its package. The first ones return a feature map [B, h, w, C].
_MAPS = {
    "CSPNetBackbone": "cspnet",
    "DenseNetBackbone": "densenet",
    "EfficientNetBackbone": "efficientnet",
    "HGNetV2Backbone": "hgnetv2",
    "MiTBackbone": "mit",
    "MobileNetBackbone": "mobilenet",
    "MobileNetV5Backbone": "mobilenetv5",
    "ResNetBackbone": "resnet",
    "VGGBackbone": "vgg",
    "XceptionBackbone": "xception",
}
# They return tokens [B, T, C] and have weights for one image size.
_ONE_SIZE = {
    "DeiTBackbone": "deit",
    "SwinTransformerBackbone": "swin_transformer",
    "ViTBackbone": "vit",
}
# They return tokens too, and can be built for every multiple of the patch size.
_PATCH_MULTIPLES = {"DINOV2Backbone": "dinov2", "DINOV3Backbone": "dinov3"}
# Among the others, these have no batch normalization.
_MAPS_WITHOUT_BATCH_NORM = ("MiTBackbone", "VGGBackbone")
_PACKAGES = {**_MAPS, **_ONE_SIZE, **_PATCH_MULTIPLES}

_CONFIG, _CONVERTER, _METADATA = "config.json", "image_converter.json", "metadata.json"
_LICENCE = re.compile(r"^licen[sc]e:\s*[\"']?([^\s\"']+)", re.MULTILINE)
_UNKNOWN_LICENCE = "not stated"
# Most networks without a recorded scaling were trained on pixels in -1 to 1.
_DEFAULT_SCALE, _DEFAULT_OFFSET = 1 / 127.5, -1.0

Numbers = float | Sequence[float]
"""A number, or one for each channel."""


@dataclass(frozen=True)
class ImageSizes:
    """The sides in pixels of the square images that a network accepts.

    Attributes:
        minimum: the smallest one.
        multiple: they are multiples of this number.
        only: the only one; 0 if there are others.
    """

    minimum: int = 32
    multiple: int = 1
    only: int = 0

    @property
    def fixed(self) -> bool:
        """Whether a network accepts no other size than the one that it was built for."""
        return bool(self.only) or self.multiple > 1

    def check(self, model: str, image_size: int) -> None:
        """Raises UserError, naming the sizes that work, if ``image_size`` does not.

        Example:
            >>> ImageSizes(minimum=14, multiple=14).check("vit", 100)
            Traceback (most recent call last):
            seedtf.errors.UserError: --image_size=100: --model=vit takes multiples of 14; pass 98 or 112
        """
        below = image_size // self.multiple * self.multiple
        if self.only and image_size != self.only:
            remedy = f"takes {self.only} alone; pass --image_size={self.only}"
        elif image_size < self.minimum:
            remedy = f"takes {self.minimum} or more; pass at least that"
        elif image_size != below:
            remedy = f"takes multiples of {self.multiple}; pass {below} or {below + self.multiple}"
        else:
            return
        raise UserError(f"--image_size={image_size}: --model={model} {remedy}")


@dataclass(frozen=True)
class Preset:
    """A pretrained network of KerasHub. A run records it, so that it can be resumed without the folder.

    Attributes:
        source: the absolute path of the folder.
        backbone: ``module``, ``class_name`` and ``config`` of KerasHub's class, JSON values.
        scale, offset: the network was trained on ``pixels * scale + offset`` with pixels in 0–255; a
            number, or one for each channel.
        sizes: the image sizes that work.
        licence: of the weights, such as ``apache-2.0``.
        parameters: number of parameters of the backbone; 0 if the folder does not say.
    """

    source: str
    backbone: dict[str, Any]
    scale: Numbers
    offset: Numbers
    sizes: ImageSizes
    licence: str
    parameters: int

    @property
    def name(self) -> str:
        """The last part of ``source``."""
        return short_name(self.source)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch normalization; networks of tokens have layer normalization."""
        name = self.backbone["class_name"]
        return name in _MAPS and name not in _MAPS_WITHOUT_BATCH_NORM

    def backbone_for(self, image_size: int) -> dict[str, Any]:
        """``backbone`` with its configuration for square images of this side in pixels."""
        name, config = self.backbone["class_name"], dict(self.backbone["config"])
        config.pop("dtype", None)  # the dtype policy of the run decides
        if name == "EfficientNetBackbone":
            config["input_shape"] = [None, None, 3]
        elif name in _MAPS:
            config["image_shape"] = [None, None, 3]
        elif name in _PATCH_MULTIPLES:
            config["image_shape"] = [image_size, image_size, 3]
        if name == "DINOV2Backbone":  # see ``compat.keras_hub.save_position_embeddings``
            config["position_embedding_shape"] = [image_size, image_size, 3]
        return {**self.backbone, "config": config}

    def as_dict(self) -> dict[str, Any]:
        """JSON values, from which ``from_dict`` makes the preset again."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preset:
        """The preset that ``as_dict`` described."""
        return cls(**{**values, "sizes": ImageSizes(**values["sizes"])})


def is_preset(model: str) -> bool:
    """Whether a value of ``--model`` is a folder, not the name of a network.

    A name of keras.applications wins over a folder of the same name; ``./name`` is always a folder.

    Example:
        >>> is_preset("models/efficientnet_lite0_imagenet"), is_preset("ResNet50")
        (True, False)
    """
    return "/" in model or (os.path.isdir(model) and not is_spelling(model))


def find_preset(model: str) -> Preset | None:
    """The preset that a value of ``--model`` names; None for the name of a network.

    Raises:
        UserError: no such folder, or it holds no preset of a network that seedtf can use.
    """
    return _read_folder(Path(model)) if is_preset(model) else None


def has_batch_norm(model: str) -> bool:
    """Whether the network that a value of ``--model`` names has batch normalization.

    Raises:
        UserError: as ``find_preset``.
    """
    preset = find_preset(model)
    return normalizes_batches(model) if preset is None else preset.has_batch_norm


def check_backbone(description: Mapping[str, Any]) -> None:
    """Raises ValueError unless ``module`` and ``class_name`` are those of a supported backbone."""
    name = description["class_name"]
    package = _PACKAGES.get(name)
    module = f"keras_hub.src.models.{package}.{package}_backbone"
    if package is None or description["module"] != module:
        raise ValueError(f"it uses {description['module']} {name!r}, which seedtf does not use")


def token_grid(description: Mapping[str, Any]) -> int:
    """The number of tokens along a side of the image; 0 for a backbone that returns a feature map."""
    name, config = description["class_name"], description["config"]
    if name in _MAPS:
        return 0
    halvings = len(config["depths"]) - 1 if name == "SwinTransformerBackbone" else 0
    return int(config["image_shape"][0]) // _patch_size(config) // 2**halvings


def _read_folder(folder: Path) -> Preset:
    if not folder.is_dir():
        raise UserError(f"--model={folder}: no such folder; pass the folder of a KerasHub preset")
    config = _read_json(folder, _CONFIG)
    if config is None:
        raise UserError(f"--model={folder}: no KerasHub preset (no {_CONFIG}); pass its folder")
    name = config.get("class_name")
    if name not in _PACKAGES or not isinstance(config.get("config"), dict):
        raise UserError(
            f"--model={folder}: {_CONFIG} describes {name or 'no class'}, which is no image network "
            f"that seedtf can use; those are {', '.join(sorted(_PACKAGES))}"
        )
    package = _PACKAGES[name]
    module = f"keras_hub.src.models.{package}.{package}_backbone"
    scale, offset = _scaling(_read_json(folder, _CONVERTER))
    return Preset(
        source=os.path.abspath(folder),
        backbone={"module": module, "class_name": name, "config": config["config"]},
        scale=scale,
        offset=offset,
        sizes=_sizes(name, config["config"]),
        licence=_licence(folder),
        parameters=int((_read_json(folder, _METADATA) or {}).get("parameter_count", 0)),
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


def _scaling(converter: dict[str, Any] | None) -> tuple[Numbers, Numbers]:
    """Scale and offset of an image converter of KerasHub."""
    if converter is None:
        return _DEFAULT_SCALE, _DEFAULT_OFFSET
    config = converter.get("config", {})
    scale, offset = config.get("scale"), config.get("offset")
    if "mean" in config and "variance" in config:  # as presets of KerasHub 0.17 and before have it
        deviations = [variance**0.5 for variance in config["variance"]]
        pairs = zip(config["mean"], deviations, strict=True)
        return [scale / d for d in deviations], [-m / d for m, d in pairs]
    return 1.0 if scale is None else scale, 0.0 if offset is None else offset


def _sizes(name: str, config: Mapping[str, Any]) -> ImageSizes:
    if name in _MAPS:
        return ImageSizes()
    if name in _PATCH_MULTIPLES:
        return ImageSizes(minimum=_patch_size(config), multiple=_patch_size(config))
    return ImageSizes(minimum=1, only=int(config["image_shape"][0]))


def _patch_size(config: Mapping[str, Any]) -> int:
    size = config["patch_size"]
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def _licence(folder: Path) -> str:
    """The licence in the header of the model card, as Hugging Face writes it."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _UNKNOWN_LICENCE
    header = card.partition("---")[2].partition("\n---")[0]
    found = _LICENCE.search(header)
    return found[1] if found else _UNKNOWN_LICENCE
