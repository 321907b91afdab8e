"""The augmentation policy (the range of each operation), and the parameters drawn within its ranges.

``draw_parameters`` is a pure function of the policy, the seed, the epoch, and the index of an image,
its record. So the parameters of any image can be drawn again later.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import tensorflow as tf

from seedtf.augment import FLIPS, LIMITS
from seedtf.errors import UserError
from seedtf.seeds import AUGMENT, epoch_seed, uniform

__all__ = ["Parameters", "Policy", "draw_parameters", "draw_uniforms", "make_parameters"]

_NUM_UNIFORMS = 12  # random numbers per image


@dataclass(frozen=True)
class Policy:
    """The range of each random operation; 0, or ``none`` for ``flip``, switches the operation off.

    Attributes:
        crop: largest fraction c of each side that is cropped away before the stretch, in [0, 0.9].
        stretch: largest relative change s of the aspect ratio, in [0, 1]. Width divided by height
            changes by a factor in [1/(1+s), 1+s]. To change it, one side is cropped further, to a
            fraction of at least (1−c)/√(1+s) of the side.
        rotate: largest angle in either direction, degrees in [0, 180].
        shear: largest shear angle in either direction, degrees in [0, 45].
        flip: the directions of flips: ``none``, ``horizontal``, ``vertical`` or ``both``. With
            ``both``, the two flips are drawn independently.
        brightness: largest shift in either direction, as a fraction of the full range, in [0, 1].
        contrast: largest relative change c, in [0, 1]: the difference from mid-grey is multiplied by a
            factor in [1 − c, 1 + c].
        saturation: largest relative change s, in [0, 1]: the saturation is multiplied by a factor in
            [1 − s, 1 + s].
        hue: largest rotation of the hue in either direction, degrees in [0, 180].
        flip_probability: the probability of each flip that ``flip`` allows, in [0, 0.5].
        zoom_out: largest fraction by which the crop window is larger than the image, in [0, 0.2]. The
            image is then shrunk, and its mirror image fills the rest of the window. With
            ``zoom_out = crop``, objects have on average the same size in training as in evaluation.

    Raises:
        UserError: a range is not a number within its limits, or ``flip`` is none of the four words.

    Example:
        >>> Policy(rotate=30.0).scaled(0.5).rotate
        15.0
    """

    crop: float = 0.1
    stretch: float = 0.1
    rotate: float = 0.0
    shear: float = 0.0
    flip: str = "both"
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 5.0
    flip_probability: float = 0.5
    zoom_out: float = 0.1

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if tf.is_tensor(value):  # from `scaled`, which clips
                continue
            if not isinstance(value, numbers.Real) or not 0.0 <= float(value) <= limit:
                raise UserError(f"Augment({name}={value!r}): pass a number from 0 to {limit:g}")
        if self.flip not in FLIPS:
            raise UserError(f"Augment(flip={self.flip!r}): choose from {', '.join(FLIPS)}")

    def scaled(self, strength: Any) -> Policy:
        """The policy with every range multiplied by ``strength`` and clipped to its limits.

        Args:
            strength: a float, 0 (no augmentation) or more. If the strength changes during training, it
                is a float32 scalar tensor, and the ranges of the result are tensors, too.
        """
        minimum = tf.minimum if tf.is_tensor(strength) else min
        ranges = {
            name: minimum(getattr(self, name) * strength, limit) for name, limit in LIMITS.items()
        }
        return replace(self, **ranges)

    def at(self, strength: tf.Variable | None) -> Policy:
        """The policy scaled by the current value of ``strength``; for None, the policy itself."""
        return self if strength is None else self.scaled(tf.identity(strength))


class Parameters(NamedTuple):
    """The random parameters of B images; every field is float32 ``[B]``.

    Attributes:
        scale_x, scale_y: width and height of the crop window as fractions of the image; above 1, the
            window is larger than the image.
        center_x, center_y: centre of the crop window as fractions of the image.
        rotate, shear: angles in radians.
        flip_x, flip_y: −1 to flip the image in this direction, 1 not to flip it.
        brightness: shift in grey levels.
        contrast, saturation: the factors of the contrast and of the saturation.
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
    """The random parameters of each image in an epoch.

    Args:
        policy: the ranges, already scaled by the strength.
        seed: root seed of the run.
        epoch: int64 scalar, from 0.
        records: int64 ``[B]``, the indices of the images. The parameters of an image do not depend on
            the other images.

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
    """Twelve uniform random numbers for each image in an epoch: float32 ``[12, B]`` in [0, 1).

    The numbers are computed with integers and are multiples of 2⁻²⁴. Therefore every device computes
    the same bits, with and without XLA. The arguments are those of ``draw_parameters``.
    """
    return uniform(epoch_seed(seed, AUGMENT, epoch), records, _NUM_UNIFORMS)


def make_parameters(policy: Policy, uniforms: tf.Tensor) -> Parameters:
    """Parameters within the ranges of ``policy``, from the result of ``draw_uniforms``."""
    signed = 2.0 * uniforms - 1.0  # uniform in [−1, 1)
    largest = 1.0 + policy.zoom_out
    window = largest - (policy.crop + policy.zoom_out) * uniforms[0]
    aspect = tf.exp(0.5 * _log1p(policy.stretch) * signed[1])
    # Stretching must not make a side of the crop window longer than the largest window.
    scale_x = tf.minimum(window * aspect, largest)
    scale_y = tf.minimum(window / aspect, largest)
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
