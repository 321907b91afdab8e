"""The augmentation: drawn parameters applied as one resample and one matrix.

Drawing (``draws``) and applying are apart: ``augment_images`` is deterministic and takes literal
parameters. ``reference_ops`` says the same in separate steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from seedtf.data.draws import Parameters, Policy, draw_parameters

__all__ = [
    "RGB_TO_YIQ",
    "YIQ_TO_RGB",
    "Sampling",
    "affine_matrices",
    "augment_images",
    "color_matrices",
    "compile_augmentation",
    "pack_pixels",
    "resample_and_recolor",
    "sample_positions",
]

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
    x = _mirror(_affine(matrices[:, 0], u, v), in_w)
    y = _mirror(_affine(matrices[:, 1], u, v), in_h)
    # the last row and column are reached with weight 1 from the one before
    column, row = (tf.minimum(tf.cast(c, tf.int32), n - 2) for c, n in ((x, in_w), (y, in_h)))
    picture = tf.range(tf.shape(x)[0])[:, None, None]
    return Sampling(
        place=_weighed_sum(tf.stack([picture * in_h + row, column], -1), [in_w, 1]),
        weight_x=x - tf.cast(column, tf.float32),
        weight_y=y - tf.cast(row, tf.float32),
    )


def pack_pixels(images: tf.Tensor) -> tf.Tensor:
    """RGB uint8 ``[B, h, w, 3]`` → uint32 ``[B·h·w]``, red in the lowest byte: one load a pixel."""
    return _weighed_sum(tf.cast(tf.reshape(images, [-1, 3]), tf.uint32), [1, 1 << 8, 1 << 16])


def resample_and_recolor(
    packed: tf.Tensor, width: int, sampling: Sampling, colors: tf.Tensor
) -> tf.Tensor:
    """One bilinear resample, then one 3×4 matrix per image, clipped.

    Args:
        packed: uint32 ``[B·h·w]`` from ``pack_pixels``, fewer than 2³¹ pixels in all.
        width: ``w``.
        sampling: from ``sample_positions``.
        colors: float32 ``[B, 3, 4]`` from ``color_matrices``.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    pixels = packed[:, None]
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
    return resample_and_recolor(pack_pixels(images), in_w, sampling, color_matrices(parameters))


def compile_augmentation(
    policy: Policy,
    seed: int,
    out_size: tuple[int, int],
    strength: tf.Variable | None = None,
    *,
    whole_batch: bool = False,
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Joins drawing and applying into one function, for ``Dataset.map`` or a train step.

    A CPU takes one picture after the other, so that its packed pixels and positions are still in the
    core's cache when they are read. A GPU takes the whole batch, which is enough work for all of it.

    Args:
        policy: the ranges, strength already applied.
        seed: root seed of the run.
        out_size: (height, width) of the result.
        strength: float32 scalar, a factor on every range that is read at each batch; None for 1.
        whole_batch: for a GPU; the pixels are the same to rounding.

    Returns:
        ``(images uint8 [B, h, w, 3], epoch int64 [], records int64 [B]) → float32 [B, H, W, 3]``.
    """

    def apply_to_one(one: tuple[tf.Tensor, Parameters]) -> tf.Tensor:
        image, parameters = tf.nest.map_structure(lambda value: value[None], one)
        return augment_images(image, parameters, out_size)[0]

    @tf.function(jit_compile=True, autograph=False)
    def apply(images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        if whole_batch:
            return augment_images(images, parameters, out_size)
        result = tf.TensorSpec([*out_size, 3], tf.float32)
        return tf.map_fn(apply_to_one, (images, parameters), fn_output_signature=result)

    def augment(images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
        return apply(images, draw_parameters(policy.at(strength), seed, epoch, records))

    return augment


def _bits(count: int) -> tf.Tensor:
    return tf.constant(count, tf.uint32)


def _weighed_sum(terms: tf.Tensor, factors: list[int]) -> tf.Tensor:
    """``Σ terms[..., i] · factors[i]``, as a reduction, which XLA computes once and keeps in memory.

    A sum that is spelt out it would fuse into each of the four gathers: every pixel would be packed
    four times over, and processors without AVX-512 would work out one address at a time.
    """
    return tf.reduce_sum(terms * tf.constant(factors, terms.dtype), axis=-1)


def _byte(packed: tf.Tensor, bits: int) -> tf.Tensor:
    """The byte above ``bits`` as float32; through int32, for which processors have an instruction."""
    byte = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, _bits(bits)), _bits(255))
    return tf.cast(tf.cast(byte, tf.int32), tf.float32)


def _blend(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * weight


def _affine(row: tf.Tensor, u: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    """``row[:, 0]·u + row[:, 1]·v + row[:, 2]``, the same number in whichever pass it is computed.

    XLA works out places in one pass and weights in another, and may round a product in one of them
    alone. A position beside a whole number would then be cut off to one pixel and weighed for the
    next. So no product here needs rounding: a factor of 24 bits is split into halves, and ``u`` and
    ``v`` are whole numbers of at most 12 bits.
    """
    (a, small_a), (b, small_b), shift = _halves(row[:, 0]), _halves(row[:, 1]), row[:, 2]
    return ((shift + b * v) + small_b * v) + a * u + small_a * u


def _halves(value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Two float32 of 12 significant bits each that sum to ``value``."""
    high = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(value, tf.int32), -1 << 12), tf.float32)
    return high, value - high


def _mirror(position: tf.Tensor, size: int) -> tf.Tensor:
    """Folds coordinates into ``[0, size − 1]`` at the outer pixel edges (d c b a | a b c d | d c …).

    Folds once to either side: no policy reaches further than one picture beyond the edge, and what
    did would see the edge itself.
    """
    folded = size - tf.abs(size - tf.abs(position + 0.5)) - 0.5
    return tf.clip_by_value(folded, 0.0, float(size - 1))
