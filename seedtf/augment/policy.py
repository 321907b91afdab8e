"""What is drawn for each image: the policy's ranges, and parameters from (seed, epoch, record).

``draw_parameters`` is a pure function, so any sample can be drawn again to look at it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import tensorflow as tf

from seedtf.data.order import AUGMENT, fold_seed

__all__ = ["FLIPS", "Parameters", "Policy", "draw_parameters", "hash_words", "uniform"]

FLIPS = ("none", "horizontal", "vertical", "both")
_DRAWS = 12


@dataclass(frozen=True)
class Policy:
    """The range of each operation; 0 (or ``none``) switches it off.

    Attributes:
        crop: largest share of each side cut away, in [0, 0.9].
        stretch: largest relative change of aspect, in [0, 1]: width/height in [1/(1+s), 1+s].
        rotate: largest angle either way, degrees in [0, 180].
        shear: largest shear angle either way, degrees in [0, 45].
        flip: ``none``, ``horizontal``, ``vertical`` or ``both``; each with probability one half.
        brightness: largest shift either way, as a share of the full range, in [0, 1].
        contrast: factor about mid-grey in [1 − c, 1 + c], c in [0, 1].
        saturation: factor in [1 − s, 1 + s], s in [0, 1].
        hue: largest turn of the colour circle either way, degrees in [0, 180].
    """

    crop: float = 0.2
    stretch: float = 0.1
    rotate: float = 0.0
    shear: float = 0.0
    flip: str = "both"
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 5.0
    flip_probability: float = 0.5

    def scaled(self, strength: Any) -> Policy:
        """Every range times ``strength`` (≥ 0), held within its limits; 0 changes no pixel.

        A float, or a float32 scalar tensor where the strength changes during training; the ranges are
        then tensors too.
        """
        least = tf.minimum if tf.is_tensor(strength) else min
        limits = {
            "crop": 0.9,
            "stretch": 1.0,
            "rotate": 180.0,
            "shear": 45.0,
            "brightness": 1.0,
            "contrast": 1.0,
            "saturation": 1.0,
            "hue": 180.0,
            "flip_probability": 0.5,
        }
        ranges = {name: least(getattr(self, name) * strength, top) for name, top in limits.items()}
        return replace(self, **ranges)

    def at(self, strength: tf.Variable | None) -> Policy:
        """``scaled`` by what ``strength`` holds when a batch is made; None leaves it as it is."""
        return self if strength is None else self.scaled(tf.identity(strength))


class Parameters(NamedTuple):
    """What was drawn for B images; every field float32 ``[B]``.

    ``scale_x``, ``scale_y``: size of the cut window as a share of the image; ``center_x``,
    ``center_y``: its middle, in [0, 1]; ``rotate``, ``shear``: radians; ``flip_x``, ``flip_y``: 1 or
    −1; ``brightness``: shift in grey levels; ``contrast``, ``saturation``: factors; ``hue``: radians.
    """

    scale_x: tf.Tensor
    scale_y: tf.Tensor
    center_x: tf.Tensor
    center_y: tf.Tensor
    rotate: tf.Tensor
    shear: tf.Tensor
    flip_x: tf.Tensor
    flip_y: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor


def draw_parameters(policy: Policy, seed: int, epoch: tf.Tensor, records: tf.Tensor) -> Parameters:
    """Draws the parameters of each record in an epoch.

    Args:
        policy: the ranges, strength already applied.
        seed: root seed of the run.
        epoch: int64 scalar, counted from 0.
        records: int64 ``[B]``, record indices; a record's draw does not depend on its batch.

    Returns:
        ``Parameters`` of float32 ``[B]``.
    """
    units = uniform(fold_seed(seed, AUGMENT, epoch), records, _DRAWS)  # [DRAWS, B] in [0, 1)
    signed = 2.0 * units - 1.0
    window = 1.0 - policy.crop * units[0]
    aspect = tf.exp(0.5 * _log1p(policy.stretch) * signed[1])
    # a stretch may widen the window past the image; then the whole side is taken
    scale_x = tf.minimum(window * aspect, 1.0)
    scale_y = tf.minimum(window / aspect, 1.0)
    flip_x, flip_y = (
        tf.where(
            units[i] < policy.flip_probability * float(policy.flip in (way, "both")), -1.0, 1.0
        )
        for i, way in ((6, "horizontal"), (7, "vertical"))
    )
    return Parameters(
        scale_x=scale_x,
        scale_y=scale_y,
        center_x=0.5 + 0.5 * (1.0 - scale_x) * signed[2],
        center_y=0.5 + 0.5 * (1.0 - scale_y) * signed[3],
        rotate=_radians(policy.rotate) * signed[4],
        shear=_radians(policy.shear) * signed[5],
        flip_x=flip_x,
        flip_y=flip_y,
        brightness=255.0 * policy.brightness * signed[8],
        contrast=1.0 + policy.contrast * signed[9],
        saturation=1.0 + policy.saturation * signed[10],
        hue=_radians(policy.hue) * signed[11],
    )


def _log1p(value: Any) -> Any:
    return tf.math.log1p(value) if tf.is_tensor(value) else math.log1p(value)


def _radians(degrees: Any) -> Any:
    return degrees * (math.pi / 180) if tf.is_tensor(degrees) else math.radians(degrees)


def uniform(seed: tf.Tensor, records: tf.Tensor, count: int) -> tf.Tensor:
    """Counter-based uniforms, float32 ``[count, B]`` in [0, 1): a hash of (seed, record, draw).

    Args:
        seed: int64 ``[2]`` from ``fold_seed``.
        records: int64 ``[B]``; a record's draws do not depend on its batch.
        count: draws a record.
    """
    draws = tf.range(1, count + 1, dtype=tf.int64)[:, None]
    top_24_bits = tf.bitwise.right_shift(
        hash_words(seed, records[None], draws), tf.constant(40, tf.uint64)
    )
    return tf.cast(top_24_bits, tf.float32) * 2.0**-24


def hash_words(seed: tf.Tensor, records: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """64 random bits for each (seed, record, draw), uint64 in the shape both broadcast to.

    TensorFlow's stateless generators take one seed a call, so a whole batch would share a draw or
    depend on its place in the batch. SplitMix64's output function (Steele, Lea and Flood 2014, with
    Stafford's mix 13 constants) over the counter gives each record its own.

    Args:
        seed: int64 ``[2]`` from ``fold_seed``.
        records, draws: int64, of shapes that broadcast.
    """
    words = tf.cast(seed, tf.uint32)
    key = tf.cast(words[0], tf.uint64) * (1 << 32) + tf.cast(words[1], tf.uint64)
    record_keys = _mix64(key + tf.cast(records, tf.uint64) * 0x9E3779B97F4A7C15)
    return _mix64(record_keys + tf.cast(draws, tf.uint64) * 0xD1342543DE82EF95)


def _mix64(value: tf.Tensor) -> tf.Tensor:
    def shifted(v: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(v, tf.bitwise.right_shift(v, tf.constant(bits, tf.uint64)))

    value = shifted(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    value = shifted(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return shifted(value, 31)
