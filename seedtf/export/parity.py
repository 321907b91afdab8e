"""A script, not a part of the package: runs an exported model alone and compares its answers.

    python -I parity.py RUNTIME MODEL REQUEST.npz

Neither seedtf nor Keras can be imported in this process; RUNTIME (``tensorflow``, ``litert``
or ``onnx``) names the one library that runs MODEL. REQUEST.npz holds ``probabilities`` float32
``[N, K]`` expected, and either ``class_names`` ``[K]`` and ``files`` ``[N]`` (paths, which are read
here and sent as bytes) or ``pixels`` uint8 ``[N, S, S, 3]``. The last line of stdout is JSON:
``runtime``, ``images``, ``top1_agreement`` (share), ``max_abs_difference`` (of probabilities; null
where not finite), ``refused`` (files whose status is not ok), ``seconds``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import Any

import numpy as np

_BATCH_SIZE = 32


def run_tensorflow(model: str, request: Any) -> tuple[np.ndarray, list[str], str]:
    """Answers of the signature ``serving_default`` for whole files."""
    import tensorflow as tf  # noqa: PLC0415

    signature = tf.saved_model.load(model).signatures["serving_default"]
    names, files = request["class_names"], request["files"]
    position = {str(name).encode(): index for index, name in enumerate(names)}
    answers, refused = [], []
    for start in range(0, len(files), _BATCH_SIZE):
        paths = [str(path) for path in files[start : start + _BATCH_SIZE]]
        contents = tf.stack([tf.io.read_file(path) for path in paths])
        answer = {name: value.numpy() for name, value in signature(image_bytes=contents).items()}
        status = [value.decode() for value in answer["status"]]
        refused += [f"{p}: {s}" for p, s in zip(paths, status, strict=True) if s != "ok"]
        ranked = np.array([[position.get(name, -1) for name in row] for row in answer["classes"]])
        # the names that a client reads must rank as the numbers do
        named_right = np.take_along_axis(answer["probabilities"], ranked, 1) == answer["scores"]
        probabilities = np.where(named_right.all(1, keepdims=True), answer["probabilities"], np.nan)
        answers.append(probabilities)
    return np.concatenate(answers), refused, f"tensorflow {tf.__version__}"


def run_litert(model: str, request: Any) -> tuple[np.ndarray, list[str], str]:
    """Answers of a LiteRT file, one image at a time."""
    import ai_edge_litert  # noqa: PLC0415
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    interpreter = Interpreter(model)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for image in request["pixels"]:
        interpreter.set_tensor(taken["index"], image[np.newaxis].astype(taken["dtype"]))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(given["index"])[0])
    return np.array(answers), [], f"ai-edge-litert {ai_edge_litert.__version__}"


def run_onnx(model: str, request: Any) -> tuple[np.ndarray, list[str], str]:
    """Answers of an ONNX file."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name, pixels = session.get_inputs()[0].name, request["pixels"]
    answers = [
        session.run(None, {name: pixels[start : start + _BATCH_SIZE].astype(np.float32)})[0]
        for start in range(0, len(pixels), _BATCH_SIZE)
    ]
    return np.concatenate(answers), [], f"onnxruntime {onnxruntime.__version__}"


def compare(found: np.ndarray, expected: np.ndarray) -> tuple[float, float | None]:
    """Share of rows with the same best class, and the largest difference, None where not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return 0.0, None
    agreement = float(np.mean(found.argmax(1) == expected.argmax(1)))
    return agreement, float(np.abs(found - expected).max())


def main(runtime: str, model: str, request_path: str) -> None:
    """Runs ``model`` and prints the comparison."""
    for name in ("seedtf", "keras"):
        sys.modules[name] = None  # type: ignore[assignment]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run = {"tensorflow": run_tensorflow, "litert": run_litert, "onnx": run_onnx}[runtime]
    with np.load(request_path, allow_pickle=False) as request:
        expected, start = request["probabilities"], time.perf_counter()
        found, refused, version = run(model, dict(request))
    agreement, difference = compare(found, expected)
    answer = {
        "runtime": version,
        "images": len(expected),
        "top1_agreement": agreement,
        "max_abs_difference": difference,
        "refused": refused,
        "seconds": round(time.perf_counter() - start, 3),
    }
    assert difference is None or math.isfinite(difference)
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
