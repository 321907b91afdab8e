"""The hash from which the random numbers of an image are drawn has fixed values, with and without XLA.

Each of its operations has a GPU kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seedtf.augment.policy import draw_uniforms
from seedtf.seeds import AUGMENT, epoch_seed, hash_words, uniform

int64s = st.integers(-(2**63), 2**63 - 1)
SEED_7_EPOCH_3 = epoch_seed(7, AUGMENT, 3)


def hash_of_integers(seed: list[int], record: int, draw: int) -> int:
    """The documented hash in Python's integers: the output function of SplitMix64, applied twice."""

    def mix(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    key = (seed[0] % 2**32 * 2**32 + seed[1] % 2**32) % 2**64
    record_key = mix((key + record * 0x9E3779B97F4A7C15) % 2**64)
    return mix((record_key + draw * 0xD1342543DE82EF95) % 2**64)


@pytest.fixture(scope="module")
def hashes() -> dict[str, Callable[..., tf.Tensor]]:
    signature = [tf.TensorSpec([2], tf.int64), *[tf.TensorSpec([1], tf.int64)] * 2]
    return {
        "eager": hash_words,
        "graph": tf.function(hash_words, input_signature=signature),
        "XLA": tf.function(hash_words, input_signature=signature, jit_compile=True),
    }


@pytest.fixture(scope="module")
def compiled_uniforms() -> Callable[..., tf.Tensor]:
    return tf.function(lambda *arguments: draw_uniforms(7, *arguments), jit_compile=True)


@given(st.lists(int64s, min_size=2, max_size=2), int64s, int64s)
def test_the_hash_equals_that_of_python_integers_in_every_mode(
    hashes: dict[str, Callable[..., tf.Tensor]], seed: list[int], record: int, draw: int
) -> None:
    expected = hash_of_integers(seed, record, draw)
    arguments = [tf.constant(value, tf.int64) for value in (seed, [record], [draw])]
    for mode, function in hashes.items():
        assert int(function(*arguments)[0]) == expected, mode


@given(st.integers(0, 2**40), st.lists(int64s, min_size=4, max_size=4))
def test_draws_compiled_by_xla_are_the_same_bits(
    compiled_uniforms: Callable[..., tf.Tensor], epoch: int, records: list[int]
) -> None:
    arguments = tf.constant(epoch, tf.int64), tf.constant(records, tf.int64)
    eager = draw_uniforms(7, *arguments).numpy()
    assert np.array_equal(compiled_uniforms(*arguments).numpy(), eager)
    assert eager.min() >= 0 and eager.max() < 1


def test_the_hash_has_no_successive_additions() -> None:
    """TensorFlow's optimizer would replace them by ``AddN``, which has no GPU kernel for uint64."""
    records = tf.TensorSpec([8], tf.int64)
    function = tf.function(lambda records: uniform(SEED_7_EPOCH_3, records, 12))
    graph = function.get_concrete_function(records).graph
    additions = [op for op in graph.get_operations() if op.type in ("Add", "AddV2")]
    assert len(additions) == 2 and {op.inputs[0].dtype for op in additions} == {tf.uint64}
    assert not [op for op in additions for name in input_types(op) if "add" in name.lower()]


def input_types(op: tf.Operation) -> Iterator[str]:
    """The types of the operations that feed ``op`` directly."""
    return (tensor.op.type for tensor in op.inputs)
