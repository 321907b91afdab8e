"""Zero initialization of the residual branches of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import node_layer, node_parents, producing_node

__all__ = ["zero_init_residuals"]

# If a branch changes the number of channels or the size, its shortcut projects with these layers.
_LINEAR = (
    keras.layers.Conv2D,
    keras.layers.BatchNormalization,
    keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Dropout,
)


def zero_init_residuals(model: keras.Model) -> int:
    """Sets gamma to 0 in the batch normalization at the end of each residual branch.

    The residual block then adds nothing to its shortcut at the start, which makes the first steps of
    training easier (Goyal et al. 2017, arXiv 1706.02677, section 5.1). Call this function for random
    weights only.

    A residual block ends with an ``Add`` layer, whose inputs are the shortcut and the branch, in either
    order. Either the branch is computed from the shortcut, or the branch and the shortcut are computed
    from one tensor and the shortcut is a linear projection of this tensor.

    Gamma keeps its value in three cases:

    * Neither input of the ``Add`` layer is clearly the branch (as in NASNet).
    * The branch ends neither with batch normalization nor with batch normalization and dropout. In
      ResNetV2, for example, the branch ends with a convolution.
    * Another layer also uses the output of the batch normalization.

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
            if norm is not None:
                norms.append(norm)
    for norm in norms:
        norm.gamma.assign(tf.zeros_like(norm.gamma))
    return len(norms)


def _find_branch(inputs: list[Any]) -> Any:
    """The input of an ``Add`` layer that is a residual branch, as a node; None if neither input is."""
    if len(inputs) != 2:
        return None
    first, second = (_with_ancestors([node]) for node in inputs)
    # The nodes that only one of the two inputs depends on. The input with fewer such nodes is the
    # shortcut; an identity shortcut has none.
    only_first, only_second = first - second, second - first
    if len(only_first) < len(only_second):
        shortcut_nodes, branch = only_first, inputs[1]
    elif len(only_second) < len(only_first):
        shortcut_nodes, branch = only_second, inputs[0]
    else:
        return None
    is_linear = all(isinstance(node_layer(node), _LINEAR) for node in shortcut_nodes)
    return branch if is_linear else None


def _last_norm(node: Any, num_consumers: Counter) -> Any:
    """The batch normalization at the end of a branch, which dropout may follow.

    None if the branch ends with another layer, if the batch normalization has no gamma, or if another
    layer uses its output too.
    """
    while node is not None and num_consumers[node] == 1:
        layer = node_layer(node)
        if isinstance(layer, keras.layers.BatchNormalization):
            return layer if layer.scale else None
        if not _is_dropout(layer):
            return None
        (node,) = node_parents(node)
    return None


def _is_dropout(layer: Any) -> bool:
    """Whether the layer is dropout; ``StochasticDepth`` is the dropout of ConvNeXt."""
    return isinstance(layer, keras.layers.Dropout) or type(layer).__name__ == "StochasticDepth"


def _with_ancestors(nodes: Iterable[Any]) -> set[Any]:
    """The nodes in ``nodes``, and all nodes that they depend on."""
    visited: set[Any] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in visited:
            visited.add(node)
            stack.extend(node_parents(node))
    return visited
