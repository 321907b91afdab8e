"""The runtimes that are compared: each maps the contents of JPEG files to probabilities.

A process loads one runtime and imports only what this runtime needs. ``worker_loop`` measures it on
request.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import itertools
import json
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NUM_CLASSES = 12

Predict = Callable[[list[bytes]], Any]
"""Maps the contents of B files to probabilities, float32 ``[B, NUM_CLASSES]``."""


@dataclass(frozen=True)
class Network:
    """A network: its title, the side of its input in pixels, and its name in timm."""

    title: str
    image_size: int
    timm_name: str


NETWORKS = {
    "efficientnet_lite0": Network("EfficientNet-Lite0", 128, "tf_efficientnet_lite0"),
    "resnet50": Network("ResNet-50", 224, "resnet50"),
}


@dataclass(frozen=True)
class Setup:
    """What a runtime loads. ``folder`` has the files that ``exports.py`` wrote."""

    folder: Path
    network: Network
    threads: int


def seedtf_saved_model(setup: Setup) -> Predict:
    """The SavedModel that seedtf exports, which also checks every file."""
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from seedtf.runs.saved_model import ServingSignature

    signature = ServingSignature(setup.folder / "saved_model")
    return lambda files: signature(tf.constant(files))["probabilities"].numpy()


def _bare_function(setup: Setup) -> Any:
    """A ``tf.function`` that decodes JPEG files and applies the network, without any checks."""
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from seedtf.model.network import load_model

    size = setup.network.image_size
    model = load_model(setup.folder / "model.keras")

    def decode(file: Any) -> Any:
        image = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.image.resize(image, [size, size], antialias=True)

    def predict(files: Any) -> Any:
        shape = tf.TensorSpec([size, size, 3], tf.float32)
        return model(tf.map_fn(decode, files, fn_output_signature=shape), training=False)

    return tf.function(predict, input_signature=[tf.TensorSpec([None], tf.string)])


def tensorflow_function(setup: Setup) -> Predict:
    """The bare function, with the variables of the Keras model."""
    predict = _bare_function(setup)
    import tensorflow as tf

    return lambda files: predict(tf.constant(files)).numpy()


def tensorflow_frozen(setup: Setup) -> Predict:
    """The bare function, with constants in place of the variables."""
    predict = _bare_function(setup)
    import tensorflow as tf

    from seedtf.compat.tensorflow import freeze_variables

    frozen = freeze_variables(predict.get_concrete_function())
    return lambda files: frozen(tf.constant(files))[0].numpy()


def _pillow_reader(setup: Setup) -> Callable[[list[bytes]], Any]:
    """Returns a function that decodes and resizes files in threads, to float32 ``[B, S, S, 3]``."""
    import numpy as np
    from PIL import Image

    sides = (setup.network.image_size, setup.network.image_size)
    pool = ThreadPoolExecutor(setup.threads)

    def decode(file: bytes) -> Any:
        with Image.open(io.BytesIO(file)) as image:
            return np.asarray(image.convert("RGB").resize(sides, Image.Resampling.BILINEAR))

    return lambda files: np.stack(list(pool.map(decode, files))).astype(np.float32)


def onnx_runtime(setup: Setup) -> Predict:
    """The ONNX file in ONNX Runtime, on images that Pillow decodes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setup.threads, 1
    session = onnxruntime.InferenceSession(
        str(setup.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    read = _pillow_reader(setup)
    return lambda files: session.run(None, {"pixels": read(files)})[0]


def openvino_onnx(setup: Setup) -> Predict:
    """The ONNX file in OpenVINO, compiled for each batch size, on images that Pillow decodes."""
    import openvino

    core, size = openvino.Core(), setup.network.image_size
    options = {
        "INFERENCE_NUM_THREADS": setup.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # OpenVINO's default is bfloat16 where that is faster
    }

    @functools.cache
    def compile_for(batch_size: int) -> Any:
        model = core.read_model(setup.folder / "model.onnx")
        model.reshape([batch_size, size, size, 3])
        return core.compile_model(model, "CPU", options)

    @functools.cache
    def request_of(batch_size: int, thread: int) -> Any:
        # ``thread`` is only a key of the cache, so that each thread has requests of its own.
        return compile_for(batch_size).create_infer_request()

    read = _pillow_reader(setup)

    def predict(files: list[bytes]) -> Any:
        request = request_of(len(files), threading.get_ident())
        return request.infer({0: read(files)})[0]

    return predict


def torchvision_timm(setup: Setup) -> Predict:
    """timm's network, in channels last, on images that torchvision decodes and resizes."""
    import timm
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    warnings.simplefilter("ignore")  # torchvision warns that another package should decode
    torch.set_num_threads(setup.threads)
    model = timm.create_model(setup.network.timm_name, num_classes=NUM_CLASSES).eval()
    model = model.to(memory_format=torch.channels_last)
    pool, size = ThreadPoolExecutor(setup.threads), setup.network.image_size

    def decode(file: bytes) -> Any:
        data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        return functional.resize(decode_jpeg(data, ImageReadMode.RGB), [size, size], antialias=True)

    @torch.inference_mode()
    def predict(files: list[bytes]) -> Any:
        images = torch.stack(list(pool.map(decode, files))).float().sub_(127).div_(128)
        return model(images.contiguous(memory_format=torch.channels_last)).softmax(1).numpy()

    return predict


@dataclass(frozen=True)
class Runtime:
    """A runtime that is measured.

    Attributes:
        load: returns the function that predicts.
        title: the name of the runtime in the table.
        packages: the packages whose versions are reported, separated by spaces.
        same_weights: whether the runtime has the weights of ``model.keras``.
        is_torch: whether it runs in the environment of ``--python``.
    """

    load: Callable[[Setup], Predict]
    title: str
    packages: str
    same_weights: bool = True
    is_torch: bool = False


RUNTIMES = {
    "seedtf": Runtime(seedtf_saved_model, "seedtf's SavedModel", "tensorflow keras"),
    "tensorflow": Runtime(tensorflow_function, "bare tf.function", "tensorflow keras"),
    "frozen": Runtime(tensorflow_frozen, "… with constants for variables", "tensorflow keras"),
    "onnxruntime": Runtime(onnx_runtime, "seedtf's ONNX, ONNX Runtime", "onnxruntime pillow"),
    "openvino": Runtime(openvino_onnx, "seedtf's ONNX, OpenVINO", "openvino pillow"),
    "timm": Runtime(torchvision_timm, "torchvision and timm", "torch torchvision timm",
                    same_weights=False, is_torch=True),
}  # fmt: skip


def read_jpegs(folder: Path) -> dict[str, list[bytes]]:
    """The contents of the JPEG files of each kind, by the name of the kind."""
    kinds = sorted((folder / "jpeg").iterdir())
    return {kind.name: [path.read_bytes() for path in sorted(kind.iterdir())] for kind in kinds}


def worker_loop(name: str, setup: Setup, batch_sizes: list[int]) -> None:
    """Answers each line of stdin, a JSON object, with a JSON object on stdout.

    An object with ``kind``, ``batch_size``, ``callers`` and ``seconds`` asks for a measurement. An
    empty object asks for the versions of the packages and the probabilities of ``check.jpg``. Before
    the first answer, the runtime is warmed up with a request of each of ``batch_sizes``, and the line
    ``ready`` is printed.
    """
    from seedtf.benchmark.serving import measure

    runtime, kinds = RUNTIMES[name], read_jpegs(setup.folder)
    predict, check = runtime.load(setup), [(setup.folder / "check.jpg").read_bytes()]

    def make_request(kind: str, batch_size: int) -> list[bytes]:
        return list(itertools.islice(itertools.cycle(kinds[kind]), batch_size))

    def answer(kind: str = "", batch_size: int = 0, callers: int = 1, seconds: float = 1.0) -> Any:
        if not kind:
            versions = {name: importlib.metadata.version(name) for name in runtime.packages.split()}
            return {"versions": versions, "probabilities": predict(check)[0].tolist()}
        files = make_request(kind, batch_size)
        return asdict(measure(lambda: predict(files), batch_size, callers, seconds))

    for batch_size in batch_sizes:
        predict(make_request(next(iter(kinds)), batch_size))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
