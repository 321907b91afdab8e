"""MixUp, CutMix and random erasing of a batch whose labels are probabilities of the classes.

The random numbers of an image depend only on the seed, the epoch and the record, which is the index of
the image in the data. An image is mixed with the next image of its batch; batches are shuffled, so
this is a random image. Sizes and positions are computed with integers and tables. Therefore they are
the same on every device, with and without XLA, in the input pipeline and in the train step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from seedtf.seeds import MIX, epoch_seed, hash_words

__all__ = ["Mixer", "Mixing", "beta_quantiles", "make_mixer", "mix"]

# The ranges of random erasing (https://arxiv.org/abs/1708.04896, section 3.2): the area of the
# rectangle as a fraction of the image area, and its height divided by its width.
_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 3.3)
# Each record has a sequence of random numbers. The constants in the next line are the indices of the
# numbers that decide how its image is mixed and erased. Numbers 9 to 15 are unused; those from
# _NUM_UNIFORMS on are the noise of erased pixels.
_IS_CUTMIX, _WEIGHT, _CENTER_Y, _CENTER_X, _IS_ERASED, _AREA, _ASPECT, _TOP, _LEFT = range(9)
_NUM_UNIFORMS = 16
_UNIFORM_BITS = 24
_TABLE_BITS = 14
_INTEGRATION_STEPS = 1 << 15

Mixer = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""A function ``(images, labels, epoch, records) → (images, labels)`` of ``make_mixer``."""


@dataclass(frozen=True)
class Mixing:
    """The settings of MixUp, CutMix and random erasing; 0 switches an operation off.

    Attributes:
        mixup: the parameter a of the distribution Beta(a, a) from which the weight of an image in a
            blend is drawn, in [0, 10].
        cutmix: the parameter a of the distribution Beta(a, a) from which the fraction of the area that
            an image keeps is drawn, in [0, 10].
        random_erasing: fraction of the images in which a rectangle is replaced by noise, in [0, 1].

    Example:
        >>> Mixing(mixup=0.2, cutmix=1.0).is_active
        True
        >>> Mixing().is_active
        False
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    random_erasing: float = 0.0

    @property
    def is_active(self) -> bool:
        """Whether any operation is on."""
        return self.mixup > 0 or self.cutmix > 0 or self.random_erasing > 0


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    epoch: tf.Tensor,
    records: tf.Tensor,
    *,
    seed: int,
    mixing: Mixing,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Erases rectangles, then mixes each image of a batch with the next image.

    MixUp (https://arxiv.org/abs/1710.09412) blends the two images. CutMix
    (https://arxiv.org/abs/1905.04899) pastes a rectangle of the next image; the labels are weighted by
    its area, after clipping at the edges. If MixUp and CutMix are on, each image gets one of the two,
    with probability 1/2.

    Args:
        images: float32 ``[B, H, W, 3]`` in 0–255, H and W static and below 2¹⁵.
        labels: float32 ``[B, K]``. A row sums to 1, or to the weight of the image in the loss.
        epoch: int64 scalar, from 0.
        records: int64 ``[B]``, the indices of the images.
        seed: root seed of the run.
        mixing: the operations that are on.

    Returns:
        Mixed images and labels, of the same shape, dtype and range.

    Example:
        >>> images = tf.random.stateless_uniform([4, 8, 8, 3], [0, 0], 0.0, 255.0)
        >>> records, epoch = tf.range(4, dtype=tf.int64), tf.constant(0, tf.int64)
        >>> mixed, labels = mix(
        ...     images, tf.eye(4), epoch, records, seed=0, mixing=Mixing(mixup=0.4)
        ... )
        >>> mixed.shape, tf.reduce_sum(labels, 1).numpy().tolist()
        (TensorShape([4, 8, 8, 3]), [1.0, 1.0, 1.0, 1.0])
    """
    if not mixing.is_active:
        return images, labels
    key = epoch_seed(seed, MIX, epoch)
    uniforms = _integer_uniforms(key, records)
    if mixing.random_erasing > 0:
        images = _erase(images, key, records, uniforms, mixing.random_erasing)
    if mixing.mixup > 0 or mixing.cutmix > 0:
        weights, label_weights = _mix_weights(uniforms, mixing, *images.shape[1:3])
        images = _blend_with_next(images, weights)
        labels = _blend_with_next(labels, label_weights)
    return images, labels


