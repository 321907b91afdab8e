"""Measures the speed limits of a GPU, and the speed of a train step and of the input pipeline."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.augment.policy import Policy
from seedtf.benchmark.gpu.hlo import largest_module
from seedtf.benchmark.pipeline import make_batches, measure_rates, store_of_images
from seedtf.compat.keras import build_metrics, build_optimizer
from seedtf.compat.tensorflow import gpu_memory_limits
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import (
    device_chunks,
    device_dataset,
    make_augmentation,
    train_dataset,
)
from seedtf.model.network import build_network
from seedtf.training.batches import make_step_preprocessing, resident_images
from seedtf.training.dry_run.timing import median_step
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.trainer import Trainer

__all__ = ["first_device", "measure_card", "measure_pipeline", "measure_step", "training_flops"]

_NUM_CLASSES = 12
_MIN_IMAGES = 1024
_POLICY = Policy(rotate=180.0)
_PART_FOLDER = "SEEDTF_PART_FOLDER"


def first_device() -> str:
    """The first GPU. Without a GPU, it is the CPU, so that tests can run the parts of the benchmark."""
    return "/gpu:0" if tf.config.list_physical_devices("GPU") else "/cpu:0"


def measure_card(side: int = 8192, num_bytes: int = 1 << 30, times: int = 12) -> dict[str, Any]:
    """Measures the speed of the matrix products and of the memory of the GPU.

    Args:
        side: number of rows and of columns of the matrices that are multiplied.
        num_bytes: size of the array that is read and written to measure the memory.
        times: how often each measurement is repeated; the median counts.

    Returns:
        ``device``: the name of the GPU. ``versions``: of TensorFlow, Keras, NumPy, CUDA and cuDNN.
        ``memory_bytes``: the memory that TensorFlow may use; 0 without a GPU. ``bfloat16_flops``:
        floating-point operations per second. ``bytes_per_second``: bytes read plus bytes written.
    """
    product = tf.function(lambda a, b: a @ b, jit_compile=True)
    copy = tf.function(lambda values: values + tf.constant(1, tf.uint8), jit_compile=True)
    with tf.device(first_device()):
        matrix = tf.cast(tf.random.stateless_normal([side, side], [0, 0]), tf.bfloat16)
        values = tf.zeros([num_bytes], tf.uint8)
        product_time = median_step(lambda: product(matrix, matrix)[:1, :1], times)
        copy_time = median_step(lambda: copy(values)[:1], times)
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    build = tf.sysconfig.get_build_info()
    versions |= {key: str(build[key]) for key in ("cuda_version", "cudnn_version") if key in build}
    return {
        "device": ", ".join(str(gpu.get("device_name", "a GPU")) for gpu in details) or "CPU",
        "versions": versions,
        "memory_bytes": min(gpu_memory_limits(), default=0),
        # An element of the product takes ``side`` multiplications and as many additions.
        "bfloat16_flops": 2 * side**3 / product_time,
        "bytes_per_second": 2 * num_bytes / copy_time,
    }


def measure_step(
    *,
    model: str,
    image_size: int,
    batch_size: int = 128,
    precision: str = "mixed_bfloat16",
    xla: bool = True,
    placement: str = "device",
    steps_per_execution: int = 10,
    steps: int = 60,
) -> dict[str, Any]:
    """Times a train step with its augmentation, as ``seedtf train`` runs it, on images of noise.

    Args:
        model: a name of ``available_models()``.
        image_size: side of the images in pixels.
        batch_size: images in a step.
        precision: a Keras dtype policy.
        xla: whether XLA compiles the step.
        placement: where images are augmented: on the ``device`` in the step, or on the ``host``.
        steps_per_execution: steps in a call. Without XLA, or if the host augments, a call is one step.
        steps: number of steps that are timed, in at least three calls.

    Returns:
        ``images_per_second``. ``step_seconds``: the median time of a step. ``first_step_seconds``: the
        time of the first call, which compiles. ``flops``: floating-point operations of a step.
        ``peak_bytes``: the most GPU memory in use; 0 without a GPU. ``kernels`` and ``bytes``: kernel
        launches and moved bytes of a step; only if XLA compiled the step for a GPU and dumped it.
    """
    keras.mixed_precision.set_global_policy(precision)
    on_device = placement == "device"
    per_call = steps_per_execution if xla and on_device else 1
    shape = (max(_MIN_IMAGES, batch_size), image_size, image_size, 3)
    store = store_of_images(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    network = build_network(
        model=model,
        num_classes=_NUM_CLASSES,
        image_size=image_size,
        weights="none",
        bn_momentum=0.9,
    )
    trainer = Trainer(network)
    trainer.steps_per_call = per_call
    augmentation = make_augmentation(_POLICY, 0, image_size, "fused", whole_batch=on_device)
    records, order = np.arange(shape[0]), BatchIndices(shape[0], batch_size)
    if on_device:
        trainer.prepare = make_step_preprocessing(augmentation, images=resident_images(store))
        if per_call > 1:
            dataset = device_chunks(store, records, order, length=per_call)
        else:
            dataset = device_dataset(store, records, order, with_images=False)
    else:
        dataset = train_dataset(store, records, order, augmentation)
    optimizer = make_optimizer("adamw", 1e-3, averaged_from=0, steps_per_epoch=100)
    trainer.compile_for(optimizer, jit_compile=xla)
    build_optimizer(optimizer, trainer.trainable_variables)
    build_metrics(trainer)
    trainer.make_train_function()
    run, iterator = trainer.train_function, iter(dataset)
    assert run is not None
    began = time.perf_counter()
    _wait_for(run(iterator))
    first = time.perf_counter() - began
    for _ in range(2):
        _wait_for(run(iterator))
    seconds = median_step(lambda: run(iterator), max(3, steps // per_call)) / per_call
    return {
        "images_per_second": batch_size / seconds,
        "step_seconds": seconds,
        "first_step_seconds": first,
        "flops": batch_size * training_flops(network),
        "peak_bytes": _peak_bytes(),
        **(_compiled_costs() if xla else {}),
    }


def measure_pipeline(
    image_size: int, batch_size: int = 128, seconds: float = 3.0
) -> dict[str, Any]:
    """Measures the images per second of the input pipeline, and of the augmentation on the device.

    Returns:
        Images per second: ``host`` of the pipeline that augments on all cores of the host,
        ``host_uint8`` of the pipeline that yields uint8 images without augmentation, and ``device`` of
        the augmentation alone on the device.
    """
    side = image_size + 32
    noise = np.random.default_rng(0).integers(0, 256, (512, side, side, 3), np.uint8)
    store = store_of_images(noise)
    datasets = {
        "host_uint8": make_batches(store, image_size, batch_size, _POLICY, "device"),
        "host": make_batches(store, image_size, batch_size, _POLICY, "fused"),
    }
    rates = measure_rates(datasets, batch_size, seconds=seconds, rounds=2)
    result: dict[str, Any] = {rate.way: rate.images_per_second for rate in rates}
    augment = make_augmentation(_POLICY, 0, image_size, "fused", whole_batch=True)
    images = resident_images(store)
    with tf.device(first_device()):
        epoch, records = tf.constant(0, tf.int64), tf.range(batch_size, dtype=tf.int64)
        augment_batch = tf.function(
            lambda: augment(images, epoch, records, records), jit_compile=True
        )
        _wait_for(augment_batch()[:1, :1, :1])
        result["device"] = batch_size / median_step(lambda: augment_batch()[:1, :1, :1], 30)
    return result


def training_flops(network: keras.Model) -> int:
    """The floating-point operations of convolutions and dense layers to train on one image.

    A multiplication with an addition counts as two operations. The backward pass counts as twice the
    forward pass. Depthwise and separable convolutions are not counted.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> network = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
        >>> training_flops(network) == 3 * 2 * (8 * 8 * 4) * (3 * 3 * 3)
        True
    """
    total = 0
    for layer in network.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None or not isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            continue
        sides = layer.output.shape[1:-1]
        total += 2 * int(np.prod(kernel.shape)) * int(np.prod(sides, dtype=np.int64))
    return 3 * total


def _compiled_costs() -> dict[str, int]:
    """``kernels`` and ``bytes`` of a step; empty if XLA dumped no module for a GPU."""
    folder = os.environ.get(_PART_FOLDER)
    module = largest_module(Path(folder)) if folder else None
    return {} if module is None else {"kernels": module.kernels, "bytes": module.bytes}


def _peak_bytes() -> int:
    if not tf.config.list_physical_devices("GPU"):
        return 0
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def _wait_for(result: Any) -> None:
    """Waits until the device has computed ``result``, by reading it."""
    tf.nest.map_structure(lambda value: value.numpy(), result)
