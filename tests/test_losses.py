"""The loss, the metric and the targets of a training batch, compared with values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seedtf.training.optim.losses import CrossEntropy, accuracy_metric, make_targets, smooth_labels

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]], np.float32)
LABELS = np.array([0, 1, 1], np.int32)
IMAGES = tf.zeros([3, 2, 2, 3])


def test_class_numbers_give_the_same_cross_entropy_as_keras() -> None:
    ours = CrossEntropy()(LABELS, PROBABILITIES)
    keras_own = keras.losses.SparseCategoricalCrossentropy()(LABELS, PROBABILITIES)
    assert float(ours) == float(keras_own)
    assert float(ours) == pytest.approx(-np.log([0.7, 0.1, 0.4]).mean(), rel=1e-6)


def test_soft_labels_give_the_mean_cross_entropy() -> None:
    soft = np.array([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.2, 0.2, 0.6]], np.float32)
    expected = -(soft * np.log(PROBABILITIES)).sum(-1).mean()
    assert float(CrossEntropy()(soft, PROBABILITIES)) == pytest.approx(expected, rel=1e-5)


def test_weights_multiply_losses_before_the_mean_over_images() -> None:
    weights = np.array([2.0, 0.5, 1.0], np.float32)
    expected = (-np.log([0.7, 0.1, 0.4]) * weights).sum() / 3
    loss = CrossEntropy()(LABELS, PROBABILITIES, sample_weight=weights)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_accuracy_compares_with_the_argmax_of_soft_labels() -> None:
    hard, soft = accuracy_metric(), accuracy_metric()
    hard.update_state(LABELS, PROBABILITIES)
    soft.update_state(tf.one_hot(LABELS, 3) * 0.6 + 0.4 / 3, PROBABILITIES)
    assert float(hard.result()) == float(soft.result()) == pytest.approx(2 / 3)


def test_smoothing_spreads_a_fraction_evenly() -> None:
    smoothed = smooth_labels(tf.one_hot([1], 4), 0.2).numpy()
    np.testing.assert_allclose(smoothed, [[0.05, 0.85, 0.05, 0.05]], atol=1e-7)


def test_without_smoothing_or_class_weights_labels_are_not_changed() -> None:
    assert make_targets(3, smoothing=0.0) is None


def test_class_numbers_and_one_hot_labels_are_smoothed_to_equal_targets() -> None:
    targets = make_targets(3, smoothing=0.3)
    assert targets is not None
    images, soft = targets(IMAGES, tf.constant(LABELS))
    assert images is IMAGES
    soft_from_one_hot = targets(IMAGES, tf.one_hot(LABELS, 3))[1]
    np.testing.assert_array_equal(soft, soft_from_one_hot)
    np.testing.assert_allclose(soft[0], [0.8, 0.1, 0.1], atol=1e-6)


def test_the_weight_of_an_image_is_its_unsmoothed_label_times_the_class_weights() -> None:
    targets = make_targets(3, smoothing=0.3, weights=np.array([1.0, 3.0, 5.0], np.float32))
    assert targets is not None
    mixed = tf.constant([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(targets(IMAGES, mixed)[2], [2.0, 4.5, 5.0], atol=1e-6)
