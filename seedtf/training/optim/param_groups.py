"""Chooses which weights decay, and the learning rate of each layer, like timm's parameter groups."""

from __future__ import annotations

import re
from typing import Any

import keras

from seedtf.compat.keras import sublayers
from seedtf.model.hub import KerasHubBackbone

__all__ = ["is_decayed", "layerwise_lr", "no_decay_variables"]

# Keras's names for biases and for the scales and shifts of normalization layers.
_BIASES_AND_SCALES = frozenset({"bias", "gamma", "beta"})
# KerasHub's names for the tokens and position embeddings that vision transformers learn; timm does not
# decay these either.
_TOKENS = re.compile("(class|cls|register|distillation)_tokens?|position_embedding")


def is_decayed(variable: Any) -> bool:
    """Whether weight decay applies to a variable.

    Weight decay does not apply to variables of rank 0 or 1, to biases, to scales, or to the tokens and
    position embeddings of a vision transformer. Only the last part of a variable's path counts as its
    name, so the kernel of a layer named ``gamma`` decays.
    """
    name = variable.name.rpartition("/")[2].partition(":")[0]  # in Keras 2.15: layer/kernel:0
    is_token = bool(_TOKENS.search(getattr(variable, "path", "")))
    return len(variable.shape) > 1 and name not in _BIASES_AND_SCALES and not is_token


def no_decay_variables(network: keras.Model) -> list[Any]:
    """Returns the variables of a network, frozen ones included, to which no weight decay is applied."""
    return [variable for variable in network.weights if not is_decayed(variable)]


def layerwise_lr(network: keras.Model, body_lr_factor: float) -> dict[str, float]:
    """Returns a factor for every variable: its learning rate divided by the rate of the head.

    If n layers of the body have weights, layer i, counted from 0 at the input, gets
    ``body_lr_factor ** ((n - i) / n)``. So the first layer gets ``body_lr_factor``, and the ratio of
    the rates of two neighbouring layers is the same everywhere. In ULMFiT (Howard and Ruder, arXiv
    1801.06146, section 3.2) this ratio is fixed instead of the factor of the first layer. A block of a
    vision transformer counts as one layer. Keras 3 only.

    Args:
        network: a model made by ``build_network``; its frozen layers get factors, too.
        body_lr_factor: the factor of the body's first layer, above 0 and at most 1.

    Returns:
        The factors by the path of the variable, from ``body_lr_factor`` in the first layer to 1 in the
        head. Variables of ``keras.layers.Normalization`` are left out.

    Example:
        >>> from seedtf.model.network import build_network
        >>> network = build_network(model="tiny", num_classes=2, image_size=8, weights="none")
        >>> scales = layerwise_lr(network, 0.01)
        >>> min(scales.values()), scales["logits/kernel"]
        (0.01, 1.0)
    """
    # Normalization layers standardize the input with constants, which are never trained.
    layers = [
        layer
        for outer in network.layers
        for layer in _layers_with_own_rate(outer)
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]
    num_body_layers = len(layers) - 1  # the last layer is the head
    return {
        variable.path: body_lr_factor ** ((num_body_layers - index) / num_body_layers)
        for index, layer in enumerate(layers)
        for variable in layer.weights
    }


def _layers_with_own_rate(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The parts of ``layer`` that get a learning rate of their own, in the order of their calls.

    Three kinds of layers are divided into their parts: a model, a backbone of KerasHub, and a layer
    that contains two or more KerasHub blocks of one class. Any other layer is one part, and so is a
    single KerasHub block.
    """
    inner = layer.layers if isinstance(layer, keras.Model) else sublayers(layer)
    block_classes = [
        type(part)
        for part in inner
        if type(part).__module__.startswith("keras_hub.") and sublayers(part)
    ]
    is_container = isinstance(layer, (keras.Model, KerasHubBackbone))
    if is_container or len(set(block_classes)) < len(block_classes):
        return [part for sublayer in inner for part in _layers_with_own_rate(sublayer)]
    return [layer]
