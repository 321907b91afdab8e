"""The fused augmentation: each image is resampled once, and its colours are multiplied by one matrix.

``augment/policy.py`` draws the random parameters, and ``augment_images`` applies them.
``augment/reference.py`` computes the same result with one operation after another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from seedtf.augment.policy import Parameters, Policy, draw_uniforms, make_parameters
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

# The constants of adjust_hsv_in_yiq in TensorFlow Addons: the NTSC matrix rounded to three decimals,
# and the inverse of the rounded matrix. tf.image.rgb_to_yiq uses the matrix without rounding; after a
# rotation of the hue by 180 degrees, its result differs by up to one grey level.
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
# Number of fractional bits of a pixel position. A float32 between 128 and 256 has as many.
_FRACTION_BITS = 16


def affine_matrices(
    parameters: Parameters, in_size: tuple[int, int], out_size: tuple[int, int]
) -> tf.Tensor:
    """The affine maps from output to input pixel coordinates: float32 ``[B, 2, 3]``.

    A map flips, then shears, then rotates about the centre of the crop window, then scales to the size
    of the window. The output pixel ``(u, v)`` reads the input at ``x = a·u + b·v + c`` and
    ``y = d·u + e·v + f``, where integer coordinates are the centres of pixels. The rows of the matrix
    are (a, b, c) and (d, e, f).

    Args:
        parameters: float32 ``[B]`` each.
        in_size, out_size: (height, width) in pixels.
    """
    p = parameters
    (in_h, in_w), (out_h, out_w) = in_size, out_size
    cos, sin, tan = tf.cos(p.rotate), tf.sin(p.rotate), tf.tan(p.shear)
    # [cos −sin; sin cos] · [1 tan; 0 1] · diag(flip), in coordinates from −1 to 1 in the crop window
    xx, xy = cos * p.flip_x, (cos * tan - sin) * p.flip_y
    yx, yy = sin * p.flip_x, (sin * tan + cos) * p.flip_y
    a, b = p.scale_x * xx * (in_w / out_w), p.scale_x * xy * (in_w / out_h)
    d, e = p.scale_y * yx * (in_h / out_w), p.scale_y * yy * (in_h / out_h)
    mid_u, mid_v = (out_w - 1) / 2, (out_h - 1) / 2
    c = p.center_x * in_w - 0.5 - a * mid_u - b * mid_v
    f = p.center_y * in_h - 0.5 - d * mid_u - e * mid_v
    return tf.stack([tf.stack([a, b, c], -1), tf.stack([d, e, f], -1)], -2)


def color_matrices(parameters: Parameters) -> tf.Tensor:
    """The affine map of RGB of each image: float32 ``[B, 3, 4]``, whose last column is added.

    The map changes saturation and hue as ``adjust_hsv_in_yiq`` of TensorFlow Addons does. Contrast
    multiplies the difference from mid-grey, and brightness adds a constant.
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
    """The position in the input that each output pixel reads, mirrored at the edges of the image.

    A position is an integer in units of 1/65,536 pixel. The index of the input pixel and its
    interpolation weight are computed from this integer. With a float position, XLA might round it
    differently for the index and for the weight, which would then contradict each other.

    Args:
        matrices: float32 ``[B, 2, 3]`` from ``affine_matrices``.
        in_size, out_size: (height, width) in pixels, at most 32,767.

    Returns:
        int32 ``[2, B, H, W]``: the x coordinates that the output pixels read, then the y coordinates.
    """
    (in_h, in_w), (out_h, out_w) = in_size, out_size
    rows = tf.transpose(matrices, [2, 1, 0])[..., None, None]
    u = tf.range(out_w, dtype=tf.float32)
    v = tf.range(out_h, dtype=tf.float32)[:, None]
    sizes = tf.constant([in_w, in_h], tf.float32)[:, None, None, None]
    mirrored = _mirror((rows[2] + rows[1] * v) + rows[0] * u, sizes)
    position = tf.cast(mirrored * (1 << _FRACTION_BITS), tf.int32)
    last = tf.constant([(size - 1) << _FRACTION_BITS for size in (in_w, in_h)])[:, None, None, None]
    return _materialized_minimum(position, last)


def pack_pixels(images: tf.Tensor) -> tf.Tensor:
    """RGB images, uint8 ``[B, h, w, 3]``, as one integer for each pixel, uint32 ``[B·h·w]``."""
    return _materialized_dot(tf.cast(tf.reshape(images, [-1, 3]), tf.uint32), [1, 1 << 8, 1 << 16])


