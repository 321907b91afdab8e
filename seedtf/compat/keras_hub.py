"""Imports KerasHub, lists its presets, calls its converters, and corrects its DINOv2 backbone.

KerasHub is an optional package.
"""

from __future__ import annotations

import importlib.util
import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtf.compat.keras import replace_layer_class, set_weights_group_name
from seedtf.errors import UserError, first_line, missing_hub

__all__ = [
    "BuiltinPreset",
    "builtin_presets",
    "convert_config",
    "find_position_embeddings",
    "has_keras_hub",
    "import_hugging_face",
    "import_keras_hub",
    "save_exact_position_embeddings",
]


def has_keras_hub() -> bool:
    """Whether KerasHub is installed. The package is not imported, because that takes seconds.

    Tried with KerasHub 0.32.0; tested by ``tests/test_hub.py``.
    """
    return importlib.util.find_spec("keras_hub") is not None


def import_keras_hub(needed_by: str) -> Any:
    """The package ``keras_hub``.

    Args:
        needed_by: the flag or command that needs KerasHub, for the error message.

    Raises:
        UserError: KerasHub is not installed, or it cannot be imported with the installed versions of
            other packages.

    Tried with KerasHub 0.32.0; tested by ``test_without_keras_hub_one_line_says_what_to_install``.
    """
    if not has_keras_hub():
        raise missing_hub(needed_by)
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"{needed_by}: KerasHub cannot be imported ({error}); run: pip install -U 'seedtf[hub]'"
        ) from error
    return keras_hub


def import_hugging_face(needed_by: str) -> Any:
    """The package ``huggingface_hub``.

    Args:
        needed_by: the flag or command that needs the package, for the error message.

    Raises:
        UserError: the package is not installed.

    Tried with KerasHub 0.32.0 and huggingface_hub 2.4.0; tested by
    ``test_files_of_hugging_face_come_from_its_cache``.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_hub(needed_by) from error
    return huggingface_hub


@dataclass(frozen=True)
class BuiltinPreset:
    """A preset that KerasHub offers by name.

    Attributes:
        class_name: the name of the class of its backbone.
        parameters: the number of parameters of the backbone.
        handle: the address of its files, ``kaggle://…``.

    Tried with KerasHub 0.32.0; tested by ``test_the_presets_of_keras_hub_are_listed``.
    """

    class_name: str
    parameters: int
    handle: str


def builtin_presets(needed_by: str, packages: Mapping[str, str]) -> dict[str, BuiltinPreset]:
    """The image networks that KerasHub offers by name.

    The tables of presets are read from KerasHub's files, because importing KerasHub takes ten seconds.
    In KerasHub 0.32, the presets efficientnet_el, efficientnet_em and efficientnet_es have the address
    of another network. Such presets are left out.

    Args:
        needed_by: the flag or command that needs KerasHub, for the error message.
        packages: for each backbone class, the name of its package in KerasHub.

    Returns:
        The presets by name.

    Raises:
        UserError: KerasHub is not installed.

    Tried with KerasHub 0.32.0; tested by ``test_the_presets_of_keras_hub_are_listed``.
    """
    spec = importlib.util.find_spec("keras_hub")
    if spec is None or not spec.submodule_search_locations:
        raise missing_hub(needed_by)
    models = Path(spec.submodule_search_locations[0]) / "src" / "models"
    presets = {}
    for class_name, package in packages.items():
        tables = runpy.run_path(str(models / package / f"{package}_presets.py"))
        for name, entry in tables["backbone_presets"].items():
            if f"/{name}/" in f"{entry['kaggle_handle']}/":
                parameters = int(entry["metadata"]["params"])
                presets[name] = BuiltinPreset(class_name, parameters, entry["kaggle_handle"])
    return presets


def convert_config(folder: Path, needed_by: str) -> dict[str, Any]:
    """The backbone class and its arguments for a ``config.json`` of timm or transformers.

    KerasHub's converters are called directly, because ``get_config`` of a backbone that KerasHub has
    converted omits some arguments.

    Args:
        folder: the folder that contains ``config.json``.
        needed_by: the flag or command that needs KerasHub, for the error message.

    Returns:
        A dictionary of JSON values: ``class_name``, and ``config``, which has the arguments of the
        class.

    Raises:
        UserError: KerasHub has no converter for this network.

    Tried with KerasHub 0.32.0; tested by ``test_files_of_timm_are_converted``.
    """
    import_keras_hub(needed_by)
    from keras_hub.src.utils.preset_utils import get_preset_loader

    try:
        loader = get_preset_loader(str(folder))
        arguments = loader.converter.convert_backbone_config(loader.config)
        name = loader.check_backbone_class().__name__
        return {"class_name": name, "config": json.loads(json.dumps(arguments))}
    except Exception as error:  # the converters raise errors of many types
        raise UserError(
            f"{needed_by}: KerasHub cannot convert this network ({first_line(error)}); seedtf models "
            "lists networks that work"
        ) from error


def find_position_embeddings(backbone: Any) -> tuple[Any, Any] | None:
    """The two variables with the position embeddings of a DINOv2 backbone; None for other backbones.

    The first variable has the embeddings for the image size of the pretrained weights. KerasHub loads
    and saves only this variable. The second variable has these embeddings resized to the image size of
    the model. The model computes with the second variable.

    Tried with KerasHub 0.32.0; tested by ``test_trained_position_embeddings_are_saved_exactly``.
    """
    layer: Any = getattr(backbone, "embeddings", None)
    used = getattr(layer, "interpolated_position_embeddings", None)
    return None if used is None else (layer.position_embeddings, used)


def save_exact_position_embeddings(backbone: Any) -> None:
    """Makes a DINOv2 backbone save exactly the position embeddings with which it computes.

    KerasHub would resize the embeddings to the image size of the pretrained weights to save them, and
    back to load them. If training has not increased the sum of the embeddings, KerasHub would even save
    the pretrained embeddings. The backbone must have been built with ``position_embedding_shape`` equal
    to ``image_shape``, so that loading resizes nothing.

    Tried with KerasHub 0.32.0; tested by ``test_trained_position_embeddings_are_saved_exactly``.
    """
    if find_position_embeddings(backbone) is None:
        return
    base: Any = type(backbone.embeddings)

    class ExactEmbedding(base):
        def save_own_variables(self, store: Any) -> None:
            variables = self._trainable_variables + self._non_trainable_variables
            for index, variable in enumerate(variables):
                is_pretrained = variable is self.position_embeddings
                saved = self.interpolated_position_embeddings if is_pretrained else variable
                store[f"{index}"] = saved

    set_weights_group_name(ExactEmbedding, base.__name__)
    replace_layer_class(backbone.embeddings, ExactEmbedding)
