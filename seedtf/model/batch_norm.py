"""Batch normalization in one fused kernel, in a layer that can replace the layer of Keras."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import (
    KERAS_2,
    all_layers,
    replace_layer_class,
    set_weights_group_name,
)

__all__ = [
    "FusedBatchNormalization",
    "finalize_layers",
    "fuse_batch_norm",
    "moving_statistics",
]

# tf.compat.v1.nn.fused_batch_norm raises a smaller epsilon to this value.
_MIN_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="seedtf", name="FusedBatchNormalization")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """``keras.layers.BatchNormalization`` on TensorFlow's FusedBatchNormV3 kernel.

    Keras 3 casts a 16-bit input to float32 and normalizes it in many small operations. The kernel
    accepts float16, bfloat16 and float32 input, and keeps only the statistics in float32. The layer has
    the same arguments and variables as the Keras layer, with the same names in the same order. So each
    of the two layers can load the weights of the other.

    The kernel is used for 4-D ``[B, H, W, C]`` input that is normalized over its last axis. The Keras
    layer handles everything else: another axis or rank, float64, a mask, ``renorm``, an epsilon below
    1.001e-5, and training with ``synchronized``, where the statistics are computed over all replicas of
    a distribution strategy. The layer of Keras 2.15 uses the kernel itself and handles all input.
    ``trainable=False`` means inference mode, as in Keras.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes ``inputs`` and, in training, updates the moving statistics.

        Args:
            inputs: ``[B, H, W, C]`` in float16, bfloat16 or float32 for the fused kernel.
            training: if true and the layer is trainable, the statistics of the batch are used,
                otherwise the moving statistics.
            mask: passed to the Keras layer.

        Returns:
            The normalized tensor of the shape of ``inputs``, in the compute dtype of the layer.
        """
        in_training = bool(training) and self.trainable
        over_replicas = in_training and getattr(self, "synchronized", False)
        if mask is not None or over_replicas or not self._is_fusable(inputs):
            return super().call(inputs, training=training, mask=mask)
        if in_training:
            outputs, mean, variance = self._normalize(inputs, None, None)
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance * _bessel_ratio(inputs))
        else:
            outputs, _, _ = self._normalize(inputs, self.moving_mean, self.moving_variance)
        return tf.cast(outputs, self.compute_dtype)

    def _is_fusable(self, inputs: Any) -> bool:
        axis = self.axis if isinstance(self.axis, int) else tuple(self.axis)
        return (
            # The layer of Keras 2.15 uses the kernel itself. That layer does not undo the Bessel
            # correction, so with Keras 2.15 this layer must not undo it either.
            not KERAS_2
            and len(inputs.shape) == 4
            and axis in (-1, 3, (-1,), (3,))
            and inputs.dtype in (tf.float16, tf.bfloat16, tf.float32)
            and self.epsilon >= _MIN_EPSILON
            and not getattr(self, "renorm", False)
        )

    def _normalize(self, inputs: tf.Tensor, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
        """Returns outputs, batch mean and Bessel-corrected batch variance.

        If ``mean`` and ``variance`` are None, the statistics of the batch are used.
        """
        channels = inputs.shape[-1]
        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=_float32(self.gamma) if self.scale else tf.ones([channels]),
            offset=_float32(self.beta) if self.center else tf.zeros([channels]),
            mean=None if mean is None else _float32(mean),
            variance=None if variance is None else _float32(variance),
            epsilon=self.epsilon,
            is_training=mean is None,
        )

    def _update(self, variable: Any, value: tf.Tensor) -> None:
        updated = _float32(variable) * self.momentum + value * (1.0 - self.momentum)
        variable.assign(tf.cast(updated, variable.dtype))


# A weights file names layers after their class. There FusedBatchNormalization has the name of the Keras
# layer, so that each of the two layers can load weights files of the other.
set_weights_group_name(FusedBatchNormalization, "BatchNormalization")


def fuse_batch_norm(
    model: keras.Model, momentum: float | None = None, *, synchronized: bool = False
) -> None:
    """Turns all BatchNormalization layers of a functional ``model`` into fused ones, in place.

    The layers keep their names, order and variables, and the model keeps its graph of layers, so
    nothing is built a second time. Layers inside other layers are found too.

    Args:
        model: a functional model that was built but not called yet.
        momentum: momentum of the moving statistics, in [0, 1); None keeps the value of each layer.
        synchronized: whether batch statistics are computed over all replicas of a distribution
            strategy.
    """
    for layer in all_layers(model):
        if type(layer) not in (keras.layers.BatchNormalization, FusedBatchNormalization):
            continue
        replace_layer_class(layer, FusedBatchNormalization)
        if momentum is not None:
            layer.momentum = momentum
        if synchronized:
            layer.synchronized = True
            layer.fused = False  # only Keras 2.15 reads this attribute


def finalize_layers(model: keras.Model) -> None:
    """Makes layers recompute the tensors that they derive from their weights.

    Call this function after setting weights. ``keras.layers.Normalization``, which EfficientNet
    contains, derives two tensors from its weights when the layer is built.
    """
    for layer in all_layers(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def moving_statistics(model: keras.Model) -> list[Any]:
    """The moving means and variances that can differ between replicas after a training step.

    Each replica updates its moving statistics from its own part of the batch. Synchronized layers are
    left out, because they use all images of a batch. Frozen layers are left out, because they update
    nothing.
    """
    statistics = []
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            synchronized = getattr(layer, "synchronized", False)
            statistics += [] if synchronized else [layer.moving_mean, layer.moving_variance]
    return statistics


def _float32(value: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value), tf.float32)


def _bessel_ratio(inputs: tf.Tensor) -> tf.Tensor:
    """Returns (n - 1) / n for n values per channel, which undoes the kernel's Bessel correction."""
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    return (count - 1.0) / count
