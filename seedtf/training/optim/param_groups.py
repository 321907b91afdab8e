"""Which weights decay, and the learning rate of each layer: timm's parameter groups for Keras."""

from __future__ import annotations

import re
from typing import Any

import keras

from seedtf.compat.keras import sublayers
from seedtf.model.hub import KerasHubBackbone

__all__ = ["is_decayed", "layerwise_lr", "no_decay_variables"]

# Keras's names for biases and for the scales and shifts of normalization layers.
_BIASES_AND_SCALES = frozenset({"bias", "gamma", "beta"})
# KerasHub's names for the learned inputs of vision transformers, which timm does not decay either.
_TOKENS = re.compile("(class|cls|register|distillation)_tokens?|position_embedding")


def is_decayed(variable: Any) -> bool:
    """Whether weight decay applies to a variable: its rank is 2 or more, and it is not a bias or scale.

    The variable's own name decides, not its layer's: the kernel of a layer named ``gamma`` decays. The
    tokens and position embeddings of a vision transformer do not decay.
    """
    name = variable.name.rpartition("/")[2].partition(":")[0]  # in Keras 2.15: layer/kernel:0
    is_token = bool(_TOKENS.search(getattr(variable, "path", "")))
    return len(variable.shape) > 1 and name not in _BIASES_AND_SCALES and not is_token


def no_decay_variables(network: keras.Model) -> list[Any]:
    """Returns the variables of a network, frozen ones included, to which no weight decay is applied."""
    return [variable for variable in network.weights if not is_decayed(variable)]


def layerwise_lr(network: keras.Model, body_lr_factor: float) -> dict[str, float]:
    """Returns discriminative learning rates: the rate of every variable relative to the head's.

    In ULMFiT (Howard and Ruder, arXiv 1801.06146, section 3.2) each layer has a fixed fraction of the
    rate of the layer above it. Here that fraction follows from the number of layers: of n body layers
    with weights, layer i = 0 … n - 1, counted from the input, gets ``body_lr_factor`` to the power of
    (n - i) / n. A block of a vision transformer counts as one layer. Keras 3 only.

    Args:
        network: a model made by ``build_network``; frozen layers get their rates too.
        body_lr_factor: the factor of the body's first layer, above 0 and at most 1.

    Returns:
        A factor, from ``body_lr_factor`` to the head's 1, for the path of every variable.

    Example:
        >>> from seedtf.model.network import build_network
        >>> network = build_network(model="tiny", num_classes=2, image_size=8, weights="none")
        >>> scales = layerwise_lr(network, 0.01)
        >>> min(scales.values()), scales["logits/kernel"]
        (0.01, 1.0)
    """
    # The statistics of a Normalization layer are constants that are never trained.
    layers = [
        layer
        for outer in network.layers
        for layer in _parts(outer)
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]
    count = len(layers) - 1  # without the head, which is the last one
    return {
        variable.path: body_lr_factor ** ((count - index) / count)
        for index, layer in enumerate(layers)
        for variable in layer.weights
    }


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that have a learning rate of their own, in the order in which they are applied.

    A layer counts as a whole, as the blocks of KerasHub do, unless it consists of several such blocks.
    """
    inner = layer.layers if isinstance(layer, keras.Model) else sublayers(layer)
    blocks = [
        type(part)
        for part in inner
        if type(part).__module__.startswith("keras_hub.") and sublayers(part)
    ]
    is_container = isinstance(layer, (keras.Model, KerasHubBackbone))
    if is_container or len(set(blocks)) < len(blocks):
        return [part for sublayer in inner for part in _parts(sublayer)]
    return [layer]
