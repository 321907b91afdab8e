"""The augmentation: drawn parameters applied as one resample and one matrix.

Drawing (``draws``) and applying are apart: ``augment_images`` is deterministic and takes literal
parameters. ``reference_ops`` says the same in separate steps.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from seedtf.augment.policy import Parameters, Policy, draw_parameters
from seedtf.compat.tensorflow import uninitialized_output

__all__ = [
    "RGB_TO_YIQ",
    "YIQ_TO_RGB",
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
# of a position: a float32 has no more within an image of 256 pixels
_FRACTION_BITS = 16


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


def sample_positions(
    matrices: tf.Tensor, in_size: tuple[int, int], out_size: tuple[int, int]
) -> tf.Tensor:
    """The geometry: where each pixel of the result reads; beyond the edge the mirror image is seen.

    In whole 65,536ths of a pixel, so that place and weights follow from one number, whichever pass
    works them out: they would part where a compiler rounds a position in one pass alone.

    Args:
        matrices: float32 ``[B, 2, 3]`` from ``affine_matrices``.
        in_size, out_size: (height, width) in pixels, at most 32,767.

    Returns:
        int32 ``[2, B, H, W]``: x, then y.
    """
    (in_h, in_w), (out_h, out_w) = in_size, out_size
    rows = tf.transpose(matrices, [2, 1, 0])[..., None, None]
    u = tf.range(out_w, dtype=tf.float32)
    v = tf.range(out_h, dtype=tf.float32)[:, None]
    sides = tf.constant([in_w, in_h], tf.float32)[:, None, None, None]
    mirrored = _mirror((rows[2] + rows[1] * v) + rows[0] * u, sides)
    position = tf.cast(mirrored * (1 << _FRACTION_BITS), tf.int32)
    last = tf.constant([(side - 1) << _FRACTION_BITS for side in (in_w, in_h)])[:, None, None, None]
    return _kept_minimum(position, last)


def pack_pixels(images: tf.Tensor) -> tf.Tensor:
    """RGB uint8 ``[B, h, w, 3]`` → uint32 ``[B·h·w]``, red in the lowest byte: one load a pixel."""
    return _weighed_sum(tf.cast(tf.reshape(images, [-1, 3]), tf.uint32), [1, 1 << 8, 1 << 16])


def resample_and_recolor(
    packed: tf.Tensor, in_size: tuple[int, int], positions: tf.Tensor, colors: tf.Tensor
) -> tf.Tensor:
    """One bilinear resample, then one 3×4 matrix per image, clipped.

    Args:
        packed: uint32 ``[B·h·w]`` from ``pack_pixels``, fewer than 2³¹ pixels in all.
        in_size: (h, w).
        positions: from ``sample_positions``.
        colors: float32 ``[B, 3, 4]`` from ``color_matrices``.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    height, width = in_size
    column, weight_x = _split(positions[0], width)
    row, weight_y = _split(positions[1], height)
    image = tf.range(tf.shape(positions)[1])[:, None, None]
    place = (image * height + row) * width + column
    pixels = packed[:, None]
    count = tf.shape(pixels)[0] - width - 1

    def neighbours(offset: int) -> tf.Tensor:
        # Two things that only speed needs: all four gathers share one index, which XLA then clamps
        # once; and the table has three equal columns, so that XLA need not spread the result over
        # the channels, for which it would write every gather to memory.
        table = tf.broadcast_to(pixels[offset : offset + count], [count, 3])
        return tf.gather(table, place)

    corners = [neighbours(offset) for offset in (0, 1, width, width + 1)]
    weight_x, weight_y = weight_x[..., None], weight_y[..., None]

    def channel(bits: int) -> tf.Tensor:
        a, b, c, d = (_byte(corner, bits) for corner in corners)
        return _blend(_blend(a, b, weight_x), _blend(c, d, weight_x), weight_y)

    rows = colors[:, None, None]  # [B, 1, 1, 3, 4]
    # spelt out: three multiply-adds fuse into one pass where a tiny matrix product does not
    mixed = rows[..., 3] + channel(0) * rows[..., 0]
    mixed = (mixed + channel(8) * rows[..., 1]) + channel(16) * rows[..., 2]
    return tf.clip_by_value(mixed, 0.0, 255.0)


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
    _, height, width, _ = images.shape
    matrices = affine_matrices(parameters, (height, width), out_size)
    positions = sample_positions(matrices, (height, width), out_size)
    colors = color_matrices(parameters)
    return resample_and_recolor(pack_pixels(images), (height, width), positions, colors)


