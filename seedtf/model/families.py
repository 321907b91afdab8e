"""The networks of keras.applications by name: spelling, input scaling, smallest image size, licence.

Nothing here imports TensorFlow or Keras, so flags can be checked before either is loaded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from seedtf.errors import UserError

__all__ = [
    "TINY",
    "check_image_size",
    "is_efficientnet",
    "is_network_name",
    "is_supported",
    "match_model_name",
    "minimum_image_size",
    "scaling_mode",
    "short_name",
    "weights_licence",
]

TINY = "Tiny"
"""A network of three small convolutions for tests and for trying the pipeline, not for results."""

# Pattern of a network's whole name -> (mode of InputScaling, smallest image size in pixels). The values
# are those of keras.applications, except for TINY. A network that matches no pattern is not offered,
# because its scaling is unknown.
_FAMILIES = {
    r"ConvNeXt\w+": ("none", 32),
    r"DenseNet\d+": ("torch", 32),
    r"EfficientNet(B\d|V2\w+)": ("none", 32),
    r"InceptionV3|InceptionResNetV2": ("tf", 75),
    r"MobileNet(V2)?": ("tf", 32),
    r"MobileNetV3\w+": ("none", 32),
    r"NASNet\w+": ("tf", 32),
    r"RegNet\w+": ("none", 32),
    r"ResNet\d+": ("caffe", 32),
    r"ResNet\d+V2": ("tf", 32),
    r"ResNetRS\d+": ("none", 32),
    r"VGG\d+": ("caffe", 32),
    r"Xception": ("tf", 71),
    TINY: ("tf", 8),
}


def is_efficientnet(name: str) -> bool:
    """Whether a network is an EfficientNet; case is ignored.

    Example:
        >>> is_efficientnet("efficientnetb0"), is_efficientnet("ResNet50")
        (True, False)
    """
    return name.lower().startswith("efficientnet")


# Licences of the ImageNet weights of keras.applications, as the documentation of Keras states them. It
# states no licence for the weights of other families.
_LICENCES = {
    r"DenseNet\d+": "bsd-3-clause",
    r"InceptionV3|InceptionResNetV2|MobileNet(V2)?|NASNet\w+": "apache-2.0",
    r"ResNet\d+|Xception": "mit",
    r"ResNet\d+V2": "bsd",
    r"VGG\d+": "cc-by-4.0",
}


def is_supported(name: str) -> bool:
    """Whether ``name``, as keras.applications spells it, belongs to a family with known scaling."""
    return bool(_family(name))


def is_network_name(name: str) -> bool:
    """Whether ``name`` names a network of keras.applications, or ``Tiny``; case is ignored."""
    return any(re.fullmatch(family, name, re.IGNORECASE) for family in _FAMILIES)


def short_name(model: str) -> str:
    """The last part of a network's name, path or address, as a file name.

    All characters except letters, digits, ``_``, ``.`` and ``-`` become ``_``.

    Example:
        >>> short_name("models/mine/"), short_name("kaggle://keras/vit/keras/vit_base/4")
        ('mine', 'vit_base')
    """
    parts = [part for part in model.split("/") if part] or [""]
    if "://" in model and parts[-1].isdigit():  # the version
        parts.pop()
    return re.sub(r"[^\w.-]", "_", parts[-1])


def match_model_name(name: str, known: Iterable[str]) -> str:
    """Returns the entry of ``known`` that equals ``name`` if case is ignored.

    Raises:
        UserError: there is no such network; the message suggests similar names.

    Example:
        >>> match_model_name("resnet50", ["ResNet50", "Xception"])
        'ResNet50'
    """
    by_lower = {entry.lower(): entry for entry in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    similar = ", ".join(by_lower[match] for match in close)
    hint = f"did you mean {similar}?" if similar else "see: seedtf models"
    raise UserError(f"--model={name} is not a known network; {hint}")


def scaling_mode(name: str) -> str:
    """Returns the ``InputScaling`` mode of a supported network."""
    return _FAMILIES[_family(name)][0]


def minimum_image_size(name: str) -> int:
    """Returns the smallest image side in pixels that a supported network accepts."""
    return _FAMILIES[_family(name)][1]


def weights_licence(name: str) -> str:
    """Returns the licence of a supported network's ImageNet weights, or ``not stated``."""
    found = (
        licence
        for family, licence in _LICENCES.items()
        if re.fullmatch(family, name, re.IGNORECASE)
    )
    return next(found, "not stated")


def check_image_size(name: str, image_size: int) -> None:
    """Raises UserError if ``image_size`` is smaller than the smallest size of a supported network."""
    minimum = minimum_image_size(name)
    if image_size < minimum:
        raise UserError(
            f"--image_size={image_size} is too small for --model={name}; pass {minimum} or more"
        )


def _family(name: str) -> str:
    """The key of ``_FAMILIES`` that a network's name matches; an empty string if there is none."""
    return next((family for family in _FAMILIES if re.fullmatch(family, name)), "")
