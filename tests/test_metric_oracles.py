"""Metrics and intervals agree with scikit-learn, statsmodels and SciPy on random predictions."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from seedtf.evaluation import metrics
from seedtf.evaluation.evaluate import Predictions, compute_report
from seedtf.intervals import wilson_interval


class Sample(NamedTuple):
    """Labels int ``[N]``, probabilities float64 ``[N, K]`` and predicted classes int ``[N]``."""

    labels: np.ndarray
    probabilities: np.ndarray
    predictions: np.ndarray


@st.composite
def samples(draw, max_images=60, max_classes=6):
    """Random predictions that are correct by chance or more often; some classes may not occur."""
    num_images, num_classes = draw(st.integers(1, max_images)), draw(st.integers(2, max_classes))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = generator.integers(0, num_classes, num_images)
    logits = generator.normal(0, 1.5, (num_images, num_classes))
    logits[np.arange(num_images), labels] += draw(st.floats(0, 3))
    probabilities = softmax(logits, axis=1)
    return Sample(labels, probabilities, probabilities.argmax(axis=1))


@given(samples())
def test_confusion_matrix_and_scores_are_those_of_scikit_learn(sample):
    classes = range(sample.probabilities.shape[1])
    confusion = metrics.confusion_matrix(sample.labels, sample.predictions, len(classes))
    expected = sklearn_metrics.confusion_matrix(sample.labels, sample.predictions, labels=classes)
    np.testing.assert_array_equal(confusion, expected)
    scores = metrics.class_scores(confusion)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        sample.labels, sample.predictions, labels=classes, zero_division=np.nan
    )
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.f1, f1)
    np.testing.assert_array_equal(scores.support, support)
    assert metrics.macro_f1(scores) == pytest.approx(
        sklearn_metrics.f1_score(sample.labels, sample.predictions, average="macro")
    )


@given(samples())
def test_a_report_has_the_accuracy_and_log_loss_of_scikit_learn(sample):
    classes = range(sample.probabilities.shape[1])
    predictions = Predictions(
        tuple(f"{index}.png" for index in range(len(sample.labels))),
        sample.labels,
        sample.probabilities,
        tuple(map(str, classes)),
    )
    report = compute_report(predictions, precision_target=0.9)
    accuracy = sklearn_metrics.accuracy_score(sample.labels, sample.predictions)
    assert report.accuracy == pytest.approx(accuracy)
    loss = sklearn_metrics.log_loss(sample.labels, sample.probabilities, labels=classes)
    assert report.loss == pytest.approx(loss)


@given(samples(), st.sampled_from([5, 10, 15]))
def test_the_reliability_diagram_is_that_of_scikit_learn(sample, bins):
    confidence = sample.probabilities.max(axis=1)
    correct = sample.predictions == sample.labels
    diagram = metrics.reliability(confidence, correct, bins=bins)
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=bins, pos_label=True)
    filled = diagram.counts > 0
    np.testing.assert_allclose(diagram.accuracy[filled], accuracy)
    np.testing.assert_allclose(diagram.confidence[filled], mean_confidence)
    weights = diagram.counts[filled] / len(correct)
    assert diagram.ece == pytest.approx(float(weights @ np.abs(accuracy - mean_confidence)))


@given(samples(max_images=200), st.floats(0.3, 3))
def test_the_temperature_is_the_minimum_that_scipy_finds(sample, sharpening):
    probabilities = metrics.scale_probabilities(sample.probabilities, sharpening)

    def loss(log_temperature):
        scaled = softmax(np.log(probabilities) / np.exp(log_temperature), axis=1)
        return metrics.per_image_loss(scaled, sample.labels).mean()

    bounds = np.log([0.05, 20])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    fitted = metrics.fit_temperature(probabilities, sample.labels)
    # If the loss has no minimum within the bounds, the images do not determine the temperature, and the
    # example is skipped.
    assume(found.fun < min(map(loss, bounds)) - 1e-9)
    assert fitted == pytest.approx(np.exp(found.x), rel=1e-3)
    assert loss(np.log(fitted)) <= found.fun + 1e-12


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_is_that_of_statsmodels(hits_and_n):
    expected = proportion_confint(*hits_and_n, alpha=0.05, method="wilson")
    assert wilson_interval(*hits_and_n) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_p_value_of_mcnemar_is_that_of_statsmodels(only_a, only_b):
    exact = only_a + only_b < 25
    # With equal counts, p must be 1. The chi-square test of statsmodels gives another p, because it
    # applies the continuity correction to equal counts, too. So these examples are skipped.
    assume(exact or only_a != only_b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels divides 0 by 0 if no image is discordant
        expected = mcnemar([[0, only_a], [only_b, 0]], exact=exact, correction=True).pvalue
    assert metrics.mcnemar_p(only_a, only_b) == pytest.approx(float(expected), rel=1e-9)


@given(samples(), st.floats(0, 1))
def test_rejection_is_the_best_threshold_of_a_brute_force_search(sample, precision):
    confidence = sample.probabilities.max(axis=1)
    correct = sample.predictions == sample.labels
    kept = {t: confidence >= t for t in np.unique(confidence)}
    reached = [t for t, mask in kept.items() if correct[mask].mean() >= precision]
    rejection = metrics.rejection_threshold(confidence, correct, precision)
    assert (rejection is None) == (not reached)
    if rejection is not None:
        mask = kept[min(reached)]
        assert rejection.threshold == min(reached)
        assert (rejection.kept, rejection.kept_correct) == (mask.sum(), correct[mask].sum())