def resample_and_recolor(
    packed: tf.Tensor, in_size: tuple[int, int], positions: tf.Tensor, colors: tf.Tensor
) -> tf.Tensor:
    """Resamples the images bilinearly, applies the colour matrix of each image, and clips to 0–255.

    Args:
        packed: uint32 ``[B·h·w]`` from ``pack_pixels``, fewer than 2³¹ pixels in all.
        in_size: (h, w).
        positions: int32 ``[2, B, H, W]`` from ``sample_positions``.
        colors: float32 ``[B, 3, 4]`` from ``color_matrices``.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.
    """
    height, width = in_size
    column, weight_x = _split_position(positions[0], width)
    row, weight_y = _split_position(positions[1], height)
    image = tf.range(tf.shape(positions)[1])[:, None, None]
    index = (image * height + row) * width + column
    pixels = packed[:, None]
    table_length = tf.shape(pixels)[0] - width - 1

    def gather_neighbours(offset: int) -> tf.Tensor:
        # The four gathers use the same index in tables that start at different pixels, so that XLA
        # limits the index to its range only once. A table has each pixel three times, once for each
        # channel. If the gathered pixels were broadcast instead, XLA would write them to memory first.
        table = pixels[offset : offset + table_length]
        return tf.gather(tf.broadcast_to(table, [table_length, 3]), index)

    corners = [gather_neighbours(offset) for offset in (0, 1, width, width + 1)]
    weight_x, weight_y = weight_x[..., None], weight_y[..., None]

    def resample_channel(shift: int) -> tf.Tensor:
        a, b, c, d = (_byte(corner, shift) for corner in corners)
        return _blend(_blend(a, b, weight_x), _blend(c, d, weight_x), weight_y)

    weights = colors[:, None, None]  # [B, 1, 1, 3, 4]
    # XLA fuses three multiply-adds into one pass over the pixels. It would not fuse a matrix product.
    mixed = weights[..., 3] + resample_channel(0) * weights[..., 0]
    mixed = (mixed + resample_channel(8) * weights[..., 1]) + resample_channel(16) * weights[..., 2]
    return tf.clip_by_value(mixed, 0.0, 255.0)