def compile_augmentation(
    policy: Policy,
    seed: int,
    out_size: tuple[int, int],
    strength: tf.Variable | None = None,
    *,
    whole_batch: bool = False,
    deterministic: bool = False,
) -> Callable[..., tf.Tensor]:
    """Joins drawing and applying into one function, for ``Dataset.map`` or a train step.

    A CPU takes one image after the other, so that its packed pixels and positions are still in the
    core's cache when they are read. A GPU takes the whole batch, which is enough work for all of it.

    Args:
        policy: the ranges, strength already applied.
        seed: root seed of the run.
        out_size: (height, width) of the result.
        strength: float32 scalar, a factor on every range that is read at each batch; None for 1.
        whole_batch: for a GPU; the pixels are the same to rounding.
        deterministic: where TensorFlow's operations are; it would make batches whose memory is a
            variable one after the other.

    Returns:
        ``(images uint8 [N, h, w, 3], epoch int64 [], records int64 [B], rows int64 [B] or None)
        → float32 [B, H, W, 3]``. ``rows`` says which of ``images`` the records' are, without which
        they are in the records' order; so images in memory are read where they are.
    """

    @tf.function(jit_compile=True, autograph=False)
    def at_once(images: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return augment_images(images, parameters, out_size)

    @tf.function(jit_compile=True, autograph=False)
    def one_by_one(
        images: tf.Tensor,
        rows: tf.Tensor,
        parameters: Parameters,
        result: tf.Tensor | None = None,
    ) -> tf.Tensor:
        if result is None:
            return _augment_one_by_one(images, rows, parameters, out_size)
        onto = tf.raw_ops.ReadVariableOp(resource=result, dtype=tf.float32)
        done = _augment_one_by_one(images, rows, parameters, out_size, onto)
        tf.raw_ops.AssignVariableOp(resource=result, value=done)
        return tf.size(rows)

    def augment(
        images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor, rows: tf.Tensor | None = None
    ) -> tf.Tensor:
        parameters = draw_parameters(policy.at(strength), seed, epoch, records)
        if whole_batch:
            return at_once(images if rows is None else tf.gather(images, rows), parameters)
        # images without rows may be a data service's, whose workers were not tried with variables
        if rows is None or deterministic:
            rows = tf.range(tf.size(records), dtype=tf.int64) if rows is None else rows
            return one_by_one(images, rows, parameters)
        return uninitialized_output(
            lambda result: one_by_one(images, rows, parameters, result),
            [records.shape[0], *out_size, 3],
        )

    return augment


def _augment_one_by_one(
    images: tf.Tensor,
    rows: tf.Tensor,
    parameters: Parameters,
    out_size: tuple[int, int],
    onto: tf.Tensor | None = None,
) -> tf.Tensor:
    """``augment_images`` of ``images[rows]`` in a loop, which only XLA makes worth its while.

    ``onto``, float32 ``[B, H, W, 3]``, is what the result overwrites.
    """
    count = tf.size(rows)
    results = tf.TensorArray(tf.float32, count, element_shape=[*out_size, 3])

    def step(image: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        # Matrices are built here, of one image: of a whole batch, some sines would be computed in
        # vectors, and differ in the last bit with their place in it and with XLA's flags. That is
        # also why the parameters are drawn outside of XLA.
        row, *drawn = (tf.gather(value, image)[None] for value in (rows, *parameters))
        done = augment_images(tf.gather(images, row), Parameters(*drawn), out_size)
        return image + 1, results.write(image, done[0])

    _, results = tf.while_loop(
        lambda image, _: image < count,
        step,
        (tf.constant(0), results if onto is None else results.unstack(onto)),
        maximum_iterations=count,
    )
    return results.stack()


def _bits(count: int) -> tf.Tensor:
    return tf.constant(count, tf.uint32)


def _weighed_sum(terms: tf.Tensor, factors: list[int]) -> tf.Tensor:
    """``Σ terms[..., i] · factors[i]``, as a reduction, which XLA computes once and keeps in memory.

    A sum that is spelt out it would fuse into each of the four gathers: every pixel would be packed
    four times over.
    """
    return tf.reduce_sum(terms * tf.constant(factors, terms.dtype), axis=-1)


def _kept_minimum(value: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """``minimum(value, limit)``, as a reduction for the same reason.

    Positions that are worked out between the gathers make processors without AVX-512 compute one
    address at a time.
    """
    return tf.reduce_min(tf.stack([value, tf.broadcast_to(limit, tf.shape(value))], -1), -1)


def _split(position: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The first of the two pixels that a position lies between, int32, and the second's weight.

    The last pixel is reached with weight 1 from the one before.
    """
    first = tf.minimum(tf.bitwise.right_shift(position, _FRACTION_BITS), side - 2)
    share = position - tf.bitwise.left_shift(first, _FRACTION_BITS)
    return first, tf.cast(share, tf.float32) * (1.0 / (1 << _FRACTION_BITS))


def _byte(packed: tf.Tensor, bits: int) -> tf.Tensor:
    """The byte above ``bits`` as float32; through int32, for which processors have an instruction."""
    byte = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, _bits(bits)), _bits(255))
    return tf.cast(tf.cast(byte, tf.int32), tf.float32)


def _blend(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * weight


def _mirror(position: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Folds coordinates at the outer pixel edges (d c b a | a b c d | d c …); none is below 0.

    Folds once to either side: no policy reaches further than one image beyond the edge, and what
    did would see the edge itself.
    """
    return tf.maximum(side - tf.abs(side - tf.abs(position + 0.5)) - 0.5, 0.0)