def make_mixer(mixing: Mixing, seed: int, num_classes: int) -> Mixer | None:
    """Makes a function that mixes the augmented images and the labels of a batch.

    Args:
        mixing: the operations and their parameters.
        seed: root seed of the run.
        num_classes: the number of classes K.

    Returns:
        ``(images float32 [B, S, S, 3], labels int32 [B] or float32 [B, K], epoch int64 [],
        records int64 [B]) → (images, labels float32 [B, K])``; None if all operations are off.
    """
    if not mixing.is_active:
        return None
    # Erasing is compiled separately. In one compiled function, XLA would compute the noise of the
    # erased rectangles several times, because it would fuse the noise into both terms of the blend.
    erasing, blending = (
        Mixing(random_erasing=mixing.random_erasing),
        replace(mixing, random_erasing=0.0),
    )
    compiled = [
        tf.function(
            functools.partial(mix, seed=seed, mixing=part), jit_compile=True, autograph=False
        )
        for part in (erasing, blending)
        if part.is_active
    ]

    def mixer(
        images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        soft = labels if labels.shape.rank == 2 else tf.one_hot(labels, num_classes)
        for apply in compiled:
            images, soft = apply(images, soft, epoch, records)
        return images, soft

    return mixer


@functools.lru_cache(maxsize=8)
def beta_quantiles(a: float, count: int = 1 << _TABLE_BITS) -> npt.NDArray[np.float64]:
    """A table of ``count`` quantiles of Beta(a, a), float64 ``[count]`` in [0, 1].

    The quantiles belong to the probabilities (i + 1/2) / count. An entry that is chosen uniformly
    follows Beta(a, a), with an error of at most 1/(2·count) in the distribution function. A table
    is used because rejection sampling would need a loop.

    The density is integrated by the trapezoid rule from 0 to 1/2; the upper half of the table is the
    mirror image of the lower half. For a < 1, the density over x is infinite at x = 0. Over z = xᵃ it
    is finite, so the integration variable is z.

    Args:
        a: the parameter of the distribution, above 0.
        count: length of the table, even and at least 2.
    """
    power = min(a, 1.0)
    z = np.linspace(0.0, 0.5**power, _INTEGRATION_STEPS + 1)
    x = z ** (1.0 / power)
    density = x ** (a - power) * (1.0 - x) ** (a - 1.0)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    probabilities = (np.arange(count // 2) + 0.5) / count
    lower = np.interp(probabilities, 0.5 * mass / mass[-1], z) ** (1.0 / power)
    quantiles = np.concatenate([lower, 1.0 - lower[::-1]])
    quantiles.flags.writeable = False  # because lru_cache returns the same array to all callers
    return quantiles


def _integer_uniforms(key: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
    """Random integers, uniform in [0, 2²⁴), int64 ``[_NUM_UNIFORMS, B]``."""
    number_indices = tf.range(_NUM_UNIFORMS, dtype=tf.int64)[:, None]
    words = hash_words(key, records[None], number_indices)
    shift = tf.constant(64 - _UNIFORM_BITS, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(words, shift), tf.int64)


def _scale_below(uniform: tf.Tensor, bound: tf.Tensor | int) -> tf.Tensor:
    """Random integers, uniform in [0, bound), int32, from uniform integers in [0, 2²⁴)."""
    return tf.cast(uniform * tf.cast(bound, tf.int64) // (1 << _UNIFORM_BITS), tf.int32)


def _choose(table: npt.NDArray, uniform: tf.Tensor) -> tf.Tensor:
    """An entry of ``table`` for each integer in ``uniform``, chosen uniformly."""
    return tf.gather(tf.constant(table), _scale_below(uniform, len(table)))


def _mix_weights(
    uniforms: tf.Tensor, mixing: Mixing, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The weight of each image in its own mix, in [0, 1]; the next image has 1 minus this weight.

    Returns:
        The weights of the pixels ``[B, H, W, 1]``, or ``[B, 1, 1, 1]`` if all pixels of an image have
        the same weight, and the weights of the labels ``[B, 1]``.
    """
    if mixing.mixup > 0:
        quantiles = beta_quantiles(mixing.mixup).astype(np.float32)
        mixup_weights = _choose(quantiles, uniforms[_WEIGHT])[:, None]
        if mixing.cutmix <= 0:
            return mixup_weights[:, :, None, None], mixup_weights
    kept, kept_fraction = _cutmix_weights(uniforms, mixing.cutmix, height, width)
    if mixing.mixup <= 0:
        return kept, kept_fraction
    is_cutmix = (uniforms[_IS_CUTMIX] < 1 << (_UNIFORM_BITS - 1))[:, None]
    pixels = tf.where(is_cutmix[:, :, None, None], kept, mixup_weights[:, :, None, None])
    return pixels, tf.where(is_cutmix, kept_fraction, mixup_weights)


def _cutmix_weights(
    uniforms: tf.Tensor, a: float, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The weights of CutMix, ``[B, H, W, 1]``, and the mean weight of each image, ``[B, 1]``.

    A weight is 0 where the next image is pasted, and 1 elsewhere.
    """
    # The pasted rectangle has the aspect ratio of the image, and these fractions of its sides.
    side_fractions = np.sqrt(1.0 - beta_quantiles(a))

    def draw_edges(center: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
        size = _choose((side_fractions * length).astype(np.int32), uniforms[_WEIGHT])
        start = _scale_below(center, length) - size // 2
        return tf.maximum(start, 0), tf.minimum(start + size, length)

    rows = draw_edges(uniforms[_CENTER_Y], height)
    columns = draw_edges(uniforms[_CENTER_X], width)
    pasted = (rows[1] - rows[0]) * (columns[1] - columns[0])
    # XLA would replace a division by a constant with a multiplication, which rounds differently. So
    # this is a multiplication, which gives the same result with and without XLA.
    fraction = 1.0 - tf.cast(pasted, tf.float32) * np.float32(1.0 / (height * width))
    is_inside = _is_in_rectangle(rows, columns, height, width)
    return tf.where(is_inside, 0.0, 1.0), fraction[:, None]


def _erase(
    images: tf.Tensor, key: tf.Tensor, records: tf.Tensor, uniforms: tf.Tensor, probability: float
) -> tf.Tensor:
    """Fills a rectangle of some images with noise.

    A side of the rectangle that would be longer than the image is shortened.
    """
    _, height, width, _ = images.shape
    # Tables of the square roots of area and aspect ratio. The area is uniformly distributed, and so is
    # the logarithm of the aspect ratio.
    fractions = (np.arange(1 << 10) + 0.5) / (1 << 10)
    root_area = np.sqrt(np.interp(fractions, [0.0, 1.0], _ERASED_AREA)).astype(np.float32)
    root_aspect = np.exp(0.5 * np.interp(fractions, [0.0, 1.0], np.log(_ERASED_ASPECT)))

    def draw_edges(
        factors: npt.NDArray, position: tf.Tensor, length: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # The size is the product of two table entries. XLA could fuse a longer computation and round
        # the result differently.
        size = _choose(root_area * np.float32(length), uniforms[_AREA]) * _choose(
            factors.astype(np.float32), uniforms[_ASPECT]
        )
        size = tf.clip_by_value(tf.cast(tf.round(size), tf.int32), 1, length)
        start = _scale_below(position, length - size + 1)
        return start, start + size

    rows = draw_edges(root_aspect, uniforms[_TOP], height)
    columns = draw_edges(1.0 / root_aspect, uniforms[_LEFT], width)
    is_erased = uniforms[_IS_ERASED] < round(probability * (1 << _UNIFORM_BITS))
    is_inside = _is_in_rectangle(rows, columns, height, width) & is_erased[:, None, None, None]
    return tf.where(is_inside, _noise(key, records, height, width), images)


def _noise(key: tf.Tensor, records: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Random levels 0–255, float32 ``[B, H, W, 3]``; a hash for each pixel gives three bytes."""
    number_indices = tf.range(_NUM_UNIFORMS, _NUM_UNIFORMS + height * width, dtype=tf.int64)
    pixels = tf.reshape(number_indices, [height, width])
    words = hash_words(key, records[:, None, None], pixels[None])
    levels = [
        tf.bitwise.right_shift(words, tf.constant(bits, tf.uint64)) & tf.constant(255, tf.uint64)
        for bits in (56, 48, 40)
    ]
    return tf.cast(tf.stack(levels, -1), tf.float32)


def _is_in_rectangle(
    rows: tuple[tf.Tensor, tf.Tensor], columns: tuple[tf.Tensor, tf.Tensor], height: int, width: int
) -> tf.Tensor:
    """Whether each pixel lies in the rectangle of its image: bool ``[B, H, W, 1]``.

    Args:
        rows: the first row inside each rectangle, and the first row below it, int32 ``[B]`` each.
        columns: the first column inside each rectangle, and the first column to its right, int32
            ``[B]`` each.
        height, width: size of the images.
    """

    def is_between(edges: tuple[tf.Tensor, tf.Tensor], length: int) -> tf.Tensor:
        index = tf.range(length)[None]
        return (index >= edges[0][:, None]) & (index < edges[1][:, None])

    is_inside = is_between(rows, height)[:, :, None] & is_between(columns, width)[:, None, :]
    return is_inside[..., None]


def _blend_with_next(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """``weight · value + (1 − weight) · next value``; the next value of the last entry is the first."""
    # This sum is exact where the weight is 0 or 1. `next + weight * (value - next)` is not exact there.
    return values * weight + tf.concat([values[1:], values[:1]], 0) * (1.0 - weight)
