"""MixUp, CutMix and Random Erasing of a batch whose labels are distributions.

Every record draws for itself from (seed, epoch, record); its partner is the next image of the batch,
which is a random one. Sizes and places are found in whole numbers and from tables, so that they are the
same in a pipeline, compiled or not, and on every device.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from seedtf.seeds import MIX, fold_seed, hash_words

__all__ = ["Mixing", "beta_quantiles", "mix"]

# Random Erasing, https://arxiv.org/abs/1708.04896, section 3.2: share of the area; height over width
_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 3.3)
# the draws of a record, before those of its pixels
_WHICH, _SHARE, _MIDDLE_Y, _MIDDLE_X, _ERASE, _AREA, _ASPECT, _TOP, _LEFT = range(9)
_DRAWS = 16
_DRAW_BITS = 24
_TABLE_BITS = 14
_INTEGRATION_STEPS = 1 << 15


@dataclass(frozen=True)
class Mixing:
    """How a batch is mixed; 0 switches a part off.

    Attributes:
        mixup: a of the Beta(a, a) that the share of a blended image is drawn from, in [0, 10].
        cutmix: the same for the share of the area that an image keeps, in [0, 10].
        random_erasing: share of the images that lose a rectangle to noise, in [0, 1].
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    random_erasing: float = 0.0

    @property
    def active(self) -> bool:
        """Whether ``mix`` changes anything."""
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
    """Erases rectangles, then blends each image with the next one or pastes a part of that.

    MixUp: https://arxiv.org/abs/1710.09412; CutMix: https://arxiv.org/abs/1905.04899. With both, a
    record takes one of them with probability one half. A label's shares are those of the area that is
    really pasted, the part beyond the edge left out.

    Args:
        images: float32 ``[B, H, W, 3]`` in 0–255, H and W static and below 2¹⁵.
        labels: float32 ``[B, K]``, rows that sum to 1.
        epoch: int64 scalar, counted from 0.
        records: int64 ``[B]``; what a record draws does not depend on its batch, its partner does.
        seed: root seed of the run.
        mixing: what is on.

    Returns:
        Images and labels, as they came in shape, type and range.
    """
    if not mixing.active:
        return images, labels
    key = fold_seed(seed, MIX, epoch)
    draws = _whole_draws(key, records)
    if mixing.random_erasing > 0:
        images = _erase(images, key, records, draws, mixing.random_erasing)
    if mixing.mixup > 0 or mixing.cutmix > 0:
        shares, label_shares = _shares(draws, mixing, *images.shape[1:3])
        images = _blend(images, shares)
        labels = _blend(labels, label_shares)
    return images, labels


