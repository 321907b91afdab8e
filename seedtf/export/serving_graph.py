"""The graph of an export, from file bytes or pixels to class names, without Python or custom ops.

The graph checks the header of every file as training does (``header_graph``), and decodes and resizes
images with the functions that training uses. A file that is refused or corrupt gets a ``status`` and
zero probabilities; the other files of the batch are classified as usual. An image with damage that a
decoder cannot detect, such as a flipped bit inside JPEG data, is classified as if it were intact.

A whole request fails only if it has no image, if an input has the wrong dtype or shape, if images that
are passed to ``image`` have height or width 0, or if memory runs out.

Without a dataset, the error of a decoder would fail the whole batch. So files are decoded in a
``tf.data.Dataset`` inside the signature, whose ``ignore_errors`` drops files that cannot be decoded.
TensorFlow instantiates the functions of such a dataset again for every request, which takes longer for
large functions. So headers are parsed outside the dataset, and a small function decodes upright JPEGs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.tensorflow import freeze_variables
from seedtf.images.decode import decode_image, decode_upright_jpeg, is_jpeg, resize_image
from seedtf.images.header import MAX_PIXELS, STRETCH
from seedtf.images.header_graph import STATUSES, Edits, apply_edits, has_edits, parse_headers_graph
from seedtf.model.activation_map import mean_map, split_for_maps
from seedtf.model.members import input_size, resize_for, weighted_mean
from seedtf.model.network import HEAD

__all__ = ["ServingModule", "decode_batch"]

_CORRUPT = STATUSES.index("corrupt")
# A larger image is decoded alone, because decoding 100 megapixels takes up to 1.1 GB of memory.
_LARGE_PIXELS = 25_000_000
# The weights of larger networks stay variables, because constants are stored in saved_model.pb, which
# is limited to 2 GB, and because TensorFlow copies the constants for each signature that is used.
_MAX_CONSTANTS = 100_000_000
# Smaller probabilities are replaced by this value, because the logarithm of 0 is infinite.
_MIN_PROBABILITY = float(np.finfo(np.float32).tiny)


def decode_batch(
    image_bytes: tf.Tensor, size: int, max_pixels: int = MAX_PIXELS, fit: str = STRETCH
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes whole files and resizes them.

    Args:
        image_bytes: string ``[B]``.
        size: side of the resized images in pixels.
        max_pixels: the largest width × height that is decoded.
        fit: how an image that is not square is made square, see ``images.decode.resize_image``.

    Returns:
        The images, uint8 ``[B, size, size, 3]``, and statuses, int64 ``[B]``, which are indices into
        ``header_graph.STATUSES``. An image whose status is not 0 (ok) is black.
    """
    count = tf.size(image_bytes, out_type=tf.int64)
    header = parse_headers_graph(image_bytes, max_pixels)
    statuses, headers, edits = header.status, header.for_decoder, header.edits

    def decode(index: tf.Tensor) -> tf.Tensor:
        data = apply_edits(image_bytes[index], Edits(edits.spans[index], edits.texts[index]))
        return decode_image(data, headers[index])

    def decode_upright(index: tf.Tensor) -> tf.Tensor:
        return decode_upright_jpeg(image_bytes[index], headers[index])

    def decode_selected(
        selected: tf.Tensor, decoder: Callable[[tf.Tensor], tf.Tensor], parallel_calls: int
    ) -> tf.data.Dataset:
        indices = tf.data.Dataset.from_tensor_slices(tf.where(selected)[:, 0])
        decoded = indices.map(
            lambda index: (index, resize_image(decoder(index), size, fit)), parallel_calls
        )
        return decoded.ignore_errors()

    def as_batch(*datasets: tf.data.Dataset) -> tuple[tf.Tensor, tf.Tensor]:
        # If no file is decoded, `get_single_element` would fail for the empty dataset. So a black image
        # is appended to every batch; its row is removed below.
        last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
        return (
            functools.reduce(tf.data.Dataset.concatenate, (*datasets, last))
            .batch(count + 1)
            .get_single_element()
        )

    is_ok = statuses == 0
    is_large = is_ok & (tf.reduce_prod(tf.cast(headers[:, :2], tf.int64), 1) > _LARGE_PIXELS)
    is_upright_jpeg = is_ok & ~is_large & is_jpeg(image_bytes) & (header.orientation == 1)
    is_upright_jpeg &= ~has_edits(image_bytes, edits)
    auto = tf.data.AUTOTUNE
    indices, images = tf.cond(
        tf.reduce_all(is_upright_jpeg | ~is_ok),
        lambda: as_batch(decode_selected(is_upright_jpeg, decode_upright, auto)),
        lambda: as_batch(
            decode_selected(is_upright_jpeg, decode_upright, auto),
            decode_selected(is_ok & ~is_upright_jpeg & ~is_large, decode, auto),
            decode_selected(is_large, decode, 1),
        ),
    )
    # ignore_errors does not return which files it dropped. So every file with a valid header first
    # gets the status corrupt, and then every file that was decoded gets the status ok.
    positions = indices[:, tf.newaxis]
    all_images = tf.scatter_nd(positions, images, tf.stack([count + 1, size, size, 3]))
    statuses = tf.where(statuses == 0, tf.constant(_CORRUPT, tf.int64), statuses)
    statuses = tf.concat([statuses, [0]], 0)
    statuses = tf.tensor_scatter_nd_update(statuses, positions, tf.zeros_like(indices))
    return tf.ensure_shape(all_images[:-1], [None, size, size, 3]), statuses[:-1]


