"""Follows a chain of parts of a file, where each part says where the next one starts.

A loop with a step for each part is too slow: a step of a TensorFlow loop takes up to 0.2 ms, and a file
of many tiny parts would block a server. Here the position of the next part is computed for all
positions of a window at once, and the chain is followed by doubling. For each position, the tensor
``following`` has the position one part later. ``tf.gather(following, following)`` has the position two
parts later, and after k such steps the tensor has the position 2^k parts later.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["WINDOW", "follow_chain", "sum_along_chain"]

WINDOW = 4096
"""Number of consecutive positions in a window. A larger window takes longer for files of large parts, a
smaller one for files of tiny parts."""

# Longer steps are cut to this length, so that sums cannot overflow int32. A step of this length still
# leaves the window, so the cut does not change the result.
_MAX_STEP = 1 << 24


def follow_chain(
    steps: tf.Tensor, is_stop: tf.Tensor, length: int = WINDOW, start: tf.Tensor | int = 0
) -> tf.Tensor:
    """Follows a chain to the first position at which it has to stop.

    If there is no such position in the window, the chain is followed to its last position there.

    Args:
        steps: integers ``[n]``, the distance from each position to the next part, at least 1.
        is_stop: bool ``[n]``, whether the chain has to stop at each position.
        length: the largest possible n, from which the number of doublings follows.
        start: the position at which the chain starts.

    Returns:
        The position that was reached, int64.
    """
    count = tf.size(steps)
    here = tf.range(count)
    following = here + tf.cast(tf.minimum(steps, _MAX_STEP), tf.int32)
    following = tf.where(is_stop | (following >= count), here, following)
    for _ in range(length.bit_length()):
        following = tf.gather(following, following)
    return tf.cast(following[start], tf.int64)


def sum_along_chain(following: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The sum of ``values`` over all positions of the chain that starts at position 0.

    Args:
        following: int32 ``[n]``, for each position the next one in its chain; at the end of a chain,
            the position itself.
        values: int32 ``[n]``, the value of each position; 0 at the end of a chain.
    """
    count = tf.size(following)
    values, _, _ = tf.while_loop(
        lambda values, following, doublings: tf.bitwise.right_shift(count, doublings) > 0,
        lambda values, following, doublings: (
            values + tf.gather(values, following),
            tf.gather(following, following),
            doublings + 1,
        ),
        (values, following, tf.constant(0)),
    )
    return values[0]
