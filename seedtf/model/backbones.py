"""The backbones of KerasHub that seedtf can use: their classes, image sizes, outputs and licences.

Nothing here imports TensorFlow, Keras or KerasHub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedtf.errors import UserError

__all__ = [
    "CLASSES",
    "DINOV2",
    "NOT_STATED",
    "PACKAGES",
    "ImageSizes",
    "accepts_patch_multiples",
    "check_backbone",
    "image_shape_argument",
    "image_sizes",
    "image_sizes_from_name",
    "original_licence",
    "returns_map",
    "supported_module",
    "token_grid_side",
]

DINOV2 = "DINOV2Backbone"
NOT_STATED = "not stated"

# Class of KerasHub -> (its package in KerasHub, the licence under which the authors released the
# weights of its presets). These backbones return a feature map [B, h, w, C].
_WITH_FEATURE_MAP = {
    "CSPNetBackbone": ("cspnet", NOT_STATED),
    "DenseNetBackbone": ("densenet", NOT_STATED),
    "EfficientNetBackbone": ("efficientnet", "apache-2.0"),
    "HGNetV2Backbone": ("hgnetv2", NOT_STATED),
    "MiTBackbone": ("mit", "NVIDIA's for SegFormer, not commercial"),
    "MobileNetBackbone": ("mobilenet", NOT_STATED),
    "MobileNetV5Backbone": ("mobilenetv5", NOT_STATED),
    "ResNetBackbone": ("resnet", "apache-2.0"),
    "VGGBackbone": ("vgg", NOT_STATED),
    "XceptionBackbone": ("xception", NOT_STATED),
}
# These backbones return tokens [B, T, C]. Their weights are for one image size only.
_ONE_SIZE = {
    "DeiTBackbone": ("deit", "apache-2.0"),
    "SwinTransformerBackbone": ("swin_transformer", NOT_STATED),
    "ViTBackbone": ("vit", "apache-2.0"),
}
# These backbones return tokens too, but accept every image size that is a multiple of the patch size.
_PATCH_MULTIPLES = {DINOV2: ("dinov2", "apache-2.0"), "DINOV3Backbone": ("dinov3", "DINOv3's own")}
_BACKBONES = {**_WITH_FEATURE_MAP, **_ONE_SIZE, **_PATCH_MULTIPLES}

CLASSES = tuple(sorted(_BACKBONES))
"""The names of the supported classes."""

PACKAGES = {name: package for name, (package, _) in _BACKBONES.items()}
"""The package of each class in KerasHub."""

_PATCH_SIDES = {DINOV2: 14, "DINOV3Backbone": 16}


@dataclass(frozen=True)
class ImageSizes:
    """The sides in pixels of the square images that a network accepts.

    Attributes:
        minimum: the smallest side.
        multiple: every side is a multiple of this number.
        only: the only side that is accepted; 0 if there are several.
    """

    minimum: int = 32
    multiple: int = 1
    only: int = 0

    @property
    def fixed_once_built(self) -> bool:
        """Whether a network accepts only the image size that it was built for."""
        return bool(self.only) or self.multiple > 1

    def __str__(self) -> str:
        if self.only:
            return f"{self.only}"
        return f"multiples of {self.multiple}" if self.multiple > 1 else f"{self.minimum} or more"

    def check(self, model: str, image_size: int) -> None:
        """Raises UserError if ``model`` does not accept ``image_size``; the message names valid sizes.

        Example:
            >>> ImageSizes(minimum=14, multiple=14).check("vit", 100)
            Traceback (most recent call last):
            seedtf.errors.UserError: --image_size=100: --model=vit takes multiples of 14; pass 98 or 112
        """
        below = image_size // self.multiple * self.multiple
        if self.only and image_size != self.only:
            remedy = f"takes only {self.only}; pass --image_size={self.only}"
        elif image_size < self.minimum:
            remedy = f"takes {self.minimum} or more; pass at least that"
        elif image_size != below:
            remedy = f"takes multiples of {self.multiple}; pass {below} or {below + self.multiple}"
        else:
            return
        raise UserError(f"--image_size={image_size}: --model={model} {remedy}")


def supported_module(class_name: str) -> str:
    """The module that defines a supported class."""
    package = PACKAGES[class_name]
    return f"keras_hub.src.models.{package}.{package}_backbone"


def check_backbone(description: Mapping[str, Any]) -> None:
    """Raises ValueError unless ``module`` and ``class_name`` are those of a supported backbone."""
    module, name = description["module"], description["class_name"]
    if name not in _BACKBONES or module != supported_module(name):
        raise ValueError(f"it uses {module} {name!r}, which seedtf does not use")


def returns_map(class_name: str) -> bool:
    """Whether the backbone returns a feature map, not tokens."""
    return class_name in _WITH_FEATURE_MAP


def accepts_patch_multiples(class_name: str) -> bool:
    """Whether the backbone can be built for every image size that is a multiple of its patch size."""
    return class_name in _PATCH_MULTIPLES


def image_shape_argument(class_name: str) -> str:
    """The name of the constructor argument for the shape of the images."""
    return "input_shape" if class_name == "EfficientNetBackbone" else "image_shape"


def image_sizes(class_name: str, config: Mapping[str, Any]) -> ImageSizes:
    """The image sizes that a backbone with these arguments accepts."""
    if returns_map(class_name):
        return ImageSizes()
    if accepts_patch_multiples(class_name):
        return ImageSizes(minimum=_patch_size(config), multiple=_patch_size(config))
    return ImageSizes(minimum=1, only=int(config["image_shape"][0]))


def image_sizes_from_name(class_name: str, preset: str) -> ImageSizes:
    """The image sizes that a preset accepts, according to its class and name; its files are not read.

    The name of a vision transformer (ViT) contains its only image size.

    Example:
        >>> str(image_sizes_from_name("ViTBackbone", "vit_base_patch16_384_imagenet"))
        '384'
    """
    if accepts_patch_multiples(class_name):
        patch = _PATCH_SIDES[class_name]
        return ImageSizes(minimum=patch, multiple=patch)
    found = re.search(r"_(\d{3})(_|$)", preset)
    if returns_map(class_name) or not found:
        return ImageSizes()
    return ImageSizes(minimum=1, only=int(found[1]))


def original_licence(class_name: str) -> str:
    """The licence under which the authors of a class released the weights of KerasHub's own presets."""
    return _BACKBONES[class_name][1]


def token_grid_side(description: Mapping[str, Any]) -> int:
    """The number of tokens along a side of the image; 0 for a backbone that returns a feature map."""
    name, config = description["class_name"], description["config"]
    if returns_map(name):
        return 0
    halvings = len(config["depths"]) - 1 if name == "SwinTransformerBackbone" else 0
    return int(config["image_shape"][0]) // _patch_size(config) // 2**halvings


def _patch_size(config: Mapping[str, Any]) -> int:
    size = config["patch_size"]
    return int(size[0] if isinstance(size, (list, tuple)) else size)
