"""Hides differences between Keras 3 and Keras 2.15, and wraps private names of Keras.

seedtf runs in two environments. The default one has TensorFlow 2.21 with Keras 3. The other one has
TensorFlow 2.15 with Keras 2.15, because TensorFlow Addons 0.23 supports no other version.

Each docstring states the function's purpose, the versions it was tried with and the test that fails
when Keras changes. Keras is imported inside the functions, so that importing this module is fast.
"""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from seedtf.errors import UserError

__all__ = [
    "KERAS_2",
    "KERAS_VERSION",
    "LRScales",
    "all_layers",
    "all_variables",
    "build_metrics",
    "build_optimizer",
    "check_keras_version",
    "innermost_optimizer",
    "keep_random_states_in_variables",
    "layerwise_lr_class",
    "metrics_variables",
    "node_layer",
    "node_parents",
    "optimizer_variables",
    "producing_node",
    "replace_layer_class",
    "set_weights_group_name",
    "sublayers",
    "with_values",
]

KERAS_VERSION = importlib.metadata.version("keras")

KERAS_2 = KERAS_VERSION.startswith("2.")
"""Whether this environment has Keras 2.15, not Keras 3."""


def keep_random_states_in_variables() -> None:
    """Makes layers that are created after this call keep their random state in variables.

    A random state in variables can be saved and restored. Keras 3 always has such variables. By
    default, dropout of Keras 2.15 uses a random state inside TensorFlow, which cannot be read.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_the_random_state_of_dropout_can_be_restored``.
    """
    if KERAS_2:
        import keras

        keras.backend.experimental.enable_tf_random_generator()


def all_layers(model: Any) -> list[Any]:
    """All layers of a model, including the layers inside other layers. No layer occurs twice.

    Keras has no public way to find the layers inside a layer that is not a model.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_batch_norm_inside_other_layers_is_fused``.
    """
    return list(model._flatten_layers(include_self=False))


def sublayers(layer: Any) -> list[Any]:
    """The layers directly inside a layer, without the layers inside those layers.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_the_rates_of_a_vision_transformer_rise_by_block``.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def all_variables(model: Any) -> list[Any]:
    """The weights, moving statistics and random states of a model that contains no other model.

    In Keras 2.15, ``model.variables`` lacks the random states, so they are read from the private
    generators of the layers.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_the_random_state_of_dropout_can_be_restored``.
    """
    if not KERAS_2:
        return list(model.variables)
    layer_generators = [getattr(layer, "_random_generator", None) for layer in model.layers]
    generators = [getattr(generator, "_generator", None) for generator in layer_generators]
    states = [generator.state for generator in generators if generator is not None]
    return [*model.variables, *states]


def with_values(model: Any, values: Sequence[Any] | None) -> AbstractContextManager[Any]:
    """A context in which the model's variables have ``values``, for the current thread only.

    Args:
        model: a built model.
        values: one array for each of ``all_variables(model)``; None leaves the variables as they are.
            Keras 2.15 supports only None.

    Tried with Keras 3.15.1; tested by ``tests/test_saver.py``.
    """
    if values is None:
        return nullcontext()
    import keras
    import tensorflow as tf

    # The scope turns the values into tensors, which must not take GPU memory.
    with tf.device("/cpu:0"):
        return keras.StatelessScope(
            state_mapping=list(zip(all_variables(model), values, strict=True))
        )


def metrics_variables(model: Any) -> list[Any]:
    """The running sums of a compiled model's metrics.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_metrics_variables_include_the_image_counts_of_loss_and_accuracy``.
    """
    if not KERAS_2:
        return list(model.metrics_variables)
    return [variable for metric in model.metrics for variable in metric.variables]


def build_metrics(trainer: Any) -> None:
    """Creates the variables of a trainer's metrics before its first step.

    A first step would create them, too, but on a GPU it would have to be compiled, which takes a
    minute. The private method of Keras 3 uses only the shapes of a batch and computes nothing. Keras
    2.15 has no such method, so a batch of zeros is evaluated.

    Args:
        trainer: a compiled ``training.trainer.Trainer``.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_metrics_can_be_built_before_the_first_step``.
    """
    import numpy as np

    shape = trainer.network.input_shape[1:]
    batch = np.zeros((1, *shape), np.float32), np.zeros(1, np.int32)
    if KERAS_2:
        trainer.test_on_batch(*batch)
    else:
        trainer._symbolic_build(data_batch=batch)


def innermost_optimizer(optimizer: Any) -> Any:
    """The optimizer inside a ``LossScaleOptimizer``; any other optimizer is returned unchanged.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_the_loss_scale_is_one_of_the_optimizer_variables``.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def build_optimizer(optimizer: Any, variables: list[Any]) -> None:
    """Creates the slots and the step count of an optimizer before the first step.

    The optimizers of TensorFlow Addons derive from the legacy optimizer class of Keras 2.10 and
    earlier, in which the method that creates the slots is private.

    Tried with Keras 2.15.0, Addons 0.23.0 and Keras 3.15.1; tested by
    ``test_optimizer_variables_include_the_step_count_and_the_slots``.
    """
    if hasattr(optimizer, "_create_all_weights"):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def optimizer_variables(optimizer: Any) -> list[Any]:
    """The slots, the step count and the loss scale of a built optimizer, in a fixed order.

    Tried with Keras 2.15.0, Addons 0.23.0 and Keras 3.15.1; tested by
    ``test_the_loss_scale_is_one_of_the_optimizer_variables``.
    """
    if not KERAS_2:
        return list(optimizer.variables)
    inner = innermost_optimizer(optimizer)
    # If a legacy optimizer wraps another optimizer, only `weights` has the slots of both optimizers.
    own = inner.weights if hasattr(inner, "_create_all_weights") else inner.variables
    scale = getattr(optimizer, "_loss_scale", None)
    return [*own, *(() if scale is None else (scale.current_loss_scale, scale.counter))]


