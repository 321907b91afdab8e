"""The augmentation policy: draw parameters from a seed, apply them as one resample and one matrix.

Drawing and applying are apart. ``draw_parameters`` is a pure function of (seed, epoch, record), so any
sample can be drawn again to look at it; ``augment_images`` is deterministic and takes literal
parameters. ``reference_ops`` says the same in separate steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import tensorflow as tf

from seedtf.data.order import AUGMENT, fold_seed

__all__ = [
    "FLIPS",
    "RGB_TO_YIQ",
    "YIQ_TO_RGB",
    "Parameters",
    "Policy",
    "affine_matrices",
    "augment_images",
    "color_matrices",
    "compile_augmentation",
    "draw_parameters",
    "recolor_images",
    "resample_images",
]

FLIPS = ("none", "horizontal", "vertical", "both")

# NTSC 1953, the constants of tf.image.rgb_to_yiq, and its exact inverse
RGB_TO_YIQ = (
    (0.299, 0.587, 0.114),
    (0.59590059, -0.27455667, -0.32134392),
    (0.21153661, -0.52273617, 0.31119955),
)
YIQ_TO_RGB = (
    (1.0, 0.95598634, 0.6208248),
    (1.0, -0.27201283, -0.64720424),
    (1.0, -1.10674021, 1.70423049),
)
_MID_GREY = 127.5
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

    def scaled(self, strength: float) -> Policy:
        """Every range times ``strength`` (≥ 0), held within its limits; 0 changes no pixel."""
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
        ranges = {name: min(getattr(self, name) * strength, top) for name, top in limits.items()}
        return replace(self, **ranges)


class Parameters(NamedTuple):
    """What was drawn for B images; every field float32 ``[B]``.

    ``scale_x``, ``scale_y``: size of the cut window as a share of the picture; ``center_x``,
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
    uniform = _uniform(fold_seed(seed, AUGMENT, epoch), records)  # [DRAWS, B] in [0, 1)
    signed = 2.0 * uniform - 1.0
    window = 1.0 - policy.crop * uniform[0]
    aspect = tf.exp(0.5 * math.log1p(policy.stretch) * signed[1])
    # a stretch may widen the window past the picture; then the whole side is taken
    scale_x = tf.minimum(window * aspect, 1.0)
    scale_y = tf.minimum(window / aspect, 1.0)
    flip_x, flip_y = (
        tf.where(uniform[i] < policy.flip_probability * (policy.flip in (way, "both")), -1.0, 1.0)
        for i, way in ((6, "horizontal"), (7, "vertical"))
    )
    return Parameters(
        scale_x=scale_x,
        scale_y=scale_y,
        center_x=0.5 + 0.5 * (1.0 - scale_x) * signed[2],
        center_y=0.5 + 0.5 * (1.0 - scale_y) * signed[3],
        rotate=math.radians(policy.rotate) * signed[4],
        shear=math.radians(policy.shear) * signed[5],
        flip_x=flip_x,
        flip_y=flip_y,
        brightness=255.0 * policy.brightness * signed[8],
        contrast=1.0 + policy.contrast * signed[9],
        saturation=1.0 + policy.saturation * signed[10],
        hue=math.radians(policy.hue) * signed[11],
    )


def affine_matrices(
    parameters: Parameters, in_size: tuple[int, int], out_size: tuple[int, int]
) -> tf.Tensor:
    """The map from output to input pixel coordinates: float32 ``[B, 2, 3]``, rows x then y.

    About the window's middle: flip, then shear, then rotate, then scale to the window. With
    coordinates at pixel centres, an output pixel ``(u, v)`` reads the input at
    ``x = a·u + b·v + c``, ``y = d·u + e·v + f``.

    Args:
        parameters: float32 ``[B]`` each.
        in_size, out_size: (height, width) in pixels.
    """
    p = parameters
    (in_h, in_w), (out_h, out_w) = in_size, out_size
    cos, sin, tan = tf.cos(p.rotate), tf.sin(p.rotate), tf.tan(p.shear)
    # [cos −sin; sin cos] · [1 tan; 0 1] · diag(flip), in units of the output's half side
    xx, xy = cos * p.flip_x, (cos * tan - sin) * p.flip_y
    yx, yy = sin * p.flip_x, (sin * tan + cos) * p.flip_y
    a, b = p.scale_x * xx * (in_w / out_w), p.scale_x * xy * (in_w / out_h)
    d, e = p.scale_y * yx * (in_h / out_w), p.scale_y * yy * (in_h / out_h)
    mid_u, mid_v = (out_w - 1) / 2, (out_h - 1) / 2
    c = p.center_x * in_w - 0.5 - a * mid_u - b * mid_v
    f = p.center_y * in_h - 0.5 - d * mid_u - e * mid_v
    return tf.stack([tf.stack([a, b, c], -1), tf.stack([d, e, f], -1)], -2)


def color_matrices(parameters: Parameters) -> tf.Tensor:
    """One affine map of RGB per image: float32 ``[B, 3, 4]``, the last column an offset.

    Saturation scales and hue turns the chroma plane of YIQ (as TensorFlow Addons'
    ``adjust_hsv_in_yiq``); contrast scales about mid-grey; brightness shifts.
    """
    p = parameters
    to_yiq, to_rgb = tf.constant(RGB_TO_YIQ), tf.constant(YIQ_TO_RGB)
    one, zero = tf.ones_like(p.hue), tf.zeros_like(p.hue)
    cos, sin = p.saturation * tf.cos(p.hue), p.saturation * tf.sin(p.hue)
    rows = ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))
    chroma = tf.stack([tf.stack(row, -1) for row in rows], -2)  # [B, 3, 3]
    linear = p.contrast[:, None, None] * tf.einsum("ij,bjk,kl->bil", to_rgb, chroma, to_yiq)
    offset = (1.0 - p.contrast) * _MID_GREY + p.brightness
    return tf.concat([linear, tf.tile(offset[:, None, None], [1, 3, 1])], -1)


