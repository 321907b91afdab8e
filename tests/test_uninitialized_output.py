"""``uninitialized_output``: XLA writes each result into a new variable, which no other call changes."""

import psutil
import pytest
import tensorflow as tf

from seedtf.compat import tensorflow as compat
from seedtf.compat.tensorflow import uninitialized_output

SIDE = 512


@tf.function(jit_compile=True, autograph=False)
def _filled(value: tf.Tensor, result: tf.Tensor | None = None) -> tf.Tensor:
    """A matrix filled with ``value``, written row by row in a loop, as the augmentation writes images.

    If ``result``, the handle of a variable, is given, the matrix is written into it, not returned.
    """
    rows = tf.TensorArray(tf.float32, SIDE, element_shape=[SIDE])
    if result is not None:
        rows = rows.unstack(tf.raw_ops.ReadVariableOp(resource=result, dtype=tf.float32))
    _, rows = tf.while_loop(
        lambda i, _: i < SIDE,
        lambda i, rows: (i + 1, rows.write(i, tf.fill([SIDE], value))),
        (tf.constant(0), rows),
        maximum_iterations=SIDE,
    )
    if result is None:
        return rows.stack()
    tf.raw_ops.AssignVariableOp(resource=result, value=rows.stack())
    return tf.constant(0)


@tf.function(autograph=False)
def through_variable(value: tf.Tensor) -> tf.Tensor:
    return uninitialized_output(lambda result: _filled(value, result), [SIDE, SIDE])


@pytest.fixture
def ordinary_name(monkeypatch):
    """Replaces the name that makes variables anonymous, so that all calls would share one variable."""
    monkeypatch.setattr(compat, "_ANONYMOUS", "an_ordinary_name")
    compat._creates_anonymous_variables.cache_clear()
    yield
    compat._creates_anonymous_variables.cache_clear()


def test_a_variable_is_created_for_each_call() -> None:
    assert compat._creates_anonymous_variables()
    assert through_variable(tf.constant(3.0)).shape == [SIDE, SIDE]
    assert tf.reduce_all(through_variable(tf.constant(3.0)) == _filled(tf.constant(3.0)))


def test_results_of_parallel_and_earlier_calls_are_not_overwritten() -> None:
    values = tf.data.Dataset.range(400).map(lambda i: tf.cast(i, tf.float32))
    results = [*values.map(through_variable, num_parallel_calls=8, deterministic=True)]
    for value, result in enumerate(results):
        assert tf.reduce_all(result == float(value))


def test_the_memory_of_unused_results_is_released() -> None:
    through_variable(tf.constant(0.0))
    before = psutil.Process().memory_info().rss
    for value in range(300):  # Each result takes 1 MiB.
        through_variable(tf.constant(float(value)))
    assert psutil.Process().memory_info().rss - before < 60 << 20


def test_if_calls_would_share_a_variable_the_result_is_not_written_into_one(ordinary_name) -> None:
    handles = []
    returned = uninitialized_output(
        lambda result: handles.append(result) or tf.zeros([2, 2]), [2, 2]
    )
    assert handles == [None]  # None means that there is no variable to write to.
    assert returned.shape == [2, 2]


def test_a_result_of_unknown_size_is_not_written_into_a_variable() -> None:
    handles = []
    uninitialized_output(lambda result: handles.append(result) or tf.zeros([2, 2]), [None, 2])
    assert handles == [None]
