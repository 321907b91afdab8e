"""Residual branches of a network, found in its graph of layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import node_layer, node_parents, producing_node

__all__ = ["zero_init_residuals"]

# what a shortcut may pass through where the branch changes the number of channels or the size
_LINEAR = (
    keras.layers.Conv2D,
    keras.layers.BatchNormalization,
    keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Dropout,
)


def zero_init_residuals(model: keras.Model) -> int:
    """Sets the scale to 0 in the batch normalisation that ends each residual branch; returns how many.

    Every block is the identity at first, so a deep network learns like a shallow one until its branches
    are needed (Goyal et al. 2017, arXiv 1706.02677, section 5.1). For random weights only.

    Networks of keras.applications add the shortcut and the branch in either order. The branch is the
    input that comes from the other one, or from what the other one is a linear projection of. Left as
    they are: sums of equal branches (NASNet has such), branches that end in anything but batch
    normalisation before dropout (ResNetV2: a convolution), and batch normalisation whose output
    something else reads too.

    Args:
        model: a functional model; models nested in it are left as they are.
    """
    calls = _ancestry(producing_node(output) for output in model.outputs)
    readers = Counter(parent for call in calls for parent in node_parents(call))
    silenced = [
        norm
        for layer in model.layers
        if isinstance(layer, keras.layers.Add)
        and (norm := _last_norm(_branch([producing_node(each) for each in layer.input]), readers))
    ]
    for norm in silenced:
        norm.gamma.assign(tf.zeros_like(norm.gamma))
    return len(silenced)


def _branch(inputs: list[Any]) -> Any:
    """Of the calls that a sum adds, the one that is a residual branch; None where none can be told."""
    if len(inputs) != 2:
        return None
    first, second = (_ancestry([each]) for each in inputs)
    # what leads to one of the two alone; nothing where the other one comes from it
    ways = [(first - second, inputs[1]), (second - first, inputs[0])]
    (shortcut, branch), (other_way, _) = sorted(ways, key=lambda each: len(each[0]))
    linear = all(isinstance(node_layer(call), _LINEAR) for call in shortcut)
    return branch if linear and len(shortcut) < len(other_way) else None


def _last_norm(call: Any, readers: Counter) -> Any:
    """The scaling batch normalisation that a branch ends in and that it has to itself, or None."""
    while call is not None and readers[call] == 1:
        layer = node_layer(call)
        if isinstance(layer, keras.layers.BatchNormalization):
            return layer if layer.scale else None
        if not _drops(layer):
            return None
        (call,) = node_parents(call)
    return None


def _drops(layer: Any) -> bool:
    """Whether the layer lets through what it gets, or nothing; networks bring their own such layers."""
    return isinstance(layer, keras.layers.Dropout) or type(layer).__name__ == "StochasticDepth"


def _ancestry(calls: Any) -> set[Any]:
    """The calls and all that they depend on."""
    found: set[Any] = set()
    left = list(calls)
    while left:
        call = left.pop()
        if call not in found:
            found.add(call)
            left.extend(node_parents(call))
    return found