def _run_models(models: Sequence[keras.Model], pixels: tf.Tensor) -> list[Any]:
    """The outputs of each network for images, float32 ``[B, S, S, 3]``, resized to its input size."""
    return [model(resize_for(model, pixels), training=False) for model in models]


def _with_constants(
    function: Callable[[tf.Tensor], list[tf.Tensor]], image_shape: tuple[int, int, int]
) -> Callable[[tf.Tensor], Sequence[tf.Tensor]]:
    """Replaces the variables of a function of images, float32 ``[B, *image_shape]``, by constants.

    TensorFlow can then fold batch normalization into the convolutions, and convert their weights to the
    layout of its CPU library oneDNN once. Weights in variables are converted again for every request.
    """
    spec = tf.TensorSpec([None, *image_shape], tf.float32)
    graph = tf.function(function, autograph=False).get_concrete_function(spec)
    frozen = freeze_variables(graph)

    def call(pixels: tf.Tensor) -> Sequence[tf.Tensor]:
        # As an attribute of ServingModule, `frozen` itself would be saved as one more graph.
        return frozen(pixels)

    return call


class ServingModule(tf.Module):
    """A classifier with the signatures that its SavedModel has.

    Args:
        model: a float32 network from ``build_network``.
        class_names: K names in the order of the model's outputs.
        temperature: the divisor of the logits before the softmax (Guo et al. 2017).
        classes_file: a file with the names, which is copied to ``assets`` of the SavedModel.
        heatmap: whether ``serving_default`` and ``image`` also return ``heatmap``, the class
            activation map of the best class.
        others: more networks with the same classes, whose probabilities are averaged with those of
            ``model``. Images are decoded at the largest size and resized for smaller networks.
        weights: the weight of each network in the mean; they add up to 1. Empty for equal weights.
        max_pixels: the largest width × height that is decoded.
        fit: how an image that is not square is made square, see ``images.decode.resize_image``.
    """

    def __init__(
        self,
        model: keras.Model,
        class_names: Sequence[str],
        temperature: float,
        classes_file: str,
        *,
        heatmap: bool = False,
        others: Sequence[keras.Model] = (),
        weights: Sequence[float] = (),
        max_pixels: int = MAX_PIXELS,
        fit: str = STRETCH,
    ) -> None:
        super().__init__(name="seedtf")
        models = (model, *others)
        size = max(map(input_size, models))
        self.image_shape = (size, size, 3)
        self._size, self._temperature = size, temperature
        self._max_pixels, self._fit = max_pixels, fit
        self._names = tuple(class_names)
        self._mean_weights = tuple(weights)
        self.classes_file = tf.saved_model.Asset(classes_file)
        logit_models = [
            keras.Model(network.input, network.get_layer(HEAD).output) for network in models
        ]
        self._logits: Callable[[tf.Tensor], Sequence[tf.Tensor]]
        self._logits = lambda pixels: _run_models(logit_models, pixels)
        variables = [variable for network in models for variable in network.variables]
        if not heatmap and sum(math.prod(v.shape) for v in variables) <= _MAX_CONSTANTS:
            self._logits = _with_constants(self._logits, self.image_shape)
        else:
            # Only the variables are tracked: a SavedModel with Keras objects needs Keras to load.
            self.weights = [v if isinstance(v, tf.Variable) else v.value for v in variables]
        with_features = [split_for_maps(network) for network in models] if heatmap else []
        self._to_maps = [to_map for _, to_map in with_features]
        self._features_and_logits = lambda pixels: _run_models(
            [network for network, _ in with_features], pixels
        )

    def probabilities(self, pixels: tf.Tensor) -> tf.Tensor:
        """Returns probabilities, float32 ``[B, K]``, for pixels, float32 ``[B, S, S, 3]`` in 0–255."""
        return self._mean_probabilities(self._logits(pixels))

    def _mean_probabilities(self, logits: Sequence[tf.Tensor]) -> tf.Tensor:
        """The weighted mean of the networks' probabilities, scaled by the temperature."""
        logits = [tf.cast(values, tf.float32) for values in logits]
        if len(logits) == 1:
            return tf.nn.softmax(logits[0] / self._temperature)
        mean = weighted_mean([tf.nn.softmax(values) for values in logits], self._mean_weights)
        if self._temperature == 1:
            return mean
        return tf.nn.softmax(tf.math.log(tf.maximum(mean, _MIN_PROBABILITY)) / self._temperature)

    def _classify(
        self, images: tf.Tensor, is_valid: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The outputs of a signature for images, uint8 ``[B, S, S, 3]``.

        Images for which ``is_valid``, bool ``[B]``, is False get zeros and empty names.
        """
        pixels = tf.cast(images, tf.float32)
        if not self._to_maps:
            return self._outputs(self.probabilities(pixels), is_valid)
        features, logits = zip(*self._features_and_logits(pixels), strict=True)
        probabilities = self._mean_probabilities(logits)
        best = tf.argmax(probabilities, axis=1)
        pairs = zip(self._to_maps, features, strict=True)
        heatmap = mean_map([to_map(values, best) for to_map, values in pairs], self._mean_weights)
        if is_valid is not None:
            heatmap = tf.where(is_valid[:, tf.newaxis, tf.newaxis], heatmap, 0.0)
        return {**self._outputs(probabilities, is_valid), "heatmap": heatmap}

    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies whole image files, string ``[B]``; an output is ``status``, string ``[B]``."""
        with tf.device("/cpu:0"):
            images, statuses = decode_batch(image_bytes, self._size, self._max_pixels, self._fit)
        outputs = self._classify(images, statuses == 0)
        return {**outputs, "status": tf.gather(tf.constant(STATUSES), statuses)}

    def serve_image(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies decoded images, uint8 ``[B, H, W, 3]`` RGB of any size."""
        size, fit = self._size, self._fit

        def resize() -> tf.Tensor:
            return tf.map_fn(
                lambda pixels: resize_image(pixels, size, fit), image, fn_output_signature=tf.uint8
            )

        has_model_size = tf.reduce_all(tf.shape(image)[1:3] == size)
        with tf.device("/cpu:0"):
            images = tf.cond(has_model_size, lambda: image, resize)
        images = tf.ensure_shape(images, [None, size, size, 3])
        return self._classify(images)

    def serve_pixels(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies RGB pixels, float32 ``[B, S, S, 3]`` in 0–255; returns only ``probabilities``."""
        return {"probabilities": self.probabilities(pixels)}

    def signatures(self) -> dict[str, Any]:
        """The signatures ``serving_default``, ``image`` and ``pixels``, as traced functions."""
        size = self._size
        inputs = {
            "serving_default": (self.serve_bytes, [None], tf.string, "image_bytes"),
            "image": (self.serve_image, [None, None, None, 3], tf.uint8, "image"),
            "pixels": (self.serve_pixels, [None, size, size, 3], tf.float32, "pixels"),
        }
        return {
            name: tf.function(function, autograph=False).get_concrete_function(
                tf.TensorSpec(shape, dtype, argument)
            )
            for name, (function, shape, dtype, argument) in inputs.items()
        }

    def _outputs(
        self, probabilities: tf.Tensor, is_valid: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The outputs of a signature that follow from the probabilities.

        Images for which ``is_valid``, bool ``[B]``, is False get zeros and empty names.

        Returns:
            ``probabilities``: float32 ``[B, K]`` in the order of assets/classes.txt.
            ``classes``: string ``[B, K]``, the names of the classes, best first.
            ``scores``: float32 ``[B, K]``, the probabilities in the order of ``classes``.
            ``class_name``, ``confidence``: string ``[B]`` and float32 ``[B]``, the best class.
        """
        if is_valid is not None:
            probabilities = tf.where(is_valid[:, tf.newaxis], probabilities, 0.0)
        scores, order = tf.math.top_k(probabilities, len(self._names))
        classes = tf.gather(tf.constant(self._names), order)
        if is_valid is not None:
            classes = tf.where(is_valid[:, tf.newaxis], classes, "")
        return {
            "probabilities": probabilities,
            "classes": classes,
            "scores": scores,
            "class_name": classes[:, 0],
            "confidence": scores[:, 0],
        }
