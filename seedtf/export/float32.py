"""A model of any precision rebuilt in float32, because converters and CPUs want that."""

from __future__ import annotations

from typing import Any

import keras

from seedtf.model.batch_norm import finalize_layers

__all__ = ["rebuild_in_float32"]

_SHORT = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def rebuild_in_float32(model: keras.Model) -> keras.Model:
    """The same layers and weights with every computation in float32.

    Returns:
        ``model`` itself where all of it computes in float32 already.
    """
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    rebuilt = type(model).from_config(_in_float32(model.get_config()))
    # under a mixed policy the variables are float32 themselves: nothing is lost
    rebuilt.set_weights(model.get_weights())
    finalize_layers(rebuilt)
    return rebuilt


def _in_float32(config: Any) -> Any:
    """A Keras configuration with every short number type in it replaced."""
    if isinstance(config, dict):
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in _SHORT else config
