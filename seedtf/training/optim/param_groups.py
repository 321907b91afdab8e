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

    It does not apply to variables of rank 0 or 1, to biases and scales, or to the tokens and position
    embeddings of a vision transformer. The last part of the variable's path counts as its name, so the
    kernel of a layer named ``gamma`` decays.
    """
    name = variable.name.rpartition("/")[2].partition(":")[0]  # in Keras 2.15: layer/kernel:0
    is_token = bool(_TOKENS.search(getattr(variable, "path", "")))
    return len(variable.shape) > 1 and name not in _BIASES_AND_SCALES and not is_token


def no_decay_variables(network: keras.Model) -> list[Any]:
    """Returns the variables of a network, frozen ones included, to which no weight decay is applied."""
    return [variable for variable in network.weights if not is_decayed(variable)]


def layerwise_lr(network: keras.Model, body_lr_factor: float) -> dict[str, float]:
    """Returns a factor for every variable: its learning rate divided by the rate of the head.

    In ULMFiT (Howard and Ruder, arXiv 1801.06146, section 3.2) each layer has a fixed fraction of the
    rate of the next layer. Here the first layer has ``body_lr_factor``, and the fraction depends on the
    number of layers: of n body layers with weights, layer i = 0 … n - 1, counted from the input, gets
    ``body_lr_factor ** ((n - i) / n)``. A block of a vision transformer counts as one layer.
    Keras 3 only.

    Args:
        network: a model made by ``build_network``; frozen layers get their rates too.
        body_lr_factor: the factor of the body's first layer, above 0 and at most 1.

    Returns:
        A factor for the path of every variable but those of ``keras.layers.Normalization``, from
        ``body_lr_factor`` in the first layer to 1 in the head.

    Example:
        >>> from seedtf.model.network import build_network
        >>> network = build_network(model="tiny", num_classes=2, image_size=8, weights="none")
        >>> scales = layerwise_lr(network, 0.01)
        >>> min(scales.values()), scales["logits/kernel"]
        (0.01, 1.0)
    """
    # Normalization layers are left out, because their statistics are never trained.
    layers = [
        layer
        for outer in network.layers
        for layer in _layers_with_own_rate(outer)
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]
    count = len(layers) - 1  # without the head, which is the last one
    return {
        variable.path: body_lr_factor ** ((count - index) / count)
        for index, layer in enumerate(layers)
        for variable in layer.weights
    }


def _layers_with_own_rate(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The parts of ``layer`` that get a learning rate of their own, in the order of their calls.

    A model, a backbone of KerasHub, and a layer with two or more KerasHub blocks of one class are
    divided into their parts; any other layer, such as one of these blocks, is not.
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