def check_keras_version(path: Path) -> None:
    """Raises UserError if the other environment's version of Keras wrote the ``.keras`` file ``path``.

    Keras 2.15 and Keras 3 name their classes differently, so neither can read files of the other. A
    damaged or missing file raises no error here, because the code that loads it reports the error.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_a_model_of_the_other_keras_version_is_refused``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            writer = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError):
        return
    other_major = "3" if KERAS_2 else "2"
    if writer.partition(".")[0] == other_major:
        raise UserError(
            f"{path}: written by Keras {writer[:20]}, but this environment has Keras "
            f"{KERAS_VERSION}; use the environment that it was trained in"
        )


# Keras records each call of a layer in a private `Node`; Keras 3 also records calls of operations.
# There is no public way to walk the graph of layers of a functional model.


def producing_node(tensor: Any) -> Any:
    """The node of the layer call that produced a symbolic tensor.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_a_branch_is_zeroed_on_either_side_of_its_sum``.
    """
    layer, index = tensor._keras_history[:2]
    return layer._inbound_nodes[index]


def node_parents(node: Any) -> Collection[Any]:
    """The distinct nodes whose outputs are the inputs of a node.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_a_branch_is_zeroed_on_either_side_of_its_sum``.
    """
    return set(node.parent_nodes)


def node_layer(node: Any) -> Any:
    """The layer whose call a node records; with Keras 3 it may be an operation instead of a layer.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_a_branch_is_zeroed_on_either_side_of_its_sum``.
    """
    return node.operation if hasattr(node, "operation") else node.layer


def replace_layer_class(layer: Any, new_class: type) -> None:
    """Changes the class of a built layer to ``new_class``, a subclass that adds no attributes.

    To insert a new layer instead, the model's graph of layers would have to be rebuilt.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_fusing_keeps_names_variables_and_momentum``.
    """
    layer.__class__ = new_class


def set_weights_group_name(layer_class: type, name: str) -> None:
    """Makes Keras store the weights of ``layer_class`` under ``name``, the name of another class.

    Keras names the groups in a weights file after the Python names of the classes. With the same name,
    a subclass and Keras's own layer can load each other's weights files.

    Tried with Keras 2.15.0 and 3.15.1; tested by
    ``test_weights_files_of_either_layer_load_into_the_other``.
    """
    layer_class.__name__ = name


LRScales = Mapping[str, float] | Callable[[Any], float]
"""The factor on the learning rate of each variable: by the path of the variable, or as a function."""


def layerwise_lr_class(base: type, scales: LRScales) -> type:
    """A subclass of a Keras optimizer with a factor on the learning rate of each variable.

    The factor multiplies the learning rate that Keras passes to ``update_step``, because in every Keras
    optimizer the update of a variable, or its velocity, is proportional to this rate. With Adam, a
    factor on the gradient would have no effect. The subclass also applies the weight decay of each
    variable with its own rate; Keras would use the same rate for all variables. The optimizer gets no
    additional variables.

    Args:
        base: a class of ``keras.optimizers``.
        scales: the factor of each trainable variable.

    Tried with Keras 3.15.1, the only environment that uses it; tested by
    ``test_an_lr_scale_is_a_factor_on_the_whole_change`` and
    ``test_lr_scales_of_one_equal_the_plain_optimizer_exactly``.
    """
    scale_of = scales if callable(scales) else lambda variable: scales[variable.path]

    class LayerwiseLR(base):
        def build(self, variables: list[Any]) -> None:
            self._lr_scales = tuple(float(scale_of(variable)) for variable in variables)
            super().build(variables)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            lr = learning_rate * self._lr_scales[self._get_variable_index(variable)]
            if self.weight_decay and self._use_weight_decay(variable):
                self.assign_sub(variable, variable * self.weight_decay * lr)
            super().update_step(gradient, variable, lr)

        def _apply_weight_decay(self, variables: list[Any]) -> None:
            """Does nothing, because ``update_step`` applies the weight decay of each variable."""

    return LayerwiseLR