def augment_images(
    images: tf.Tensor, parameters: Parameters, out_size: tuple[int, int]
) -> tf.Tensor:
    """The augmented images of a batch.

    Args:
        images: uint8 ``[B, h, w, 3]``, RGB, at least 2×2 pixels; fewer than 2³¹ pixels in all.
        parameters: float32 ``[B]`` each.
        out_size: (height, width) of the result.

    Returns:
        float32 ``[B, H, W, 3]`` in 0–255.

    Example:
        >>> from seedtf.augment.policy import draw_parameters
        >>> images = tf.zeros([2, 8, 8, 3], tf.uint8)
        >>> epoch, records = tf.constant(0, tf.int64), tf.range(2, dtype=tf.int64)
        >>> parameters = draw_parameters(Policy(rotate=90.0), 0, epoch, records)
        >>> augment_images(images, parameters, (6, 4)).shape
        TensorShape([2, 6, 4, 3])
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
    """Makes a function that augments a batch, for ``Dataset.map`` or for a train step.

    On a CPU, XLA compiles a loop over the images, so that the packed pixels and positions of an image
    are still in the core's cache when they are read. The parameters are drawn without XLA.

    On a GPU (``whole_batch``), XLA processes all images at once to keep the device busy, and compiles
    the drawing of the parameters, too. The compiled code also gathers ``images[rows]``. TensorFlow
    itself has no GPU kernel that gathers uint8, so it would copy the images to the host.

    Args:
        policy: the ranges. If ``--augment_strength`` is a number, they are already multiplied by it.
        seed: root seed of the run.
        out_size: (height, width) of the result.
        strength: float32 scalar that is read for each batch and multiplies every range; None means 1.
        whole_batch: whether to process all images at once. The pixels are the same up to rounding.
        deterministic: whether TensorFlow's op determinism is on. The result is then not written into a
            variable, because op determinism executes assignments to variables one after the other.

    Returns:
        ``(images uint8 [N, h, w, 3], epoch int64 [], records int64 [B], rows int64 [B] or None)
        → float32 [B, H, W, 3]``. ``records`` has the indices of the images in the training data, and
        ``rows`` their positions in ``images``. So images that are in memory need no copy. Without
        ``rows``, image i of the batch is ``images[i]``.
    """
    draw = functools.partial(draw_uniforms, seed)
    if whole_batch:
        draw = tf.function(draw, jit_compile=True, autograph=False)

    @tf.function(jit_compile=True, autograph=False)
    def augment_batch(
        images: tf.Tensor, parameters: Parameters, rows: tf.Tensor | None
    ) -> tf.Tensor:
        images = images if rows is None else tf.gather(images, rows)
        return augment_images(images, parameters, out_size)

    @tf.function(jit_compile=True, autograph=False)
    def compiled_one_by_one(
        images: tf.Tensor,
        rows: tf.Tensor,
        parameters: Parameters,
        variable: tf.Tensor | None = None,
    ) -> tf.Tensor:
        if variable is None:
            return _augment_one_by_one(images, rows, parameters, out_size)
        memory = tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.float32)
        augmented = _augment_one_by_one(images, rows, parameters, out_size, memory)
        tf.raw_ops.AssignVariableOp(resource=variable, value=augmented)
        return tf.size(rows)  # Not used: the images are in the variable.

    def augment(
        images: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor, rows: tf.Tensor | None = None
    ) -> tf.Tensor:
        parameters = make_parameters(policy.at(strength), draw(epoch, records))
        if whole_batch:
            return augment_batch(images, parameters, rows)
        # Without rows, this code may run in a tf.data service, where variables were not tried.
        if rows is None or deterministic:
            rows = tf.range(tf.size(records), dtype=tf.int64) if rows is None else rows
            return compiled_one_by_one(images, rows, parameters)
        return uninitialized_output(
            lambda variable: compiled_one_by_one(images, rows, parameters, variable),
            [records.shape[0], *out_size, 3],
        )

    return augment


def _augment_one_by_one(
    images: tf.Tensor,
    rows: tf.Tensor,
    parameters: Parameters,
    out_size: tuple[int, int],
    memory: tf.Tensor | None = None,
) -> tf.Tensor:
    """Augments ``images[rows]`` one image at a time, in a loop that XLA compiles.

    If ``memory``, float32 ``[B, H, W, 3]``, is given, the result overwrites it.
    """
    count = tf.size(rows)
    results = tf.TensorArray(tf.float32, count, element_shape=[*out_size, 3])

    def step(i: tf.Tensor, results: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        # The matrices are computed for one image at a time. In a whole batch, vector instructions would
        # compute some of the sines, so the last bit of a sine would depend on its position in the batch
        # and on XLA's flags. For the same reason, the parameters are drawn without XLA.
        row, *fields = (tf.gather(value, i)[None] for value in (rows, *parameters))
        augmented = augment_images(tf.gather(images, row), Parameters(*fields), out_size)
        return i + 1, results.write(i, augmented[0])

    _, results = tf.while_loop(
        lambda i, _: i < count,
        step,
        (tf.constant(0), results if memory is None else results.unstack(memory)),
        maximum_iterations=count,
    )
    return results.stack()


def _uint32(count: int) -> tf.Tensor:
    return tf.constant(count, tf.uint32)


def _materialized_dot(terms: tf.Tensor, factors: list[int]) -> tf.Tensor:
    """``Σ terms[..., i] · factors[i]`` as a reduction, which XLA computes once and stores in memory.

    XLA would fuse a plain sum of products into each of the four gathers, so every pixel would be packed
    four times.
    """
    return tf.reduce_sum(terms * tf.constant(factors, terms.dtype), axis=-1)


def _materialized_minimum(value: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """``minimum(value, limit)`` as a reduction, which XLA computes once and stores in memory.

    XLA would fuse a plain minimum into the gathers. Processors without AVX-512 would then compute the
    addresses of the pixels one at a time.
    """
    return tf.reduce_min(tf.stack([value, tf.broadcast_to(limit, tf.shape(value))], -1), -1)


def _split_position(position: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixel index of each position on one axis, int32, and the weight of the next pixel, float32.

    For a position at the last of ``size`` pixels, the index is ``size - 2`` and the weight is 1.
    """
    first = tf.minimum(tf.bitwise.right_shift(position, _FRACTION_BITS), size - 2)
    fraction = position - tf.bitwise.left_shift(first, _FRACTION_BITS)
    return first, tf.cast(fraction, tf.float32) * (1.0 / (1 << _FRACTION_BITS))


def _byte(packed: tf.Tensor, shift: int) -> tf.Tensor:
    """The byte at bit ``shift`` as float32. CPUs convert int32 to float32 in one instruction."""
    byte = tf.bitwise.bitwise_and(tf.bitwise.right_shift(packed, _uint32(shift)), _uint32(255))
    return tf.cast(tf.cast(byte, tf.int32), tf.float32)


def _blend(first: tf.Tensor, second: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * weight


def _mirror(position: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Mirrors coordinates at the outer pixel edges: d c b a | a b c d | d c b a.

    There is one mirror image on each side, because no policy reads further outside an image than its
    own size. This function does not mirror coordinates further outside correctly.
    """
    return tf.maximum(size - tf.abs(size - tf.abs(position + 0.5)) - 0.5, 0.0)
