"""A backbone of KerasHub as one layer: scaled pixels in, a feature map out, for CNN and ViT alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from seedtf.compat.keras_hub import (
    find_position_embeddings,
    import_keras_hub,
    save_position_embeddings,
)
from seedtf.errors import UserError, first_line
from seedtf.model.presets import Preset, check_backbone, token_grid

__all__ = ["KerasHubBackbone", "load_preset_weights"]


@keras.saving.register_keras_serializable(package="seedtf")
class KerasHubBackbone(keras.layers.Layer):
    """Applies a backbone of KerasHub and returns its last feature map.

    KerasHub's own ``get_config`` omits arguments of some backbones, and some of its layers cannot be
    made again from their configuration, so this layer records the arguments of the whole backbone.

    Args:
        backbone: ``module``, ``class_name`` and ``config`` of a supported class, JSON values; see
            ``Preset.backbone_for``.

    Raises:
        ValueError: another class.
        UserError: KerasHub is not installed.
    """

    def __init__(self, backbone: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_backbone(backbone)
        # As text: Keras would track the layers that it looks for in a mapping.
        self._description = json.dumps(backbone)
        self._grid = token_grid(backbone)
        before = keras.mixed_precision.dtype_policy()
        # Many layers of KerasHub follow the global policy.
        keras.mixed_precision.set_dtype_policy(self.dtype_policy)
        try:
            self.backbone = _construct(backbone)
        finally:
            keras.mixed_precision.set_dtype_policy(before)
        save_position_embeddings(self.backbone)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Maps scaled pixels ``[B, S, S, 3]`` to features ``[B, h, w, C]``.

        The tokens of a ViT are laid out as the patches of the image are; the class token and the
        register tokens, which come before them, are left out.
        """
        names = list(self.backbone.input) if isinstance(self.backbone.input, dict) else []
        outputs = self.backbone({names[0]: inputs} if names else inputs, training=training)
        if isinstance(outputs, dict):  # of every stage: stem, stage1, stage2, …
            outputs = outputs[max(name for name in outputs if name != "stem")]
        if not self._grid:
            return outputs
        patches = outputs[:, outputs.shape[1] - self._grid**2 :]
        return keras.ops.reshape(patches, (-1, self._grid, self._grid, outputs.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which Keras recreates the layer."""
        return {**super().get_config(), "backbone": json.loads(self._description)}


def load_preset_weights(layer: KerasHubBackbone, preset: Preset, image_size: int) -> None:
    """Loads the trained weights of a preset into a layer that was made of it.

    Raises:
        UserError: the weights are missing or damaged.
    """
    hub = import_keras_hub(f"--model={preset.name}")
    options: dict[str, Any] = {"dtype": "float32"}
    if preset.sizes.multiple > 1:
        options["image_shape"] = (image_size, image_size, 3)
    try:
        source = hub.models.Backbone.from_preset(preset.source, **options)
        values = source.get_weights()
        embeddings = find_position_embeddings(source)
        for index, variable in enumerate(source.weights):
            if embeddings and variable is embeddings[0]:
                values[index] = embeddings[1].numpy()
        layer.backbone.set_weights(values)
    except Exception as error:  # Keras, HDF5 and KerasHub raise errors of many types
        raise UserError(
            f"--model={preset.source}: its weights cannot be loaded ({first_line(error)}); restore "
            "the folder, or pass --weights=none for random weights"
        ) from error


def _construct(description: Mapping[str, Any]) -> Any:
    hub = import_keras_hub(f"a network of KerasHub ({description['class_name']})")
    return getattr(hub.models, description["class_name"]).from_config(dict(description["config"]))
