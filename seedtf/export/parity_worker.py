"""A script, started by ``parity.py``, that runs an exported model and compares its predictions.

    python -I parity_worker.py RUNTIME MODEL REQUEST.npz

This process can import neither seedtf nor Keras. RUNTIME (``tensorflow``, ``litert`` or ``onnx``) is
the only library that runs MODEL. REQUEST.npz contains

* ``probabilities``: the expected probabilities, float32 ``[N, K]``
* for ``tensorflow``: ``class_names``, string ``[K]``, and ``files``, string ``[N]``, the image paths
* for ``litert`` and ``onnx``: ``pixels``, uint8 ``[N, S, S, 3]``

The last line of stdout is a JSON object, which ``evaluate`` describes.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
from typing import Any

import numpy as np

_BATCH_SIZE = 32


def run_tensorflow(model: str, request: Any) -> tuple[np.ndarray, list[str], str]:
    """Predicts whole files with the signature ``serving_default`` of a SavedModel.

    If the outputs ``classes`` and ``scores`` of an image do not match its ``probabilities``, a client
    would read a wrong class name. So the comparison must fail: the row of such an image is set to NaN.

    Returns:
        The probabilities, float32 ``[N, K]``; the paths of the files that the model refused, each with
        its status; and the name and version of the runtime.
    """
    import tensorflow as tf  # noqa: PLC0415

    signature = tf.saved_model.load(model).signatures["serving_default"]
    names, files = request["class_names"], request["files"]
    column_of = {str(name).encode(): index for index, name in enumerate(names)}
    batches, refused = [], []
    for start in range(0, len(files), _BATCH_SIZE):
        paths = [str(path) for path in files[start : start + _BATCH_SIZE]]
        contents = tf.stack([tf.io.read_file(path) for path in paths])
        outputs = {name: value.numpy() for name, value in signature(image_bytes=contents).items()}
        statuses = [value.decode() for value in outputs["status"]]
        refused += [
            f"{path}: {status}"
            for path, status in zip(paths, statuses, strict=True)
            if status != "ok"
        ]
        columns = np.array(
            [[column_of.get(name, -1) for name in row] for row in outputs["classes"]]
        )
        probabilities = outputs["probabilities"]
        is_equal = np.take_along_axis(probabilities, columns, 1) == outputs["scores"]
        batches.append(np.where(is_equal.all(1, keepdims=True), probabilities, np.nan))
    return np.concatenate(batches), refused, f"tensorflow {tf.__version__}"


def run_litert(model: str, request: Any) -> tuple[np.ndarray, list[str], str]:
    """Predicts with a LiteRT file, one image at a time; see ``run_tensorflow`` for the result."""
    import ai_edge_litert  # noqa: PLC0415
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    interpreter = Interpreter(model)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for image in request["pixels"]:
        interpreter.set_tensor(inputs["index"], image[np.newaxis].astype(inputs["dtype"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(outputs["index"])[0])
    return np.array(rows), [], f"ai-edge-litert {ai_edge_litert.__version__}"


def run_onnx(model: str, request: Any) -> tuple[np.ndarray, list[str], str]:
    """Predicts with an ONNX file, in batches; see ``run_tensorflow`` for the result."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name, pixels = session.get_inputs()[0].name, request["pixels"]
    batches = [
        session.run(None, {name: pixels[start : start + _BATCH_SIZE].astype(np.float32)})[0]
        for start in range(0, len(pixels), _BATCH_SIZE)
    ]
    return np.concatenate(batches), [], f"onnxruntime {onnxruntime.__version__}"


def compare(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float | None]:
    """Compares the probabilities of two models for the same images, float ``[N, K]``.

    Returns:
        The fraction of images with the same most probable class, 0 to 1, and the largest absolute
        difference of a probability. ``(0.0, None)`` if the shapes differ, or if a value of ``actual``
        is not finite.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return 0.0, None
    agreement = float(np.mean(actual.argmax(1) == expected.argmax(1)))
    return agreement, float(np.abs(actual - expected).max())


def evaluate(runtime: str, model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Runs ``model`` on the images of ``request``, and compares its predictions.

    Returns:
        The attributes of ``parity.Parity`` except ``format``, as JSON values.
    """
    run = {"tensorflow": run_tensorflow, "litert": run_litert, "onnx": run_onnx}[runtime]
    expected, start = request["probabilities"], time.perf_counter()
    actual, refused, version = run(model, request)
    agreement, difference = compare(actual, expected)
    assert difference is None or math.isfinite(difference)
    return {
        "runtime": version,
        "images": len(expected),
        "top1_agreement": agreement,
        "max_abs_difference": difference,
        "refused": refused,
        "seconds": round(time.perf_counter() - start, 3),
    }


def main(runtime: str, model: str, request_path: str) -> None:
    """Prevents the import of seedtf and Keras, then writes the comparison to stdout."""
    for name in ("seedtf", "keras"):
        sys.modules[name] = None  # type: ignore[assignment]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Garbage collection would take time and free almost nothing, because all large objects stay in use.
    gc.disable()
    with np.load(request_path, allow_pickle=False) as request:
        result = evaluate(runtime, model, dict(request))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # A regular exit would take time to free every object of TensorFlow.
