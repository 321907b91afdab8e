"""Batch normalisation in one fused kernel, interchangeable with the Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import KERAS_2, replace_layer_class, set_weights_group_name

__all__ = [
    "FusedBatchNormalization",
    "finalize_layers",
    "fuse_batch_norm",
    "momentum_for",
    "moving_statistics",
]

# The least epsilon that the kernel takes unchanged (tf.compat.v1.nn.fused_batch_norm raises others)
_MIN_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="seedtf", name="FusedBatchNormalization")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """``keras.layers.BatchNormalization`` on TensorFlow's FusedBatchNormV3 kernel.

    Keras 3 casts a 16-bit input to float32 and normalises in many small operations; the kernel
    takes float16, bfloat16 or float32 and keeps only the statistics in float32. Arguments,
    variables, their names and order are the Keras layer's, so weights pass both ways.

    The kernel serves 4-D ``[B, H, W, C]`` input normalised over its last axis. Any other input
    (another axis or rank, float64, a mask, ``renorm``, an epsilon below 1.001e-5) takes the way of
    the Keras layer, and so does training with ``synchronized``, whose statistics span the replicas of
    a distribution strategy. ``trainable=False`` means inference mode, as in Keras.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises ``inputs`` and, in training, moves the moving statistics.

        Args:
            inputs: ``[B, H, W, C]``, float16, bfloat16 or float32 for the fused way.
            training: batch statistics when true (and the layer is trainable), else moving ones.
            mask: passed on to the Keras layer.

        Returns:
            The normalised tensor, shape of ``inputs``, in the layer's compute dtype.
        """
        in_training = bool(training) and self.trainable
        across = in_training and getattr(self, "synchronized", False)
        if mask is not None or across or not self._is_fusable(inputs):
            return super().call(inputs, training=training, mask=mask)
        if in_training:
            outputs, mean, variance = self._normalise(inputs, None, None)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance * _biased_by(inputs))
        else:
            outputs, _, _ = self._normalise(inputs, self.moving_mean, self.moving_variance)
        return tf.cast(outputs, self.compute_dtype)

    def _is_fusable(self, inputs: Any) -> bool:
        axis = self.axis if isinstance(self.axis, int) else tuple(self.axis)
        return (
            # Keras 2.15 has the kernel in its own layer, and keeps the Bessel-corrected variance
            not KERAS_2
            and len(inputs.shape) == 4
            and axis in (-1, 3, (-1,), (3,))
            and inputs.dtype in (tf.float16, tf.bfloat16, tf.float32)
            and self.epsilon >= _MIN_EPSILON
            and not getattr(self, "renorm", False)
        )

    def _normalise(self, inputs: tf.Tensor, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
        """Returns outputs, batch mean and Bessel-corrected batch variance; None means "of batch"."""
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

    def _move(self, variable: Any, value: tf.Tensor) -> None:
        moved = _float32(variable) * self.momentum + value * (1.0 - self.momentum)
        variable.assign(tf.cast(moved, variable.dtype))


set_weights_group_name(FusedBatchNormalization, "BatchNormalization")


def fuse_batch_norm(
    model: keras.Model, momentum: float | None = None, *, synchronized: bool = False
) -> None:
    """Turns the BatchNormalization layers of a functional ``model`` into fused ones, in place.

    Names, order and variables stay, and so does the graph of layers: nothing is built a second time.
    Models nested in ``model`` are left as they are.

    Args:
        model: a functional model, before its first call outside of building.
        momentum: of the moving statistics, in [0, 1), for every such layer; None keeps each.
        synchronized: whether the batch statistics span the replicas of a distribution strategy.
    """
    for layer in model.layers:
        if type(layer) not in (keras.layers.BatchNormalization, FusedBatchNormalization):
            continue
        replace_layer_class(layer, FusedBatchNormalization)
        if momentum is not None:
            layer.momentum = momentum
        if synchronized:
            layer.synchronized = True
            layer.fused = False  # read by Keras 2.15 alone


def finalize_layers(model: keras.Model) -> None:
    """Makes layers derive anew what they compute from their weights; call it after setting these.

    ``keras.layers.Normalization`` (in EfficientNet) works with such tensors.
    """
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def moving_statistics(model: keras.Model) -> list[Any]:
    """The moving means and variances that training changes on each replica by its own images.

    Those of synchronised layers follow from all images of a batch and are equal everywhere; frozen
    layers change none.
    """
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += moving_statistics(layer)
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            synchronized = getattr(layer, "synchronized", False)
            found += [] if synchronized else [layer.moving_mean, layer.moving_variance]
    return found


def momentum_for(steps_per_epoch: int) -> float:
    """Returns the momentum with which the moving statistics keep up with a run of this pace.

    Keras's 0.99 forgets over about 100 steps: in an epoch of 30 steps the moving statistics still
    hold the initial 0 and 1, and validation looks dead for hundreds of steps while training goes
    well. ``1 - 10 / steps_per_epoch`` averages over a tenth of an epoch, so that one epoch
    forgets all but ``exp(-10)`` of what was before; clipped to [0.8, 0.99], since fewer than five
    batches make noisy statistics and Keras's value is good enough for long epochs.
    """
    return min(max(1.0 - 10.0 / steps_per_epoch, 0.8), 0.99)


def _float32(value: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value), tf.float32)


def _biased_by(inputs: tf.Tensor) -> tf.Tensor:
    """Returns (n - 1) / n for the n values of a channel: undoes the kernel's Bessel correction."""
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    return (count - 1.0) / count
