"""Compares random numbers, augmented pixels, losses and gradients of a GPU with those of the CPU."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.augment.policy import Policy, draw_uniforms
from seedtf.benchmark.gpu.speed import first_device
from seedtf.data.pipeline import make_augmentation
from seedtf.model.network import build_network
from seedtf.training.optim.losses import CrossEntropy

__all__ = ["compare_losses", "compare_pixels"]

_POLICY = Policy(rotate=180.0, shear=20.0, hue=20.0)
_MAX_LEVELS = 1.0
"""The limit of the difference of a pixel, in grey levels of 0–255."""
_MAX_RELATIVE = {"float32": 1e-3, "mixed_bfloat16": 5e-2, "mixed_float16": 2e-2}
"""The limit of the relative difference of the loss, by precision policy.

The limit of the gradient is ten times as high.
"""


def compare_pixels(image_size: int = 96, count: int = 64) -> dict[str, Any]:
    """Compares the random numbers and the augmented pixels of the GPU with those of the CPU.

    Returns:
        ``equal_draws``: whether the random numbers are equal. ``most_levels`` and ``mean_levels``: the
        largest and the mean difference of a pixel in grey levels. ``ok``: whether the random numbers
        are equal and the largest difference is below its limit.
    """
    noise = np.random.default_rng(0).integers(0, 256, (count, image_size, image_size, 3), np.uint8)
    device = first_device()

    def augment_on(device_name: str, whole_batch: bool) -> tuple[np.ndarray, np.ndarray]:
        augment = make_augmentation(_POLICY, 7, image_size, "fused", whole_batch=whole_batch)
        # As in training: XLA compiles ``draw_uniforms`` only if it also augments the whole batch.
        draw = tf.function(lambda *given: draw_uniforms(7, *given), jit_compile=whole_batch)
        with tf.device(device_name):
            epoch, records = tf.constant(3, tf.int64), tf.range(count, dtype=tf.int64)
            images = augment(tf.constant(noise), epoch, records)
            return images.numpy(), draw(epoch, records).numpy()

    cpu_pixels, cpu_draws = augment_on("/cpu:0", False)
    gpu_pixels, gpu_draws = augment_on(device, True)
    differences = np.abs(cpu_pixels - gpu_pixels)
    equal = bool(np.array_equal(cpu_draws, gpu_draws))
    return {
        "equal_draws": equal,
        "most_levels": float(differences.max()),
        "mean_levels": float(differences.mean()),
        "ok": equal and float(differences.max()) < _MAX_LEVELS,
    }


def compare_losses(model: str, image_size: int = 64, batch_size: int = 16) -> dict[str, Any]:
    """Compares the loss and a gradient of one batch on the GPU with those on the CPU in float32.

    The GPU computes them in six cases: in each of three precision policies, with and without XLA. The
    gradient is with respect to the weights of the last layer, without its bias.

    Returns:
        For each case, the relative differences of ``loss`` and ``gradient``, or an ``error``. ``ok``:
        whether all differences are below their limits and no case failed.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    rng = np.random.default_rng(1)
    shape = (batch_size, image_size, image_size, 3)
    images = rng.integers(0, 256, shape).astype(np.float32)
    labels = (np.arange(batch_size) % 12).astype(np.int32)

    def build(precision: str, device_name: str) -> keras.Model:
        keras.mixed_precision.set_global_policy(precision)
        with tf.device(device_name):
            return build_network(
                model=model,
                num_classes=12,
                image_size=image_size,
                weights="none",
                bn_momentum=0.9,
            )

    on_cpu = build("float32", "/cpu:0")
    weights = [np.asarray(variable.numpy()) for variable in on_cpu.variables]

    def loss_and_gradient(
        network: keras.Model, device_name: str, compiled: bool
    ) -> tuple[float, np.ndarray]:
        for variable, value in zip(network.variables, weights, strict=True):
            variable.assign(value)
        last_weights = network.trainable_variables[-2].value

        def run(x: tf.Tensor, y: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                loss = CrossEntropy()(y, network(x, training=True))
            return loss, tape.gradient(loss, last_weights)

        with tf.device(device_name):
            loss, gradient = tf.function(run, jit_compile=compiled)(
                tf.constant(images), tf.constant(labels)
            )
        return float(loss), gradient.numpy().astype(np.float64)

    cpu_loss, cpu_gradient = loss_and_gradient(on_cpu, "/cpu:0", False)
    result: dict[str, Any] = {"ok": True}
    for precision, allowed in _MAX_RELATIVE.items():
        network = build(precision, first_device())
        for compiled in (True, False):
            name = f"{precision}{'' if compiled else '_without_xla'}"
            try:
                loss, gradient = loss_and_gradient(network, first_device(), compiled)
            except tf.errors.OpError as error:  # continue with the next case
                result |= {name: {"error": str(error)[-300:]}, "ok": False}
                continue
            differences = {
                "loss": abs(loss - cpu_loss) / abs(cpu_loss),
                "gradient": float(
                    np.linalg.norm(gradient - cpu_gradient) / np.linalg.norm(cpu_gradient)
                ),
            }
            result[name] = differences
            is_ok = differences["loss"] < allowed and differences["gradient"] < 10 * allowed
            result["ok"] = result["ok"] and is_ok
    return result
