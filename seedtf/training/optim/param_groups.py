"""Which weights decay, and how fast each layer learns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from seedtf.model.network import HEAD

__all__ = ["decayed", "is_decayed", "layerwise_lr", "undecayed"]

# what the layers of Keras call their shifts and scales
_SHIFTS_AND_SCALES = frozenset({"bias", "gamma", "beta"})


def is_decayed(variable: Any) -> bool:
    """Whether weight decay takes from a variable: one of rank 2 or more, and no shift or scale.

    Judged by the variable's own name: a kernel of a layer named ``gamma`` decays.
    """
    name = variable.name.rpartition("/")[2].partition(":")[0]  # in Keras 2.15: layer/kernel:0
    return len(variable.shape) > 1 and name not in _SHIFTS_AND_SCALES


def decayed(network: keras.Model) -> list[Any]:
    """The trainable variables of a network that weight decay takes from."""
    return [each for each in network.trainable_variables if is_decayed(each)]


def undecayed(network: keras.Model) -> list[Any]:
    """The trainable variables of a network that weight decay spares."""
    return [each for each in network.trainable_variables if not is_decayed(each)]


def layerwise_lr(network: keras.Model, body_lr_factor: float) -> dict[str, float]:
    """Discriminative rates: the learning rate of every variable relative to the head's.

    After Howard and Ruder, ULMFiT, arXiv 1801.06146, section 3.2, where each layer has a fixed
    fraction of the rate of the one above it. Here the fraction follows from the number of layers: of
    n body layers with weights, counted from the input, layer i = 0 … n - 1 gets ``body_lr_factor`` to
    the power of (n - i) / n. Keras 3 only.

    Args:
        network: as ``build_network`` makes it, whichever of its layers are frozen.
        body_lr_factor: of the body's first layer, above 0 to 1.

    Returns:
        By the path of the variable its factor, from ``body_lr_factor`` to the head's 1.
    """
    # the statistics of a Normalization layer are given, never learnt
    learnt = [
        layer
        for layer in network.layers
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]
    body = [layer for layer in learnt if layer.name != HEAD]
    count = len(body)
    factors = {
        layer.name: body_lr_factor ** ((count - number) / count)
        for number, layer in enumerate(body)
    }
    return {
        path: factors.get(layer.name, 1.0) for layer in learnt for path in _paths(layer.weights)
    }


def _paths(variables: Iterable[Any]) -> list[str]:
    return [variable.path for variable in variables]
