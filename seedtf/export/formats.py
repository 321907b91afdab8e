"""Converts a classifier to LiteRT and ONNX files, which map pixels to probabilities.

The input is RGB in 0–255 at the model's size:

* ``litert``: float32 ``[1, S, S, 3]``
* ``litert_int8``: uint8 ``[1, S, S, 3]``; weights and activations have 8 bits
* ``onnx``: float32 ``[B, S, S, 3]``

The output is temperature-scaled probabilities, float32 ``[1, K]`` or ``[B, K]``.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.tensorflow import freeze_variables
from seedtf.errors import UserError, first_line
from seedtf.export.serving_graph import ServingModule
from seedtf.model.batch_norm import finalize_layers

__all__ = ["FORMATS", "OPTIONAL_FORMATS", "convert", "parse_formats", "rebuild_in_float32"]


@dataclass(frozen=True)
class _Format:
    """An optional format.

    Attributes:
        file: the name of the file in assets.extra.
        runtime: the value of RUNTIME with which ``parity_worker`` runs the file.
        packages: the packages of ``seedtf[export]`` that the conversion and the comparison import.
    """

    file: str
    runtime: str
    packages: tuple[str, ...]


OPTIONAL_FORMATS = {
    "litert": _Format("model.tflite", "litert", ("ai_edge_litert",)),
    "litert_int8": _Format("model_int8.tflite", "litert", ("ai_edge_litert",)),
    "onnx": _Format("model.onnx", "onnx", ("tf2onnx", "onnxruntime")),
}
FORMATS = ("saved_model", *OPTIONAL_FORMATS)
_ONNX_OPSET = 17
_LOW_PRECISION = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def parse_formats(text: str) -> tuple[str, ...]:
    """Returns the optional formats in ``text``, a value of ``--format``.

    The SavedModel is not optional, because it is always written.

    Raises:
        UserError: a name is unknown, or a package that the format needs is not installed.

    Example:
        >>> parse_formats("saved_model")
        ()
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise UserError(
                f"--format={name}: choose from {', '.join(FORMATS)}, separated by commas"
            )
        for package in OPTIONAL_FORMATS[name].packages if name in OPTIONAL_FORMATS else ():
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--format={name}: needs the package {package}, which is not installed; "
                    "pip install 'seedtf[export]'"
                )
    return tuple(name for name in OPTIONAL_FORMATS if name in names)


def rebuild_in_float32(model: keras.Model) -> keras.Model:
    """Returns a model with the layers and weights of ``model`` that computes in float32.

    Converters and CPUs expect float32. If ``model`` already computes in float32, ``model`` itself is
    returned.
    """
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    rebuilt = type(model).from_config(_in_float32(model.get_config()))
    # Under a mixed policy, variables are float32, so their values do not change.
    rebuilt.set_weights(model.get_weights())
    finalize_layers(rebuilt)
    return rebuilt


def convert(module: ServingModule, name: str, calibration: np.ndarray) -> bytes:
    """Converts a classifier to another format.

    Args:
        module: a classifier that computes in float32.
        name: a key of ``OPTIONAL_FORMATS``.
        calibration: uint8 ``[N, S, S, 3]``, training images from which ``litert_int8`` estimates the
            range of every activation.

    Returns:
        The content of the file.

    Raises:
        UserError: the converter does not support the network.
    """
    converters: dict[str, Callable[[], bytes]] = {
        "litert": lambda: _make_litert_converter(module).convert(),
        "litert_int8": lambda: _to_litert_int8(module, calibration),
        "onnx": lambda: _to_onnx(module),
    }
    try:
        with _errors_only_logging():
            return converters[name]()
    except Exception as error:  # converters document no common exception type
        raise UserError(
            f"--format={name}: this network cannot be converted ({first_line(error)}); "
            f"leave {name} out"
        ) from error


def _in_float32(config: Any) -> Any:
    """A Keras configuration in which every 16-bit dtype or policy is replaced by float32."""
    if isinstance(config, dict):
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32(value) for value in config)
    return "float32" if isinstance(config, str) and config in _LOW_PRECISION else config


def _make_litert_converter(module: ServingModule) -> Any:
    spec = tf.TensorSpec([1, *module.image_shape], tf.float32, "pixels")
    graph = tf.function(module.serve_pixels, autograph=False).get_concrete_function(spec)
    # Conversion from a concrete function freezes the variables. A file that is converted from a
    # SavedModel would predict NaN.
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], module)


def _to_litert_int8(module: ServingModule, calibration: np.ndarray) -> bytes:
    images = calibration.astype(np.float32)
    # One black and one white pixel extend the input range to 0–255. So the scale is 1 and the zero
    # point is 0, which means that an input of the quantized model is the pixel itself.
    images[0, 0, 0], images[0, -1, -1] = 0.0, 255.0

    def samples() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[np.newaxis]]

    converter = _make_litert_converter(module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    return converter.convert()


def _to_onnx(module: ServingModule) -> bytes:
    import tf2onnx  # noqa: PLC0415  an optional package

    spec = tf.TensorSpec([None, *module.image_shape], tf.float32, "pixels")
    graph = tf.function(module.serve_pixels, autograph=False).get_concrete_function(spec)
    frozen = freeze_variables(graph)
    (pixels,), (probabilities,) = frozen.inputs, frozen.outputs
    proto, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[pixels.name],
        output_names=[probabilities.name],
        tensors_to_rename={pixels.name: "pixels", probabilities.name: "probabilities"},
        opset=_ONNX_OPSET,
        custom_op_handlers={"Erfc": (_replace_erfc, [])},
    )
    return proto.SerializeToString()


def _replace_erfc(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Replaces Erfc, which ``tf.nn.gelu`` uses but tf2onnx does not support, by 1 - Erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    one = graph.make_const(f"{name}_one", np.ones([], np.float32))
    erf = graph.make_node("Erf", node.input, name=f"{name}_erf", shapes=shapes, dtypes=dtypes)
    graph.remove_node(name)
    inputs = [one.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, name=name, outputs=node.output, shapes=shapes, dtypes=dtypes)


@contextmanager
def _errors_only_logging() -> Iterator[None]:
    """Hides the converters' log messages below the level ERROR."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
