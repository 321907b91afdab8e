"""Metrics: worked examples, properties, and values published or computed elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.evaluation.metrics import (
    class_scores,
    confusion_matrix,
    fit_temperature,
    macro_f1,
    margins,
    mcnemar_p,
    most_confused,
    per_image_loss,
    rejection_threshold,
    reliability,
    scale_probabilities,
)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_the_rows_of_a_confusion_matrix_are_the_true_classes():
    matrix = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_the_trace_of_a_confusion_matrix_is_the_number_of_correct_predictions(pairs):
    labels, predictions = np.array(pairs).T
    matrix = confusion_matrix(labels, predictions, 5)
    assert matrix.sum() == len(pairs)
    assert matrix.trace() == sum(a == b for a, b in pairs)
    assert matrix.sum(axis=1).tolist() == np.bincount(labels, minlength=5).tolist()


def test_class_scores_of_a_worked_example():
    scores = class_scores(np.array([[8, 2, 0], [1, 4, 0], [0, 0, 0]]))
    assert scores.precision[:2] == pytest.approx([8 / 9, 4 / 6])
    assert scores.recall[:2] == pytest.approx([0.8, 0.8])
    assert scores.f1[:2] == pytest.approx([16 / 19, 8 / 11])
    assert scores.support.tolist() == [10, 5, 0]
    assert np.isnan([scores.precision[2], scores.recall[2], scores.f1[2]]).all()
    assert macro_f1(scores) == pytest.approx((16 / 19 + 8 / 11) / 2)


def test_a_class_that_is_only_predicted_counts_in_macro_f1():
    assert macro_f1(class_scores(np.array([[1, 1], [0, 0]]))) == pytest.approx((2 / 3 + 0) / 2)


def test_most_confused_pairs_are_sorted_without_the_diagonal():
    pairs = most_confused(np.array([[9, 1, 0], [3, 9, 1], [0, 0, 9]]), 10)
    assert [(p.true, p.predicted, p.count) for p in pairs] == [(1, 0, 3), (0, 1, 1), (1, 2, 1)]
    assert len(most_confused(np.array([[9, 1, 0], [3, 9, 1], [0, 0, 9]]), 2)) == 2


def test_losses_and_margins_of_a_worked_example():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 0.4, 0.6]], np.float32)
    labels = np.array([0, 0])
    # The probability 0 is replaced by the smallest normal float32 number, whose loss is 87.336.
    assert per_image_loss(probabilities, labels) == pytest.approx(
        [-math.log(0.7), 87.336], abs=1e-3
    )
    assert margins(probabilities, labels) == pytest.approx([0.5, -0.6])


def test_calibration_error_of_a_worked_example():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.65, 0.65])
    correct = np.array([True, True, True, False, True, True])
    found = reliability(confidence, correct, bins=10)
    assert found.counts[[9, 6]].tolist() == [4, 2]
    assert found.ece == pytest.approx((4 * abs(0.95 - 0.75) + 2 * abs(0.65 - 1.0)) / 6)
    assert np.isnan(found.accuracy[0])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_image_is_in_one_bin_and_ece_is_in_range(pairs):
    confidence, correct = (np.array(column) for column in zip(*pairs, strict=True))
    found = reliability(confidence, correct)
    assert found.counts.sum() == len(pairs)
    assert 0 <= found.ece <= 1


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_fitted_temperature_reverses_a_known_scaling(temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 4))
    true_probabilities = softmax(logits)
    thresholds = generator.random((len(true_probabilities), 1))
    labels = (true_probabilities.cumsum(axis=1) < thresholds).sum(axis=1)
    scaled = softmax(logits * temperature)
    fitted = fit_temperature(scaled, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    best = per_image_loss(scale_probabilities(scaled, fitted), labels).mean()
    for other in (0.98 * fitted, 1.02 * fitted):
        assert best < per_image_loss(scale_probabilities(scaled, other), labels).mean()


def test_temperature_is_one_if_the_images_do_not_determine_it():
    sure = np.array([[0.9, 0.1], [0.2, 0.8]])
    # If all are correct, a lower temperature is always better; if all are wrong, a higher one.
    assert fit_temperature(sure, np.array([0, 1])) == 1.0
    assert fit_temperature(sure, np.array([1, 0])) == 1.0


@given(st.floats(0.1, 10))
def test_scaling_keeps_the_order_and_the_sum(temperature):
    probabilities = softmax(np.random.default_rng(1).normal(0, 2, (8, 5)))
    scaled = scale_probabilities(probabilities, temperature)
    assert scaled.sum(axis=1) == pytest.approx(np.ones(8))
    assert (scaled.argsort(axis=1) == probabilities.argsort(axis=1)).all()


def test_temperature_one_changes_nothing():
    probabilities = softmax(np.random.default_rng(1).normal(0, 2, (8, 5)))
    assert scale_probabilities(probabilities, 1.0) == pytest.approx(probabilities)


def test_rejection_keeps_as_many_as_the_precision_allows():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    rule = rejection_threshold(confidence, np.array([True, True, False, True, False]), 0.75)
    assert rule is not None
    assert (rule.threshold, rule.kept, rule.kept_correct) == (0.6, 4, 3)
    assert rejection_threshold(confidence, np.zeros(5, bool), 0.75) is None
    # 55 of 100 reaches 0.55, although 0.55 · 100 is above 55 in float64.
    exact = rejection_threshold(np.full(100, 0.9), np.arange(100) < 55, 0.55)
    assert exact is not None
    assert (exact.kept, exact.kept_correct) == (100, 55)


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.6, 0.8]), st.booleans()), min_size=1),
    st.sampled_from([0.5, 0.9, 1.0]),
)
def test_rejection_reaches_the_precision_with_the_lowest_threshold(pairs, precision):
    confidence, correct = (np.array(column) for column in zip(*pairs, strict=True))
    reached = {
        value: correct[confidence >= value].mean() >= precision
        for value in set(confidence.tolist())
    }
    rule = rejection_threshold(confidence, correct, precision)
    if rule is None:
        assert not any(reached.values())
        return
    assert rule.threshold == min(value for value, is_reached in reached.items() if is_reached)
    assert rule.kept == (confidence >= rule.threshold).sum()
    assert rule.kept_correct == correct[confidence >= rule.threshold].sum()


def test_mcnemar_is_exact_for_few_discordant_images_and_corrected_for_many():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(1, 9) == pytest.approx(2 * 11 / 1024)
    # Chi-square with continuity correction and one degree of freedom: (|59 − 121| − 1)² / 180 = 20.67.
    assert mcnemar_p(59, 121) == pytest.approx(5.45e-6, rel=0.01)
    assert mcnemar_p(121, 59) == mcnemar_p(59, 121)
    assert mcnemar_p(20, 20) == 1.0
