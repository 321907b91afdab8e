"""What the name of a network determines: its spelling, input scaling and smallest image size.

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
    "is_spelling",
    "is_supported",
    "match_model_name",
    "minimum_image_size",
    "normalizes_batches",
    "scaling_mode",
    "short_name",
]

TINY = "Tiny"
"""A network of three small convolutions for tests and for trying the pipeline, not for results."""

# Pattern of the whole name -> (scaling mode, smallest image size in pixels), as in the family's module
# of keras.applications. Other networks are not offered, because their scaling is unknown.
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

# They have layer normalization, or none.
_WITHOUT_BATCH_NORM = r"ConvNeXt|VGG"


def normalizes_batches(name: str) -> bool:
    """Whether a network has batch normalization; upper and lower case do not matter.

    Example:
        >>> normalizes_batches("resnet50"), normalizes_batches("ConvNeXtTiny")
        (True, False)
    """
    return not re.match(_WITHOUT_BATCH_NORM, name, re.IGNORECASE)


def is_supported(name: str) -> bool:
    """Whether ``name``, as keras.applications spells it, belongs to a family with known scaling."""
    return bool(_family(name))


def is_spelling(name: str) -> bool:
    """Whether ``name`` is a name of these families, in upper or lower case."""
    return any(re.fullmatch(family, name, re.IGNORECASE) for family in _FAMILIES)


def short_name(model: str) -> str:
    """The last part of a path, without characters that a file name should not have; a name itself.

    Example:
        >>> short_name("models/efficientnet_lite0_imagenet/"), short_name("ResNet50")
        ('efficientnet_lite0_imagenet', 'ResNet50')
    """
    return re.sub(r"[^\w.-]", "_", model.rstrip("/").rpartition("/")[2])


def match_model_name(name: str, known: Iterable[str]) -> str:
    """Returns the entry of ``known`` that equals ``name`` when upper and lower case are ignored.

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
    remedy = ", ".join(by_lower[match] for match in close) or "for example ResNet50"
    raise UserError(f"--model={name} is not a known network; did you mean {remedy}?")


def scaling_mode(name: str) -> str:
    """Returns the ``InputScaling`` mode of a supported network."""
    return _FAMILIES[_family(name)][0]


def minimum_image_size(name: str) -> int:
    """Returns the smallest image side in pixels that a supported network accepts."""
    return _FAMILIES[_family(name)][1]


def check_image_size(name: str, image_size: int) -> None:
    """Raises UserError when a supported network does not accept images as small as ``image_size``."""
    minimum = minimum_image_size(name)
    if image_size < minimum:
        raise UserError(
            f"--image_size={image_size} is too small for --model={name}; pass {minimum} or more"
        )


def _family(name: str) -> str:
    """The key of ``_FAMILIES`` that a network's name matches; an empty string if there is none."""
    return next((family for family in _FAMILIES if re.fullmatch(family, name)), "")
