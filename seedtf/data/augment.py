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
    "Sampling",
    "affine_matrices",
    "augment_images",
    "color_matrices",
    "compile_augmentation",
    "draw_parameters",
    "pack_pixels",
    "resample_and_recolor",
    "sample_positions",
]

FLIPS = ("none", "horizontal", "vertical", "both")

# the constants of TensorFlow Addons' adjust_hsv_in_yiq: NTSC rounded to three places, and the inverse
# of that. tf.image.rgb_to_yiq does not round; the two part by up to one grey level at a half turn.
RGB_TO_YIQ = (
    (0.299, 0.587, 0.114),
    (0.596, -0.274, -0.322),
    (0.211, -0.523, 0.312),
)
YIQ_TO_RGB = (
    (1.0, 0.95617069, 0.62143257),
    (1.0, -0.2726886, -0.64681324),
    (1.0, -1.103744, 1.70062309),
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


class Sampling(NamedTuple):
    """Where B resampled images read; each ``[B, H, W]``.

    ``place`` int32: the upper left of four neighbours, counted through all pixels of the batch;
    ``weight_x``, ``weight_y`` float32 in [0, 1]: the share of the right and of the lower ones.
    """

    place: tf.Tensor
    weight_x: tf.Tensor
    weight_y: tf.Tensor


def sample_positions(
    parameters: Parameters, in_size: tuple[int, int], out_size: tuple[int, int]
) -> Sampling:
    """The geometry: where each pixel of the result reads; beyond the edge the mirror image is seen.

    Args:
        parameters: float32 ``[B]`` each.
        in_size, out_size: (height, width) in pixels.
    """
    in_h, in_w = in_size
    matrices = affine_matrices(parameters, in_size, out_size)[:, :, :, None, None]
    u = tf.range(out_size[1], dtype=tf.float32)[None, None, :]
    v = tf.range(out_size[0], dtype=tf.float32)[None, :, None]
    x = _mirror(matrices[:, 0, 0] * u + matrices[:, 0, 1] * v + matrices[:, 0, 2], in_w)
    y = _mirror(matrices[:, 1, 0] * u + matrices[:, 1, 1] * v + matrices[:, 1, 2], in_h)
    # the last row and column are reached with weight 1 from the one before
    column, row = (tf.minimum(tf.cast(c, tf.int32), n - 2) for c, n in ((x, in_w), (y, in_h)))
    picture = tf.range(tf.shape(x)[0])[:, None, None]
    return Sampling(
        place=(picture * in_h + row) * in_w + column,
        weight_x=x - tf.cast(column, tf.float32),
        weight_y=y - tf.cast(row, tf.float32),
    )


def pack_pixels(images: tf.Tensor) -> tf.Tensor:
    """RGB uint8 ``[B, h, w, 3]`` → uint32 ``[B, h, w]``, red in the lowest byte: one load a pixel."""
    red, green, blue = tf.unstack(tf.cast(images, tf.uint32), axis=-1)
    return red + tf.bitwise.left_shift(green, _bits(8)) + tf.bitwise.left_shift(blue, _bits(16))


def resample_and_recolor(packed: tf.Tensor, sampling: Sampling, colors: tf.Tensor) -> tf.Tensor:
    """One bilinear resample, then one 3×4 matrix per image, clipped.

    Args:
        packed: uint32 ``[B, h, w]`` from ``pack_pixels``, fewer than 2³¹ pixels in all.
        sampling: from ``sample_positions``.
        colors: float32 ``[B, 3, 4]`` from ``color_matrices``.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    width = packed.shape[2]
    pixels = tf.reshape(packed, [-1, 1])
    count = tf.shape(pixels)[0] - width - 1

    def neighbours(offset: int) -> tf.Tensor:
        # Two things that only speed needs: all four gathers share one index, which XLA then clamps
        # once; and the table has three equal columns, so that XLA need not spread the result over
        # the channels, for which it would write every gather to memory.
        table = tf.broadcast_to(pixels[offset : offset + count], [count, 3])
        return tf.gather(table, sampling.place)

    corners = [neighbours(offset) for offset in (0, 1, width, width + 1)]
    weight_x, weight_y = sampling.weight_x[..., None], sampling.weight_y[..., None]

    def channel(bits: int) -> tf.Tensor:
        a, b, c, d = (_byte(corner, bits) for corner in corners)
        return _blend(_blend(a, b, weight_x), _blend(c, d, weight_x), weight_y)

    rows = colors[:, None, None]  # [B, 1, 1, 3, 4]
    # spelt out: three multiply-adds fuse into one pass where a tiny matrix product does not
    mixed = channel(0) * rows[..., 0] + channel(8) * rows[..., 1] + channel(16) * rows[..., 2]
    return tf.clip_by_value(mixed + rows[..., 3], 0.0, 255.0)


def augment_images(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """Applies drawn parameters: one resample and one colour matrix.

    Args:
        images: uint8 ``[B, h, w, 3]``, RGB, at least 2×2 pixels; fewer than 2³¹ pixels in all.
        parameters: float32 ``[B]`` each.
        out_size: (height, width) of the result.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    _, in_h, in_w, _ = images.shape
    sampling = sample_positions(parameters, (in_h, in_w), out_size)
    return resample_and_recolor(pack_pixels(images), sampling, color_matrices(parameters))


def compile_augmentation(
    policy: Policy, seed: int, out_size: tuple[int, int]
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Joins drawing and applying into one function, for ``Dataset.map`` or a train step.

    Two stages are compiled with XLA, apart: in one module XLA's CPU fusion would compute the
    positions and pack the pixels anew for every neighbour that is read. Inside a compiled train
    step both become part of that.

    Args:
        policy: the ranges, strength already applied.
        seed: root seed of the run.
        out_size: (height, width) of the result.

    Returns:
        ``(images uint8 [B, h, w, 3], epoch int64 [], records int64 [B]) → float32 [B, H, W, 3]``.
    """
    finish = tf.function(resample_and_recolor, jit_compile=True, autograph=False)

    @tf.function(jit_compile=True, autograph=False)
    def prepare(images: tf.Tensor, parameters: Parameters) -> tuple[tf.Tensor, Sampling, tf.Tensor]:
        _, in_h, in_w, _ = images.shape
        sampling = sample_positions(parameters, (in_h, in_w), out_size)
        return pack_pixels(images), sampling, color_matrices(parameters)

    def augment(images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
        return finish(*prepare(images, draw_parameters(policy, seed, epoch, records)))

    return augment


def _bits(count: int) -> tf.Tensor:
    return tf.constant(count, tf.uint32)


def _byte(packed: tf.Tensor, bits: int) -> tf.Tensor:
    """The byte above ``bits`` as float32; through int32, for which processors have an instruction."""
    byte = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, _bits(bits)), _bits(255))
    return tf.cast(tf.cast(byte, tf.int32), tf.float32)


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
