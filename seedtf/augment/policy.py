"""The augmentation policy (the range of each operation), and the parameters drawn within its ranges.

``draw_parameters`` is a pure function of policy, seed, epoch and record (the index of an image), so the
parameters of any image can be drawn again later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import tensorflow as tf

from seedtf.seeds import AUGMENT, epoch_seed, uniform

__all__ = ["Parameters", "Policy", "draw_parameters", "draw_uniforms", "make_parameters"]

_NUM_UNIFORMS = 12  # random numbers per image


@dataclass(frozen=True)
class Policy:
    """The range of each random operation; 0, or ``none`` for ``flip``, switches the operation off.

    Attributes:
        crop: largest fraction c of each side that is cropped away, in [0, 0.9], before the stretch.
        stretch: largest relative change s of the aspect ratio, in [0, 1]: width/height changes by a
            factor in [1/(1+s), 1+s]. For that, one side is cropped further: of a side,
            (1−c)/√(1+s) or more is left.
        rotate: largest angle in either direction, degrees in [0, 180].
        shear: largest shear angle in either direction, degrees in [0, 45].
        flip: ``none``, ``horizontal``, ``vertical`` or ``both``, where the two are drawn independently.
        brightness: largest shift in either direction, as a fraction of the full range, in [0, 1].
        contrast: c in [0, 1]; differences from mid-grey are multiplied by a factor in [1 − c, 1 + c].
        saturation: s in [0, 1]; the saturation is multiplied by a factor in [1 − s, 1 + s].
        hue: largest rotation of the hue in either direction, degrees in [0, 180].
        flip_probability: the probability of each flip that ``flip`` allows, in [0, 0.5].

    Example:
        >>> Policy(rotate=30.0).scaled(0.5).rotate
        15.0
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
        """The policy with every range multiplied by ``strength`` and clipped to its limits.

        Args:
            strength: 0 (no augmentation) or more. A float, or a float32 scalar tensor if the strength
                changes during training; the ranges of the result are then tensors too.
        """
        minimum = tf.minimum if tf.is_tensor(strength) else min
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
        ranges = {
            name: minimum(getattr(self, name) * strength, limit) for name, limit in limits.items()
        }
        return replace(self, **ranges)

    def at(self, strength: tf.Variable | None) -> Policy:
        """The policy scaled by the current value of ``strength``; this policy itself for None."""
        return self if strength is None else self.scaled(tf.identity(strength))


class Parameters(NamedTuple):
    """The random parameters of B images; every field is float32 ``[B]``.

    Attributes:
        scale_x, scale_y: size of the crop window, as a fraction of the image.
        center_x, center_y: centre of the crop window, as a fraction of the image.
        rotate, shear: angles in radians.
        flip_x, flip_y: −1 for a flip, otherwise 1.
        brightness: shift in grey levels.
        contrast, saturation: factors.
        hue: angle in radians.
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
        policy: the ranges, already scaled by the strength.
        seed: root seed of the run.
        epoch: int64 scalar, counted from 0.
        records: int64 ``[B]``, record indices; the parameters of a record do not depend on the batch
            that it is in.

    Returns:
        ``Parameters`` of float32 ``[B]``.

    Example:
        >>> epoch, records = tf.constant(0, tf.int64), tf.constant([7, 8], tf.int64)
        >>> parameters = draw_parameters(Policy(flip="none"), 0, epoch, records)
        >>> parameters.flip_x.numpy().tolist()
        [1.0, 1.0]
        >>> alone = draw_parameters(Policy(flip="none"), 0, epoch, records[1:])
        >>> bool(alone.hue[0] == parameters.hue[1])
        True
    """
    return make_parameters(policy, draw_uniforms(seed, epoch, records))


def draw_uniforms(seed: int, epoch: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
    """Draws twelve uniform numbers for each record in an epoch: float32 ``[12, B]`` in [0, 1).

    The numbers are computed with integers and are multiples of 2⁻²⁴. Every device therefore computes
    the same bits, with and without XLA. See ``draw_parameters`` for the arguments.
    """
    return uniform(epoch_seed(seed, AUGMENT, epoch), records, _NUM_UNIFORMS)


def make_parameters(policy: Policy, uniforms: tf.Tensor) -> Parameters:
    """Turns the result of ``draw_uniforms`` into parameters within the ranges of a policy."""
    signed = 2.0 * uniforms - 1.0  # uniform in [−1, 1)
    window = 1.0 - policy.crop * uniforms[0]
    aspect = tf.exp(0.5 * _log1p(policy.stretch) * signed[1])
    # Stretching must not make a side of the crop window longer than that of the image.
    scale_x = tf.minimum(window * aspect, 1.0)
    scale_y = tf.minimum(window / aspect, 1.0)
    flip_x, flip_y = (
        tf.where(
            uniforms[i] < policy.flip_probability * float(policy.flip in (direction, "both")),
            -1.0,
            1.0,
        )
        for i, direction in ((6, "horizontal"), (7, "vertical"))
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
