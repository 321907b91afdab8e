"""Zero initialization of the residual branches of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import node_layer, node_parents, producing_node

__all__ = ["zero_init_residuals"]

# The layers that a shortcut may contain if the branch changes the number of channels or the size.
_LINEAR = (
    keras.layers.Conv2D,
    keras.layers.BatchNormalization,
    keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Dropout,
)


def zero_init_residuals(model: keras.Model) -> int:
    """Sets gamma to 0 in the batch normalization at the end of each residual branch.

    Every block is then the identity at first, which makes the start of training easier (Goyal et al.
    2017, arXiv 1706.02677, section 5.1). Only for random weights.

    An ``Add`` layer has the shortcut and the branch as inputs, in either order. The branch is the input
    that is computed from the other input, or from a tensor of which the other input is a linear
    projection. Gamma is not changed if both inputs are alike (as in NASNet), if the branch does not end
    in batch normalization, with or without dropout (as in ResNetV2), or if another layer also uses the
    output of the batch normalization.

    Args:
        model: a functional model; models nested in it are not changed.

    Returns:
        The number of batch normalization layers whose gamma was set to 0.
    """
    nodes = _with_ancestors(producing_node(output) for output in model.outputs)
    num_consumers = Counter(parent for node in nodes for parent in node_parents(node))
    norms = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Add):
            branch = _find_branch([producing_node(tensor) for tensor in layer.input])
            norm = _last_norm(branch, num_consumers)
            norms += [] if norm is None else [norm]
    for norm in norms:
        norm.gamma.assign(tf.zeros_like(norm.gamma))
    return len(norms)


def _find_branch(inputs: list[Any]) -> Any:
    """The node, among the two inputs of a sum, that ends a residual branch; None if neither does."""
    if len(inputs) != 2:
        return None
    first, second = (_with_ancestors([node]) for node in inputs)
    # For each input: the nodes that only this input depends on, and the other input. The input with
    # fewer of them is the shortcut; for an identity shortcut there are none.
    exclusive = [(first - second, inputs[1]), (second - first, inputs[0])]
    (shortcut_nodes, branch), (branch_nodes, _) = sorted(exclusive, key=lambda pair: len(pair[0]))
    is_linear = all(isinstance(node_layer(node), _LINEAR) for node in shortcut_nodes)
    return branch if is_linear and len(shortcut_nodes) < len(branch_nodes) else None


def _last_norm(node: Any, num_consumers: Counter) -> Any:
    """The batch normalization that ends a branch, if it has a gamma and its output is used once."""
    while node is not None and num_consumers[node] == 1:
        layer = node_layer(node)
        if isinstance(layer, keras.layers.BatchNormalization):
            return layer if layer.scale else None
        if not _is_dropout(layer):
            return None
        (node,) = node_parents(node)
    return None


def _is_dropout(layer: Any) -> bool:
    """Whether the layer is some kind of dropout; ConvNeXt has a class of its own."""
    return isinstance(layer, keras.layers.Dropout) or type(layer).__name__ == "StochasticDepth"


def _with_ancestors(nodes: Iterable[Any]) -> set[Any]:
    """The nodes, and all nodes that these depend on."""
    visited: set[Any] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in visited:
            visited.add(node)
            stack.extend(node_parents(node))
    return visited
