"""``--class_weights``: valid and refused values, and the weight of an image with mixed labels."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seedtf.errors import UserError
from seedtf.training.optim.class_weights import parse_class_weights
from seedtf.training.optim.losses import sample_weights

NAMES = ["alder", "two words", "ratio 1:2", "öland rye"]
COUNTS = [10, 30, 40, 20]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_flag_gives_no_weights(text: str) -> None:
    assert parse_class_weights(text, NAMES, COUNTS) is None


def test_auto_gives_weights_inverse_to_the_number_of_images_of_a_class() -> None:
    weights = parse_class_weights("auto", NAMES, COUNTS)
    assert weights is not None
    assert weights.dtype == np.float32
    assert weights == pytest.approx([2.5, 100 / 120, 0.625, 1.25])


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9))
def test_auto_gives_classes_equal_sums_and_images_a_mean_of_one(counts: list[int]) -> None:
    weights = parse_class_weights("auto", [str(k) for k in range(len(counts))], counts)
    sums = weights * np.array(counts)
    assert sums == pytest.approx(sum(counts) / len(counts), rel=1e-5)
    assert sums.sum() == pytest.approx(sum(counts), rel=1e-5)


def test_auto_ignores_a_class_without_images() -> None:
    weights = parse_class_weights("auto", ["a", "b", "c"], [6, 0, 2])
    assert weights == pytest.approx([4 / 6, 1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alder:2", [2, 1, 1, 1]),
        ("two words:0.5, öland rye:3e1", [1, 0.5, 1, 30]),
        (" alder : 2 ,ratio 1:2:4", [2, 1, 4, 1]),
    ],
)
def test_a_class_that_is_not_named_has_weight_1(text: str, expected: list[float]) -> None:
    weights = parse_class_weights(text, NAMES, COUNTS)
    assert weights is not None
    assert weights.dtype == np.float32
    assert weights.tolist() == expected


def test_a_class_called_auto_can_be_weighted() -> None:
    assert parse_class_weights("auto:2", ["auto", "b"], [1, 1]).tolist() == [2, 1]


def test_an_exact_name_is_preferred_to_one_without_outer_spaces() -> None:
    assert parse_class_weights(" a :2", [" a ", "a"], [1, 1]).tolist() == [2, 1]
    assert parse_class_weights("a:2", [" a ", "a"], [1, 1]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aldr:2", "--class_weights: there is no class 'aldr'; did you mean 'alder'?"),
        ("Öland Rye:2", "did you mean 'öland rye'?"),
        ("zzz:2", "there is no class 'zzz'; one is 'alder'"),
        (
            "alder:much",
            "'much' for class 'alder' is not a number from 1.2e-38 to 3.4e+38; pass one such as "
            "alder:2.5",
        ),
        ("alder:0", "'0' for class 'alder'"),
        ("alder:-1", "'-1' for class 'alder'"),
        ("alder:nan", "'nan' for class 'alder'"),
        ("alder:inf", "'inf' for class 'alder'"),
        ("alder:1e39", "'1e39' for class 'alder'"),
        ("alder:1e-60", "'1e-60' for class 'alder'"),
        ("alder:", "'' for class 'alder'"),
        ("alder:2,alder:2", "class 'alder' is named twice; name it once"),
        ("alder", "'alder' is not name:weight; pass auto or, for example, alder:2.5"),
        ("alder:2,", "'' is not name:weight"),
        ("balanced", "'balanced' is not name:weight"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parse_class_weights(text, NAMES, COUNTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["rye, wild:2", "wild:2"])
def test_a_name_with_a_comma_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UserError, match="a class with a comma in its name cannot be given here"):
        parse_class_weights(text, ["rye, wild", "oat"], [1, 1])


names = st.lists(
    st.text(st.characters(exclude_characters=",", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
    max_size=5,
    unique_by=str.strip,
)


@given(names, st.data())
def test_every_name_without_a_comma_can_be_given(
    class_names: list[str], data: st.DataObject
) -> None:
    weighted = data.draw(st.lists(st.sampled_from(class_names), min_size=1, unique=True))
    values = {name: 0.25 * (2 + number) for number, name in enumerate(weighted)}
    text = ",".join(f"{name}:{value}" for name, value in values.items())
    weights = parse_class_weights(text, class_names, [1] * len(class_names))
    assert weights.tolist() == [values.get(name, 1.0) for name in class_names]


@given(st.lists(st.floats(0.015625, 64, width=32), min_size=3, max_size=3), st.floats(0, 1))
def test_a_mixed_image_gets_the_average_weight_of_its_classes(
    weights: list[float], fraction: float
) -> None:
    hard = np.eye(3, dtype=np.float32)
    mixed = np.float32(fraction) * hard + np.float32(1 - fraction) * np.roll(hard, -1, 0)
    result = sample_weights(tf.constant(mixed), np.array(weights, np.float32))
    assert result.dtype == tf.float32
    expected = fraction * np.array(weights) + (1 - fraction) * np.roll(weights, -1)
    assert result.numpy() == pytest.approx(expected, rel=1e-5)
    assert sample_weights(tf.constant(hard), weights).numpy().tolist() == weights


def test_the_weighted_loss_of_a_mixed_label_has_the_exact_gradient() -> None:
    """The derivative of w · CE(y, p) with respect to the logits z is w · (p − y).

    Here y is the label, p = softmax(z), CE is the cross-entropy, and w = y · weights. The gradient
    would differ if w were the weight of the most probable class, weights[argmax y].
    """
    weights = np.array([1.0, 4.0, 0.5], np.float32)
    labels = np.array([[0.6, 0.4, 0.0], [0.1, 0.1, 0.8]], np.float32)
    logits = tf.Variable([[0.3, -1.0, 2.0], [0.0, 0.5, 0.1]])
    with tf.GradientTape() as tape:
        losses = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_sum(sample_weights(tf.constant(labels), weights) * losses)
    image_weights = np.array([[0.6 + 1.6], [0.1 + 0.4 + 0.4]])
    expected = image_weights * (tf.nn.softmax(logits).numpy() - labels)
    assert tape.gradient(loss, logits).numpy() == pytest.approx(expected, abs=1e-5)
