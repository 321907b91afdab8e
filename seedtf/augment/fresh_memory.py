"""Results that XLA writes once: into memory that nobody filled with zeros before."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

__all__ = ["uninitialized_output"]

# TensorFlow's name for variables that only their handle leads to (ResourceHandle::ANONYMOUS_NAME)
_ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


def uninitialized_output(
    compute: Callable[[tf.Tensor | None], tf.Tensor], shape: list
) -> tf.Tensor:
    """What ``compute`` puts into a float32 variable that it is given, whose memory is new.

    XLA fills the result of a loop with zeros before the loop, which costs the augmentation an eighth
    of its time. A variable's memory it overwrites in place, and reading the variable copies nothing.

    Args:
        compute: compiled by XLA; assigns all of the result to the resource it is given. Where it is
            given None, it returns the result.
        shape: static; of the result.

    Returns:
        float32 of ``shape``; on a CPU.
    """
    if None in shape or not _own_variables():
        return compute(None)
    with tf.device("/cpu:0"):
        variable = _variable(shape)
        memory = tf.raw_ops.Empty(shape=shape, dtype=tf.float32, init=False)
        tf.raw_ops.AssignVariableOp(resource=variable, value=memory)
        done = compute(variable)
        with tf.control_dependencies([done]):
            result = tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.float32)
    return tf.ensure_shape(result, shape)


def _variable(shape: list) -> tf.Tensor:
    return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=shape, shared_name=_ANONYMOUS)


@functools.cache
def _own_variables() -> bool:
    """Whether the name above still gives every caller a variable of its own.

    Were it a name like any other, batches made at the same time would write into one memory.
    """
    with tf.init_scope(), tf.device("/cpu:0"):
        first, second = _variable([]), _variable([])
        tf.raw_ops.AssignVariableOp(resource=first, value=tf.constant(0.0))
        return not bool(tf.raw_ops.VarIsInitializedOp(resource=second))
