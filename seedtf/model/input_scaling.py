"""The first layer of every network: it scales pixels in 0–255 to the range that the weights expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

__all__ = ["InputScaling"]

# Statistics of ImageNet for each channel: "torch" for RGB values in 0–1, "caffe" for BGR values in
# 0–255. The weights of keras.applications were trained on pixels scaled with these statistics.
_TORCH_MEAN, _TORCH_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


@keras.saving.register_keras_serializable(package="seedtf")
class InputScaling(keras.layers.Layer):
    """Scales RGB pixels in 0–255 to the range that a network was trained on, in float32.

    Args:
        mode: ``"caffe"``: BGR minus the means of ImageNet (about -124 to 151); ``"torch"``: RGB
            standardized by the means and standard deviations of ImageNet (about -2.1 to 2.6);
            ``"tf"``: RGB in -1 to 1; ``"none"``: unchanged, for networks that scale their input
            themselves; ``"affine"``: RGB times ``scale`` plus ``offset``.
        scale, offset: for ``"affine"``, one number, or one for each channel.
    """

    def __init__(
        self,
        mode: str,
        scale: float | Sequence[float] = 1.0,
        offset: float | Sequence[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        # Autocast would round the pixels before they are scaled: bfloat16 rounds 100.3 to 100.5.
        super().__init__(autocast=False, **kwargs)
        if mode not in ("affine", "caffe", "torch", "tf", "none"):
            raise ValueError(f"mode must be affine, caffe, torch, tf or none, not {mode!r}")
        self.mode = mode
        self.scale, self.offset = (
            tuple(numbers) if isinstance(numbers, (list, tuple)) else numbers
            for numbers in (scale, offset)
        )

    def call(self, inputs: Any) -> Any:
        """Scales ``[..., 3]`` pixels of any numeric dtype; the result has the compute dtype."""
        pixels = tf.cast(inputs, tf.float32)
        if self.mode == "caffe":
            pixels = tf.reverse(pixels, axis=[-1]) - tf.constant(_CAFFE_MEAN)
        elif self.mode == "torch":
            pixels = (pixels / 255.0 - tf.constant(_TORCH_MEAN)) / tf.constant(_TORCH_DEVIATION)
        elif self.mode == "tf":
            pixels = pixels / 127.5 - 1.0
        elif self.mode == "affine":
            pixels = pixels * tf.constant(self.scale) + tf.constant(self.offset)
        return tf.cast(pixels, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns ``input_shape``: scaling changes values only."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which Keras recreates the layer."""
        config = {**super().get_config(), "mode": self.mode}
        if self.mode == "affine":
            config |= {"scale": self.scale, "offset": self.offset}
        return config