def resample_images(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """The geometry: one bilinear resample; outside the picture its mirror image is seen.

    Args:
        images: uint8 ``[B, h, w, 3]``, at least 2×2 pixels.
        parameters: float32 ``[B]`` each.
        out_size: (height, width) of the result.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    _, in_h, in_w, _ = images.shape
    matrices = affine_matrices(parameters, (in_h, in_w), out_size)[:, :, :, None, None]
    u = tf.range(out_size[1], dtype=tf.float32)[None, None, :]
    v = tf.range(out_size[0], dtype=tf.float32)[None, :, None]
    x = _mirror(matrices[:, 0, 0] * u + matrices[:, 0, 1] * v + matrices[:, 0, 2], in_w)
    y = _mirror(matrices[:, 1, 0] * u + matrices[:, 1, 1] * v + matrices[:, 1, 2], in_h)
    # the last row and column are reached with weight 1 from the one before
    column, row = (tf.minimum(tf.cast(c, tf.int32), n - 2) for c, n in ((x, in_w), (y, in_h)))
    wx = (x - tf.cast(column, tf.float32))[..., None]  # [B, H, W, 1]
    wy = (y - tf.cast(row, tf.float32))[..., None]
    picture = tf.broadcast_to(tf.range(tf.shape(images)[0])[:, None, None], tf.shape(column))

    def pixels(down: int, right: int) -> tf.Tensor:
        place = tf.stack([picture, row + down, column + right], axis=-1)
        return tf.cast(tf.gather_nd(images, place), tf.float32)

    upper = _blend(pixels(0, 0), pixels(0, 1), wx)
    lower = _blend(pixels(1, 0), pixels(1, 1), wx)
    return _blend(upper, lower, wy)


def recolor_images(images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
    """The colours: one 3×4 matrix per image, clipped; float32 ``[B, H, W, 3]`` in 0–255 both ways."""
    color = color_matrices(parameters)[:, None, None]  # [B, 1, 1, 3, 4]
    red, green, blue = tf.unstack(images[..., None, :], axis=-1)  # each [B, H, W, 1]
    # spelt out: three multiply-adds fuse into one pass where a tiny matrix product does not
    mixed = red * color[..., 0] + green * color[..., 1] + blue * color[..., 2] + color[..., 3]
    return tf.clip_by_value(mixed, 0.0, 255.0)


def augment_images(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """Applies drawn parameters: ``resample_images``, then ``recolor_images``.

    Args:
        images: uint8 ``[B, h, w, 3]``, RGB, at least 2×2 pixels.
        parameters: float32 ``[B]`` each.
        out_size: (height, width) of the result.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    return recolor_images(resample_images(images, parameters, out_size), parameters)


def compile_augmentation(
    policy: Policy, seed: int, out_size: tuple[int, int]
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Joins drawing and applying into one function for ``Dataset.map``, compiled with XLA.

    The two stages are compiled apart: in one module XLA's CPU fusion repeats the resample for each
    output channel, which takes twice as long.

    Args:
        policy: the ranges, strength already applied.
        seed: root seed of the run.
        out_size: (height, width) of the result.

    Returns:
        ``(images uint8 [B, h, w, 3], epoch int64 [], records int64 [B]) → float32 [B, H, W, 3]``.
    """
    recolor = tf.function(recolor_images, jit_compile=True, autograph=False)

    @tf.function(jit_compile=True, autograph=False)
    def resample(images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return resample_images(images, parameters, out_size)

    def augment(images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
        parameters = draw_parameters(policy, seed, epoch, records)
        return recolor(resample(images, parameters), parameters)

    return augment


def _blend(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * weight


def _mirror(position: tf.Tensor, size: int) -> tf.Tensor:
    """Folds coordinates into ``[0, size − 1]`` at the outer pixel edges (d c b a | a b c d | d c …).

    Folds once to either side: no policy reaches further than one picture beyond the edge, and what
    did would see the edge itself.
    """
    folded = size - tf.abs(size - tf.abs(position + 0.5)) - 0.5
    return tf.clip_by_value(folded, 0.0, float(size - 1))


def _uniform(seed: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
    """Counter-based uniforms, float32 ``[_DRAWS, B]`` in [0, 1): a hash of (seed, record, draw).

    TensorFlow's stateless generators take one seed a call, so a whole batch would share a draw or
    depend on its place in the batch. SplitMix64's output function (Steele, Lea and Flood 2014, with
    Stafford's mix 13 constants) over the counter gives each record its own.
    """
    words = tf.cast(seed, tf.uint32)
    key = tf.cast(words[0], tf.uint64) * (1 << 32) + tf.cast(words[1], tf.uint64)
    record_keys = _mix64(key + tf.cast(records, tf.uint64) * 0x9E3779B97F4A7C15)  # [B]
    draws = tf.range(1, _DRAWS + 1, dtype=tf.int64)[:, None]
    counters = record_keys[None] + tf.cast(draws, tf.uint64) * 0xD1342543DE82EF95
    top_24_bits = tf.bitwise.right_shift(_mix64(counters), tf.constant(40, tf.uint64))
    return tf.cast(top_24_bits, tf.float32) * 2.0**-24


def _mix64(value: tf.Tensor) -> tf.Tensor:
    def shifted(v: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(v, tf.bitwise.right_shift(v, tf.constant(bits, tf.uint64)))

    value = shifted(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    value = shifted(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return shifted(value, 31)
