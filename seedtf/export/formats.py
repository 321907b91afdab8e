"""The classifier as LiteRT and ONNX files: pixels in, probabilities out, no decoding.

Input is RGB in 0–255 of the model's size: float32 ``[1, S, S, 3]`` (``litert``), uint8
``[1, S, S, 3]`` (``litert_int8``, weights and activations in 8 bits), float32 ``[B, S, S, 3]``
(``onnx``). Output is float32 ``[B, K]`` probabilities, the temperature applied.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.export.serving_graph import ServingModule

__all__ = ["FORMATS", "OPTIONAL_FORMATS", "convert", "parse_formats"]

# format: file in assets.extra, its runtime's name in parity.py, packages needed, of the extra [export]
OPTIONAL_FORMATS = {
    "litert": ("model.tflite", "litert", ("ai_edge_litert",)),
    "litert_int8": ("model_int8.tflite", "litert", ("ai_edge_litert",)),
    "onnx": ("model.onnx", "onnx", ("tf2onnx", "onnxruntime")),
}
FORMATS = ("saved_model", *OPTIONAL_FORMATS)
_ONNX_OPSET = 17


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats that ``--format=text`` names beside the SavedModel, which is always written.

    Raises:
        UserError: an unknown name, or one whose packages are not installed.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--format={name}: choose from {', '.join(FORMATS)}, comma between")
        for package in OPTIONAL_FORMATS[name][2] if name in OPTIONAL_FORMATS else ():
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--format={name}: needs the package {package}, which is not installed; "
                    "pip install 'seedtf[export]'"
                )
    return tuple(name for name in OPTIONAL_FORMATS if name in names)


def convert(module: ServingModule, name: str, calibration: np.ndarray) -> bytes:
    """The content of a file in the format ``name``.

    Args:
        module: a float32 classifier.
        name: a key of ``OPTIONAL_FORMATS``.
        calibration: uint8 ``[N, S, S, 3]``, training images that show ``litert_int8`` the ranges.

    Raises:
        UserError: the converter refuses the network.
    """
    makers: dict[str, Callable[[], bytes]] = {
        "litert": lambda: _litert_converter(module).convert(),
        "litert_int8": lambda: _litert_int8(module, calibration),
        "onnx": lambda: _onnx(module),
    }
    try:
        with _quiet():
            return makers[name]()
    except Exception as error:  # converters raise whatever their parts raise
        cause = str(error).strip().splitlines()[0][:160]
        raise UserError(
            f"--format={name}: this network cannot be converted ({cause}); leave {name} out"
        ) from error


def _litert_converter(module: ServingModule) -> Any:
    spec = tf.TensorSpec([1, *module.image_shape], tf.float32, "pixels")
    graph = tf.function(module.serve_pixels, autograph=False).get_concrete_function(spec)
    # from a concrete function the variables are frozen; from a SavedModel the file would answer NaN
    return tf.lite.TFLiteConverter.from_concrete_functions([graph], module)


def _litert_int8(module: ServingModule, calibration: np.ndarray) -> bytes:
    images = calibration.astype(np.float32)
    # one black and one white pixel make the input's range 0–255, so that a pixel is its own code
    images[0, 0, 0], images[0, -1, -1] = 0.0, 255.0

    def samples() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[np.newaxis]]

    converter = _litert_converter(module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    return converter.convert()


def _onnx(module: ServingModule) -> bytes:
    import tf2onnx  # noqa: PLC0415  an optional package
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    spec = tf.TensorSpec([None, *module.image_shape], tf.float32, "pixels")
    graph = tf.function(module.serve_pixels, autograph=False).get_concrete_function(spec)
    # tf2onnx's own freezing would make inputs of captured constants, as keras.layers.Normalization has
    frozen = convert_variables_to_constants_v2(graph)
    (taken,), (given,) = frozen.inputs, frozen.outputs
    proto, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[taken.name],
        output_names=[given.name],
        tensors_to_rename={taken.name: "pixels", given.name: "probabilities"},
        opset=_ONNX_OPSET,
    )
    return proto.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress lines of the converters; their errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
