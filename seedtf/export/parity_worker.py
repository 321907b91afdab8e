"""A script, started by ``parity.py``, that runs an exported model and compares its predictions.

    python -I parity_worker.py RUNTIME MODEL REQUEST.npz

This process can import neither seedtf nor Keras. RUNTIME (``tensorflow``, ``litert`` or ``onnx``) is
the only library that it uses to run MODEL. REQUEST.npz contains the expected ``probabilities``, float32
``[N, K]``, and either ``class_names`` ``[K]`` and ``files`` ``[N]`` (paths of images) or ``pixels``,
uint8 ``[N, S, S, 3]``. The last line of stdout is JSON: ``runtime``, ``images``, ``top1_agreement``
(fraction), ``max_abs_difference`` (of probabilities; null if one is not finite or the shapes differ),
``refused`` (files whose status is not ok), ``seconds``.
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
    """Predicts whole files with the signature ``serving_default``.

    If ``classes`` and ``scores`` of an image do not match its ``probabilities``, a client would read a
    wrong class name. The row of such an image becomes NaN, so that the comparison fails.

    Returns:
        float32 ``[N, K]``, the refused files with their status, and the runtime's name and version.
    """
    import tensorflow as tf  # noqa: PLC0415

    signature = tf.saved_model.load(model).signatures["serving_default"]
    names, files = request["class_names"], request["files"]
    column = {str(name).encode(): index for index, name in enumerate(names)}
    batches, refused = [], []
    for start in range(0, len(files), _BATCH_SIZE):
        paths = [str(path) for path in files[start : start + _BATCH_SIZE]]
        contents = tf.stack([tf.io.read_file(path) for path in paths])
        outputs = {name: value.numpy() for name, value in signature(image_bytes=contents).items()}
        status = [value.decode() for value in outputs["status"]]
        refused += [f"{p}: {s}" for p, s in zip(paths, status, strict=True) if s != "ok"]
        columns = np.array([[column.get(name, -1) for name in row] for row in outputs["classes"]])
        probabilities = outputs["probabilities"]
        by_name = np.take_along_axis(probabilities, columns, 1) == outputs["scores"]
        batches.append(np.where(by_name.all(1, keepdims=True), probabilities, np.nan))
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
    """Top-1 agreement in 0–1, and the largest absolute difference of two arrays ``[N, K]``.

    Returns:
        ``(0.0, None)`` if the shapes differ or an actual value is not finite.
    """
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return 0.0, None
    agreement = float(np.mean(actual.argmax(1) == expected.argmax(1)))
    return agreement, float(np.abs(actual - expected).max())


def evaluate(runtime: str, model: str, request: dict[str, Any]) -> dict[str, Any]:
    """Runs ``model`` on the images of ``request`` and returns the comparison, as JSON values."""
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
    # The collector would only search the objects of the libraries and of the model, which stay in use.
    gc.disable()
    with np.load(request_path, allow_pickle=False) as request:
        result = evaluate(runtime, model, dict(request))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # A regular exit would free every object of TensorFlow first.
