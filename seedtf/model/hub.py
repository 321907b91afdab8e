"""A layer that applies a backbone of KerasHub to scaled pixels and returns a feature map.

The feature map has the same form for a CNN and for a vision transformer (ViT).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from seedtf.compat.keras_hub import (
    find_position_embeddings,
    import_keras_hub,
    save_exact_position_embeddings,
)
from seedtf.errors import UserError, first_line
from seedtf.model.archive import check_hdf5
from seedtf.model.backbones import accepts_patch_multiples, check_backbone, token_grid_side
from seedtf.model.presets import Preset

__all__ = ["KerasHubBackbone", "load_preset_weights"]


@keras.saving.register_keras_serializable(package="seedtf")
class KerasHubBackbone(keras.layers.Layer):
    """Applies a backbone of KerasHub and returns its last feature map.

    The configuration of this layer contains all arguments of the backbone. KerasHub's own
    ``get_config`` omits some of them, so Keras could not recreate the backbone from it.

    Args:
        backbone: ``module``, ``class_name`` and ``config`` of a supported class, as JSON values; see
            ``Preset.backbone_for``.

    Raises:
        ValueError: the class is not supported.
        UserError: KerasHub is not installed.
    """

    def __init__(self, backbone: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_backbone(backbone)
        # Stored as text, because Keras would search a mapping for layers to track.
        self._description = json.dumps(backbone)
        self._grid_side = token_grid_side(backbone)
        global_policy = keras.mixed_precision.dtype_policy()
        # Many layers of KerasHub ignore the policy of the backbone and use the global one.
        keras.mixed_precision.set_dtype_policy(self.dtype_policy)
        try:
            self.backbone = _construct(backbone)
        finally:
            keras.mixed_precision.set_dtype_policy(global_policy)
        save_exact_position_embeddings(self.backbone)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Maps scaled pixels ``[B, S, S, 3]`` to features ``[B, h, w, C]``.

        The patch tokens of a ViT, laid out as a grid, are the feature map. The class token and the
        register tokens, which come before the patch tokens, are left out.
        """
        names = list(self.backbone.input) if isinstance(self.backbone.input, dict) else []
        outputs = self.backbone({names[0]: inputs} if names else inputs, training=training)
        if isinstance(outputs, dict):  # the outputs of all stages: stem, stage1, stage2, …
            outputs = outputs[max(name for name in outputs if name != "stem")]
        if not self._grid_side:
            return outputs
        patches = outputs[:, outputs.shape[1] - self._grid_side**2 :]
        return keras.ops.reshape(patches, (-1, self._grid_side, self._grid_side, outputs.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which Keras recreates the layer."""
        return {**super().get_config(), "backbone": json.loads(self._description)}


def load_preset_weights(layer: KerasHubBackbone, preset: Preset, image_size: int) -> None:
    """Loads the pretrained weights of a preset into a layer that was built from the preset.

    Raises:
        UserError: the weights are missing or damaged.
    """
    shape = [image_size, image_size, 3]
    try:
        if preset.converted:
            source = _convert(preset, shape)
        else:
            source = layer.backbone
            if accepts_patch_multiples(preset.class_name):
                # The file has a mask token and, with DINOv2, position embeddings for the image size of
                # pretraining, which `layer.backbone` does not have. So the file is loaded into a second
                # backbone with the configuration of the preset, and the weights are copied from there.
                config = {**preset.backbone["config"], "image_shape": shape, "dtype": None}
                source = _construct({**preset.backbone, "config": config})
            source.load_weights(_weights_file(Path(preset.folder)))
        if source is not layer.backbone:
            layer.backbone.set_weights(_weight_values(source))
    except UserError:
        raise
    except Exception as error:  # Keras, HDF5 and KerasHub raise errors of many types
        raise UserError(
            f"--model={preset.source}: its weights cannot be loaded ({first_line(error)}); restore "
            "the files, or pass --weights=none for random weights"
        ) from error


def _convert(preset: Preset, shape: list[int]) -> Any:
    """The backbone, with its weights, that KerasHub makes from files of timm or transformers."""
    hub = import_keras_hub(f"--model={preset.source}")
    options = {"image_shape": shape} if accepts_patch_multiples(preset.class_name) else {}
    return hub.models.Backbone.from_preset(preset.folder, dtype="float32", **options)


def _weights_file(folder: Path) -> str:
    """The path of the weights file, or of the index file if there are several weights files.

    Raises:
        ValueError: a weights file does not contain only plain arrays.
    """
    single, index = folder / "model.weights.h5", folder / "model.weights.json"
    for file in [single] if single.is_file() else sorted(folder.glob("model_*.weights.h5")):
        check_hdf5(str(file), file.stat().st_size)
    return str(single if single.is_file() else index)


def _weight_values(source: Any) -> list[np.ndarray]:
    """The weights of a backbone, without the mask token.

    In place of the position embeddings of the weights file, the list contains the position embeddings
    that were resized to the image size of the backbone.
    """
    embeddings = find_position_embeddings(source)
    return [
        (embeddings[1] if embeddings and variable is embeddings[0] else variable).numpy()
        for variable in source.weights
        if variable.name != "mask_token"
    ]


def _construct(description: Mapping[str, Any]) -> Any:
    """Builds a backbone from ``class_name`` and ``config``."""
    hub = import_keras_hub(f"a network of KerasHub ({description['class_name']})")
    return getattr(hub.models, description["class_name"]).from_config(dict(description["config"]))
