"""The table of ``seedtf models``: the networks that ``--model`` takes by name.

Nothing here imports TensorFlow, Keras or KerasHub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedtf.compat.keras_hub import builtin_presets, has_keras_hub
from seedtf.model.backbones import PACKAGES, ImageSizes, image_sizes_from_name, original_licence
from seedtf.model.downloads import cached_folder
from seedtf.model.families import minimum_image_size, weights_licence

__all__ = ["PARAMETERS", "ListedModel", "list_models", "table_lines"]

PARAMETERS: dict[str, int] = {
    "ConvNeXtBase": 87_566_464,
    "ConvNeXtLarge": 196_230_336,
    "ConvNeXtSmall": 49_454_688,
    "ConvNeXtTiny": 27_820_128,
    "ConvNeXtXLarge": 348_147_968,
    "DenseNet121": 7_037_504,
    "DenseNet169": 12_642_880,
    "DenseNet201": 18_321_984,
    "EfficientNetB0": 4_049_571,
    "EfficientNetB1": 6_575_239,
    "EfficientNetB2": 7_768_569,
    "EfficientNetB3": 10_783_535,
    "EfficientNetB4": 17_673_823,
    "EfficientNetB5": 28_513_527,
    "EfficientNetB6": 40_960_143,
    "EfficientNetB7": 64_097_687,
    "EfficientNetV2B0": 5_919_312,
    "EfficientNetV2B1": 6_931_124,
    "EfficientNetV2B2": 8_769_374,
    "EfficientNetV2B3": 12_930_622,
    "EfficientNetV2L": 117_746_848,
    "EfficientNetV2M": 53_150_388,
    "EfficientNetV2S": 20_331_360,
    "InceptionResNetV2": 54_336_736,
    "InceptionV3": 21_802_784,
    "MobileNet": 3_228_864,
    "MobileNetV2": 2_257_984,
    "MobileNetV3Large": 2_996_352,
    "MobileNetV3Small": 939_120,
    "NASNetLarge": 84_916_818,
    "NASNetMobile": 4_269_716,
    "ResNet101": 42_658_176,
    "ResNet101V2": 42_626_560,
    "ResNet152": 58_370_944,
    "ResNet152V2": 58_331_648,
    "ResNet50": 23_587_712,
    "ResNet50V2": 23_564_800,
    "VGG16": 14_714_688,
    "VGG19": 20_024_384,
    "Xception": 20_861_480,
}
"""The number of parameters of each network of keras.applications in Keras 3, without the classifier."""

_HEADER = ("model", "parameters", "image sizes", "licence", "extra", "cached")
_NUMBER_COLUMN = 1  # the column with the number of parameters, which is aligned on the right
# The name of a downloaded weights file starts with the name of the network, in some cases after
# ``weights_``. Only the files of MobileNet start differently: mobilenet_1_0_….
_FILE_NAME_STARTS = {"MobileNet": "mobilenet10"}


@dataclass(frozen=True)
class ListedModel:
    """A row of the table of ``seedtf models``.

    Attributes:
        name: the value of ``--model``.
        parameters: number of parameters, without a classifier.
        sizes: the image sizes that the network accepts.
        licence: licence of the pretrained weights.
        extra: the extra of seedtf that the network needs, such as ``hub``, or an empty string.
        cached: whether its pretrained weights have been downloaded.
    """

    name: str
    parameters: int
    sizes: ImageSizes
    licence: str
    extra: str
    cached: bool


def list_models(word: str = "") -> tuple[list[ListedModel], bool]:
    """The networks whose names contain ``word`` (case is ignored); networks of Keras come first.

    Returns:
        The networks, and whether KerasHub is installed. Without KerasHub, its networks are not listed.

    Example:
        >>> [model.name for model in list_models("vgg1")[0] if not model.extra]
        ['VGG16', 'VGG19']
    """
    has_hub = has_keras_hub()
    files = _downloaded_keras_files()
    models = [
        ListedModel(
            name,
            parameters,
            ImageSizes(minimum_image_size(name)),
            weights_licence(name),
            "",
            _has_file(name, files),
        )
        for name, parameters in sorted(PARAMETERS.items())
    ]
    presets = builtin_presets("seedtf models", PACKAGES) if has_hub else {}
    models += [
        ListedModel(
            name,
            preset.parameters,
            image_sizes_from_name(preset.class_name, name),
            original_licence(preset.class_name),
            "hub",
            cached_folder(preset.handle) is not None,
        )
        for name, preset in sorted(presets.items())
    ]
    return [model for model in models if word.lower() in model.name.lower()], has_hub


def table_lines(models: Sequence[ListedModel]) -> list[str]:
    """The lines of the table, the header first."""
    rows = [_HEADER]
    for model in models:
        millions = f"{model.parameters / 1e6:.1f} M"
        cached = "yes" if model.cached else ""
        rows.append((model.name, millions, str(model.sizes), model.licence, model.extra, cached))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column == _NUMBER_COLUMN else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _downloaded_keras_files() -> list[str]:
    """The simplified names of the downloaded weights files that lack the classifier (``notop``)."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    names = [_simplified(path.name) for path in (Path(home) / "models").glob("*.h5")]
    return [name for name in names if "notop" in name]


def _has_file(name: str, files: Sequence[str]) -> bool:
    """Whether one of the files belongs to the network; those of ResNet50V2 do not match ResNet50."""
    start = _FILE_NAME_STARTS.get(name, _simplified(name))
    return any(re.match(rf"(weights)?{start}(?!v\d)", file) for file in files)


def _simplified(text: str) -> str:
    """``text`` in lower case, with only its letters and digits."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
