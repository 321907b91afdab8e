"""Writes warm-up requests, which TensorFlow Serving runs before the first request of a client.

The file is a TFRecord of ``tensorflow.serving.PredictionLog`` messages. This module encodes them (as
Protocol Buffers, wire type 2), so that tensorflow-serving-api is not needed. The field numbers are:

    PredictionLog.predict_log = 6    PredictLog.request = 1    ModelSpec.name = 1, signature_name = 3
    PredictRequest.model_spec = 1, inputs = 2 (map: key = 1, value = 2, a TensorProto)
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

__all__ = ["WARMUP_FILE", "example_jpeg", "write_warmup"]

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_BATCH_SIZES = (1, 8)


def write_warmup(saved_model: Path, size: int, max_pixels: int) -> None:
    """Writes one or two requests for each signature of a SavedModel.

    The images are synthetic, because an export must not disclose training images.

    Args:
        saved_model: folder of the SavedModel.
        size: side of the model's input in pixels.
        max_pixels: the largest width × height that the SavedModel decodes.
    """
    path = saved_model / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    # The JPEG is larger than the model's input if ``max_pixels`` allows it, so that resizing is warmed
    # up as well.
    encoded = example_jpeg(min(2 * size, math.isqrt(max_pixels)))
    pixels = np.zeros([1, size, size, 3], np.uint8)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch_size in _BATCH_SIZES:
            files = np.array([encoded] * batch_size, object)
            writer.write(_prediction_log("serving_default", "image_bytes", files))
        writer.write(_prediction_log("image", "image", pixels))
        writer.write(_prediction_log("pixels", "pixels", pixels.astype(np.float32)))


def example_jpeg(side: int, seed: int = 0) -> bytes:
    """A synthetic square JPEG that takes about as long to decode as a photo; ``side`` is in pixels."""
    ramp = np.linspace(0.0, 4.0 * np.pi, side) + seed
    rows, columns = np.meshgrid(ramp, ramp, indexing="ij")
    waves = np.stack([np.sin(rows), np.sin(columns), np.sin(rows + columns)], axis=-1)
    texture = np.random.default_rng(seed).normal(0.0, 8.0, [side, side, 1])
    pixels = np.clip(127.5 + 90.0 * waves + texture, 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(pixels, quality=90).numpy()


def _prediction_log(signature: str, name: str, value: np.ndarray) -> bytes:
    model_spec = _field(1, b"seedtf") + _field(3, signature.encode())
    tensor = tf.make_tensor_proto(value).SerializeToString()
    inputs = _field(1, name.encode()) + _field(2, tensor)
    request = _field(1, model_spec) + _field(2, inputs)
    return _field(6, _field(1, request))


def _field(number: int, payload: bytes) -> bytes:
    """Encodes a field of wire type 2: its key, its length and its bytes."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    """Encodes an integer in groups of 7 bits, the lowest first; bit 8 is set if a group follows."""
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
