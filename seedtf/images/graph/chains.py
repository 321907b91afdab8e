"""Follows the parts of a file, each of which tells where the next one starts, without a step a part.

A step of a TensorFlow loop takes up to 0.2 ms, so that a file of many tiny parts would block a server.
Here the position of the next part is computed for every position of a window at once, and the chain is
followed by doubling: after k gathers, each position knows where the chain is after 2^k parts.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["WINDOW", "along_chain", "sum_along_chain"]

WINDOW = 4096
"""Positions in a window. A larger one costs more for large parts, a smaller one for tiny parts."""

# A longer step leaves every window; a position plus this fits in 32 bits.
_MAX_STEP = 1 << 24


def along_chain(
    steps: tf.Tensor, is_stop: tf.Tensor, length: int = WINDOW, start: tf.Tensor | int = 0
) -> tf.Tensor:
    """The first position of a chain at which it stops or leaves the window.

    Args:
        steps: integers ``[n]``, the positions from each part to the next one, at least 1.
        is_stop: bool ``[n]``, the positions at which the chain stops.
        length: the largest n.
        start: where the chain starts.

    Returns:
        The position, int64.
    """
    count = tf.size(steps)
    here = tf.range(count)
    following = here + tf.cast(tf.minimum(steps, _MAX_STEP), tf.int32)
    following = tf.where(is_stop | (following >= count), here, following)
    for _ in range(length.bit_length()):
        following = tf.gather(following, following)
    return tf.cast(following[start], tf.int64)


def sum_along_chain(following: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The sum of ``values``, int32 ``[n]``, along the chain from 0.

    Args:
        following: int32 ``[n]``, the next position of each; at the end of a chain, the position itself.
        values: of each position; 0 at the end of a chain.
    """
    doublings = tf.constant(0)
    count = tf.size(following)
    while tf.bitwise.right_shift(count, doublings) > 0:
        values += tf.gather(values, following)
        following = tf.gather(following, following)
        doublings += 1
    return values[0]
