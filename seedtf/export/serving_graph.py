"""The graph that is served: from a file's bytes, or pixels, to named classes; no Python, no custom op.

Every file is judged by its header in the graph, as in training (``graph_header``), and decoded and
resized by training's own functions. A file that is refused or damaged gets its ``status`` and zero
probabilities, and the others of its batch their answers: decoding runs in a dataset inside the
signature, whose ``ignore_errors`` drops what a decoder rejects.

What still fails a whole request: an input of another type or rank than the signature's; for ``image``
and ``pixels``, images of no height or width; and running out of memory. Damage that a decoder cannot
notice, such as a flipped bit inside a JPEG's data, is answered as if the image were good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from seedtf.images.decode import decode_image, resize_image
from seedtf.images.header_graph import FAULTS, judge_header
from seedtf.model.network import HEAD

__all__ = ["ServingModule", "decode_batch"]

_CORRUPT = FAULTS.index("corrupt")


def decode_batch(image_bytes: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Whole files, string ``[B]``, to uint8 ``[B, size, size, 3]`` and fault int64 ``[B]``.

    A fault is an index into ``graph_header.FAULTS``; where it is not 0 the image is black.
    """
    blank = tf.zeros([size, size, 3], tf.uint8)
    count = tf.size(image_bytes, out_type=tf.int64)

    def one(index: tf.Tensor, contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        verdict = judge_header(contents)
        orientation = tf.cast(verdict.orientation, tf.int32)

        def decoded() -> tf.Tensor:
            return resize_image(decode_image(contents, orientation, verdict.has_alpha), size)

        return index, tf.cond(verdict.fault == 0, decoded, lambda: blank), verdict.fault

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
    good = files.map(one, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    # one more element, so that the batch of what is left is never empty
    last = tf.data.Dataset.from_tensors((count, blank, tf.constant(_CORRUPT, tf.int64)))
    indices, images, faults = good.concatenate(last).batch(count + 1).get_single_element()
    places = indices[:, tf.newaxis]
    shape = tf.stack([count + 1, size, size, 3])
    all_faults = tf.fill([count + 1], tf.constant(_CORRUPT, tf.int64))
    all_faults = tf.tensor_scatter_nd_update(all_faults, places, faults)
    all_images = tf.scatter_nd(places, images, shape)
    return tf.ensure_shape(all_images[:-1], [None, size, size, 3]), all_faults[:-1]


class ServingModule(tf.Module):
    """A classifier as it is served.

    Args:
        model: a network of ``model.network`` in float32 for ``size`` pixels.
        class_names: K names in the order of the model's outputs.
        temperature: the logits are divided by it before the softmax (Guo et al. 2017).
        classes_file: a file with the names, which the SavedModel carries in ``assets``.
    """

    def __init__(
        self, model: keras.Model, class_names: Sequence[str], temperature: float, classes_file: str
    ) -> None:
        super().__init__(name="seedtf")
        size = int(model.input_shape[1])
        self.image_shape = (size, size, 3)
        self._size, self._temperature = size, temperature
        self._names = tuple(class_names)
        # the variables alone are tracked: Keras's own objects would need Keras to be loaded again
        self.weights = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
        self.classes_file = tf.saved_model.Asset(classes_file)
        logits = keras.Model(model.input, model.get_layer(HEAD).output)
        self._logits = lambda pixels: logits(pixels, training=False)

    def probabilities(self, pixels: tf.Tensor) -> tf.Tensor:
        """float32 ``[B, S, S, 3]`` in 0–255 to float32 ``[B, K]``."""
        return tf.nn.softmax(tf.cast(self._logits(pixels), tf.float32) / self._temperature)

    def serve_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Whole image files, string ``[B]``; see ``_answer``, and ``status`` string ``[B]``."""
        with tf.device("/cpu:0"):
            images, faults = decode_batch(image_bytes, self._size)
        answer = self._answer(self.probabilities(tf.cast(images, tf.float32)), faults == 0)
        return {**answer, "status": tf.gather(tf.constant(FAULTS), faults)}

    def serve_image(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decoded images, uint8 ``[B, H, W, 3]`` RGB of any size."""
        size = self._size

        def resized() -> tf.Tensor:
            return tf.map_fn(
                lambda one: resize_image(one, size), image, fn_output_signature=tf.uint8
            )

        fits = tf.reduce_all(tf.shape(image)[1:3] == size)
        with tf.device("/cpu:0"):
            images = tf.cond(fits, lambda: image, resized)
        images = tf.ensure_shape(images, [None, size, size, 3])
        return self._answer(self.probabilities(tf.cast(images, tf.float32)))

    def serve_pixels(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """float32 ``[B, S, S, 3]`` RGB in 0–255, of the model's size, to ``probabilities`` alone."""
        return {"probabilities": self.probabilities(pixels)}

    def signatures(self) -> dict[str, Any]:
        """The three signatures, traced: ``serving_default``, ``image`` and ``pixels``."""
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

    def _answer(
        self, probabilities: tf.Tensor, good: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """What every image gets; where it is not ``good`` (bool ``[B]``), zeros and empty names.

        ``probabilities`` float32 ``[B, K]`` in the order of assets/classes.txt; ``classes`` string
        ``[B, K]``, best first, and ``scores`` float32 ``[B, K]``, the probabilities in that order;
        ``class_name`` string ``[B]`` and ``confidence`` float32 ``[B]``, the first of each.
        """
        if good is not None:
            probabilities = tf.where(good[:, tf.newaxis], probabilities, 0.0)
        scores, order = tf.math.top_k(probabilities, len(self._names))
        classes = tf.gather(tf.constant(self._names), order)
        if good is not None:
            classes = tf.where(good[:, tf.newaxis], classes, "")
        return {
            "probabilities": probabilities,
            "classes": classes,
            "scores": scores,
            "class_name": classes[:, 0],
            "confidence": scores[:, 0],
        }