@functools.lru_cache(maxsize=8)
def beta_quantiles(a: float, count: int = 1 << _TABLE_BITS) -> npt.NDArray[np.float64]:
    """The quantiles of Beta(a, a) at the middles of ``count`` equal strata: ``[count]`` in [0, 1].

    A uniform choice among them is a draw within 1/(2·count) of the distribution function, without a
    rejection loop. The density is integrated by the trapezoid rule over the lower half, in x for
    a ≥ 1 and in xᵃ below, where it has no pole; the upper half is the mirror image.

    Args:
        a: above 0.
        count: even, at least 2.
    """
    power = min(a, 1.0)
    z = np.linspace(0.0, 0.5**power, _INTEGRATION_STEPS + 1)
    x = z ** (1.0 / power)
    density = x ** (a - power) * (1.0 - x) ** (a - 1.0)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    wanted = (np.arange(count // 2) + 0.5) / count
    lower = np.interp(wanted, 0.5 * mass / mass[-1], z) ** (1.0 / power)
    quantiles = np.concatenate([lower, 1.0 - lower[::-1]])
    quantiles.flags.writeable = False  # the cache hands out the same array again
    return quantiles


def _whole_draws(key: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
    """Uniform whole numbers below 2²⁴, int64 ``[_DRAWS, B]``."""
    draws = tf.range(_DRAWS, dtype=tf.int64)[:, None]
    words = hash_words(key, records[None], draws)
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(64 - _DRAW_BITS, tf.uint64)), tf.int64)


def _below(draw: tf.Tensor, bound: tf.Tensor | int) -> tf.Tensor:
    """Uniform whole numbers in ``[0, bound)``, int32; the bound is an int32 tensor or a number."""
    return tf.cast(draw * tf.cast(bound, tf.int64) // (1 << _DRAW_BITS), tf.int32)


def _look_up(table: npt.NDArray, draw: tf.Tensor) -> tf.Tensor:
    """A uniformly chosen entry of ``table``, whose type decides the result's."""
    return tf.gather(tf.constant(table), _below(draw, len(table)))


def _shares(
    draws: tf.Tensor, mixing: Mixing, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """What an image keeps of itself.

    Per pixel ``[B, H, W, 1]`` (``[B, 1, 1, 1]`` where that is the same all over), per label ``[B, 1]``.
    """
    if mixing.mixup > 0:
        blended = _look_up(beta_quantiles(mixing.mixup).astype(np.float32), draws[_SHARE])[:, None]
        if mixing.cutmix <= 0:
            return blended[:, :, None, None], blended
    kept, kept_share = _cut(draws, mixing.cutmix, height, width)
    if mixing.mixup <= 0:
        return kept, kept_share
    pastes = (draws[_WHICH] < 1 << (_DRAW_BITS - 1))[:, None]
    pixels = tf.where(pastes[:, :, None, None], kept, blended[:, :, None, None])
    return pixels, tf.where(pastes, kept_share, blended)


def _cut(draws: tf.Tensor, a: float, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """CutMix: 0 where the partner is pasted, else 1 ``[B, H, W, 1]``, and the kept share ``[B, 1]``."""
    side = np.sqrt(1.0 - beta_quantiles(a))

    def span(middle: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
        size = _look_up((side * length).astype(np.int32), draws[_SHARE])
        start = _below(middle, length) - size // 2
        return tf.maximum(start, 0), tf.minimum(start + size, length)

    rows, columns = span(draws[_MIDDLE_Y], height), span(draws[_MIDDLE_X], width)
    pasted = (rows[1] - rows[0]) * (columns[1] - columns[0])
    # times the reciprocal, as a compiler would divide: the same number compiled or not
    share = 1.0 - tf.cast(pasted, tf.float32) * np.float32(1.0 / (height * width))
    inside = _rectangle(rows, columns, height, width)
    return tf.where(inside, 0.0, 1.0), share[:, None]


def _erase(
    images: tf.Tensor, key: tf.Tensor, records: tf.Tensor, draws: tf.Tensor, probability: float
) -> tf.Tensor:
    """Random Erasing: noise in one rectangle, anywhere it fits; a side too long is cut to the edge."""
    _, height, width, _ = images.shape
    strata = (np.arange(1 << 10) + 0.5) / (1 << 10)
    root_area = np.sqrt(np.interp(strata, [0.0, 1.0], _ERASED_AREA)).astype(np.float32)
    root_aspect = np.exp(0.5 * np.interp(strata, [0.0, 1.0], np.log(_ERASED_ASPECT)))

    def span(shape: npt.NDArray, place: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
        # one product of table entries and nothing to fuse it with: the same number everywhere
        size = _look_up(root_area * np.float32(length), draws[_AREA]) * _look_up(
            shape.astype(np.float32), draws[_ASPECT]
        )
        size = tf.clip_by_value(tf.cast(tf.round(size), tf.int32), 1, length)
        start = _below(place, length - size + 1)
        return start, start + size

    rows = span(root_aspect, draws[_TOP], height)
    columns = span(1.0 / root_aspect, draws[_LEFT], width)
    chosen = draws[_ERASE] < round(probability * (1 << _DRAW_BITS))
    inside = _rectangle(rows, columns, height, width) & chosen[:, None, None, None]
    return tf.where(inside, _noise(key, records, height, width), images)


def _noise(key: tf.Tensor, records: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Whole grey levels, uniform in 0–255, float32 ``[B, H, W, 3]``: three bytes of a pixel's hash."""
    pixels = tf.reshape(tf.range(_DRAWS, _DRAWS + height * width, dtype=tf.int64), [height, width])
    words = hash_words(key, records[:, None, None], pixels[None])
    levels = [
        tf.bitwise.right_shift(words, tf.constant(bits, tf.uint64)) & tf.constant(255, tf.uint64)
        for bits in (56, 48, 40)
    ]
    return tf.cast(tf.stack(levels, -1), tf.float32)


def _rectangle(
    rows: tuple[tf.Tensor, tf.Tensor], columns: tuple[tf.Tensor, tf.Tensor], height: int, width: int
) -> tf.Tensor:
    """Which pixels lie in a rectangle each: bool ``[B, H, W, 1]``.

    Args:
        rows, columns: the first one and the one after the last, int32 ``[B]``.
        height, width: of the image.
    """

    def between(edges: tuple[tf.Tensor, tf.Tensor], length: int) -> tf.Tensor:
        place = tf.range(length)[None]
        return (place >= edges[0][:, None]) & (place < edges[1][:, None])

    return (between(rows, height)[:, :, None] & between(columns, width)[:, None, :])[..., None]


def _blend(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """``share`` of each entry and the rest of the next one, the last with the first."""
    # both products spelt out: exact where the share is 0 or 1
    return values * share + tf.concat([values[1:], values[:1]], 0) * (1.0 - share)
