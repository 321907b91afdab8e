"""Whether a GPU computes what the CPU computes: random numbers, augmented pixels, losses, gradients."""

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

__all__ = ["losses", "pixels"]

_POLICY = Policy(rotate=180.0, shear=20.0, hue=20.0)
_MOST_LEVELS = 1.0  # difference of a pixel, in grey levels
# Relative differences of the loss and of the gradient of the last layer, by the number format.
_MOST_RELATIVE = {"float32": 1e-3, "mixed_bfloat16": 5e-2, "mixed_float16": 2e-2}


def pixels(image_size: int = 96, count: int = 64) -> dict[str, Any]:
    """The random numbers and the augmented pixels of the device beside those of the host.

    Returns:
        ``equal_draws``; ``most_levels`` and ``mean_levels``, differences in grey levels; ``ok``.
    """
    noise = np.random.default_rng(0).integers(0, 256, (count, image_size, image_size, 3), np.uint8)
    device = first_device()

    def augmented(where: str, whole_batch: bool) -> tuple[np.ndarray, np.ndarray]:
        augment = make_augmentation(_POLICY, 7, image_size, "fused", whole_batch=whole_batch)
        draw = tf.function(lambda *given: draw_uniforms(7, *given), jit_compile=whole_batch)
        with tf.device(where):
            epoch, records = tf.constant(3, tf.int64), tf.range(count, dtype=tf.int64)
            images = augment(tf.constant(noise), epoch, records)
            return images.numpy(), draw(epoch, records).numpy()

    (host, host_draws), (found, draws) = augmented("/cpu:0", False), augmented(device, True)
    gap = np.abs(host - found)
    equal = bool(np.array_equal(host_draws, draws))
    return {
        "equal_draws": equal,
        "most_levels": float(gap.max()),
        "mean_levels": float(gap.mean()),
        "ok": equal and float(gap.max()) < _MOST_LEVELS,
    }


def losses(model: str, image_size: int = 64, batch_size: int = 16) -> dict[str, Any]:
    """Loss and gradient of one batch in every number format, with and without XLA, beside the CPU's.

    Returns:
        For each case the relative differences ``loss`` and ``gradient``, and ``ok`` for all.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    draw = np.random.default_rng(1)
    shape = (batch_size, image_size, image_size, 3)
    images = draw.integers(0, 256, shape).astype(np.float32)
    labels = (np.arange(batch_size) % 12).astype(np.int32)

    def make(precision: str, where: str) -> keras.Model:
        keras.mixed_precision.set_global_policy(precision)
        with tf.device(where):
            return build_network(
                model=model,
                num_classes=12,
                image_size=image_size,
                weights="none",
                bn_momentum=0.9,
            )

    first = make("float32", "/cpu:0")
    weights = [np.asarray(variable.numpy()) for variable in first.variables]

    def measured(network: keras.Model, where: str, compiled: bool) -> tuple[float, np.ndarray]:
        for variable, value in zip(network.variables, weights, strict=True):
            variable.assign(value)
        last = network.trainable_variables[-2].value

        def run(x: tf.Tensor, y: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                loss = CrossEntropy()(y, network(x, training=True))
            return loss, tape.gradient(loss, last)

        with tf.device(where):
            loss, gradient = tf.function(run, jit_compile=compiled)(
                tf.constant(images), tf.constant(labels)
            )
        return float(loss), gradient.numpy().astype(np.float64)

    loss, gradient = measured(first, "/cpu:0", False)
    found: dict[str, Any] = {"ok": True}
    for precision, most in _MOST_RELATIVE.items():
        network = make(precision, first_device())
        for compiled in (True, False):
            name = f"{precision}{'' if compiled else '_without_xla'}"
            try:
                its_loss, its_gradient = measured(network, first_device(), compiled)
            except tf.errors.OpError as error:  # one case must not hide the others
                found |= {name: {"error": str(error)[-300:]}, "ok": False}
                continue
            gaps = {
                "loss": abs(its_loss - loss) / abs(loss),
                "gradient": float(
                    np.linalg.norm(its_gradient - gradient) / np.linalg.norm(gradient)
                ),
            }
            found[name] = gaps
            found["ok"] = found["ok"] and gaps["loss"] < most and gaps["gradient"] < 10 * most
    return found
