"""Random numbers as pure functions of a root seed, a purpose, an epoch and the index of an image.

The index of an image is called its record. The random numbers of an image do not depend on the other
images in its batch. There is no global generator and so no state to save: a resumed run computes the
same numbers.
"""

from __future__ import annotations

import tensorflow as tf

__all__ = ["AUGMENT", "BALANCE", "MIX", "ORDER", "epoch_seed", "hash_words", "uniform"]

# Each purpose has random numbers of its own, independent of the others. NumPy's generators have purpose
# 0. They draw the split (data/split.py), the folds of a cross-validation (folds/divide.py), and the
# images that a fitted head holds out (training/fitted_head.py).
ORDER = 1
AUGMENT = 2
MIX = 3
BALANCE = 4


def epoch_seed(seed: int, purpose: int, epoch: tf.Tensor | int) -> tf.Tensor:
    """The stateless seed of one purpose in one epoch of a run.

    If the epoch were only added to the root seed, seed 0 in epoch 1 and seed 1 in epoch 0 would give
    the same numbers. So TensorFlow's ``stateless_fold_in`` combines them.

    Args:
        seed: root seed of the run, 0 to 2³¹ − 1.
        purpose: ``ORDER``, ``AUGMENT``, ``MIX`` or ``BALANCE``.
        epoch: number of the epoch, from 0; an int or an integer scalar tensor.

    Returns:
        int64 ``[2]``, the ``seed`` of TensorFlow's stateless random ops.

    Example:
        >>> epoch_seed(0, ORDER, epoch=1).shape
        TensorShape([2])
        >>> bool(tf.reduce_all(epoch_seed(0, ORDER, 1) == epoch_seed(1, ORDER, 0)))
        False
    """
    root = tf.constant([seed & 0x7FFFFFFF, purpose], tf.int32)
    # Name the algorithm, because the default algorithm depends on the device and on XLA.
    return tf.random.experimental.stateless_fold_in(root, tf.cast(epoch, tf.int64), alg="philox")


def uniform(seed: tf.Tensor, records: tf.Tensor, count: int) -> tf.Tensor:
    """``count`` uniform random numbers for each record: float32 ``[count, B]`` in [0, 1).

    The number in row i is a hash of the seed, the record and i.

    Args:
        seed: the result of ``epoch_seed``.
        records: int64 ``[B]``, the indices of the images.
        count: how many numbers each record gets.
    """
    draws = tf.range(1, count + 1, dtype=tf.int64)[:, None]
    top_24_bits = tf.bitwise.right_shift(
        hash_words(seed, records[None], draws), tf.constant(40, tf.uint64)
    )
    return tf.cast(top_24_bits, tf.float32) * 2.0**-24


def hash_words(seed: tf.Tensor, records: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """64 random bits for each pair of a record and a draw.

    The bits are a hash of the seed, the record and the draw. TensorFlow's stateless generators cannot
    replace the hash, because they take one seed for a whole batch: the numbers of an image would then
    depend on its position in the batch. The hash is the output function of SplitMix64 (Steele, Lea and
    Flood 2014) with the constants of Stafford's mix 13.

    Args:
        seed: the result of ``epoch_seed``.
        records: int64, the indices of the images.
        draws: int64, the number of each draw of an image; its shape can be broadcast with that of
            ``records``.

    Returns:
        uint64, in the shape that ``records`` and ``draws`` broadcast to.
    """
    words = tf.cast(tf.cast(seed, tf.uint32), tf.uint64)
    # Join the two words with a bitwise or. TensorFlow would merge two additions in a row into the op
    # AddN, which has no GPU kernel for uint64.
    high = tf.bitwise.left_shift(words[0], tf.constant(32, tf.uint64))
    key = tf.bitwise.bitwise_or(high, words[1])
    record_keys = _mix64(key + tf.cast(records, tf.uint64) * 0x9E3779B97F4A7C15)
    return _mix64(record_keys + tf.cast(draws, tf.uint64) * 0xD1342543DE82EF95)


def _mix64(value: tf.Tensor) -> tf.Tensor:
    def xor_shift(v: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(v, tf.bitwise.right_shift(v, tf.constant(bits, tf.uint64)))

    value = xor_shift(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    value = xor_shift(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return xor_shift(value, 31)
