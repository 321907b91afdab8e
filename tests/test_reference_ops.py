"""The fused augmentation equals a chain of plain operations, each of which is tested alone too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.augment import FLIPS, fused, reference
from seedtf.augment.policy import Parameters, Policy, draw_parameters

# (height, width) of the input and (height, width) of the output
SIZES = [((16, 16), (16, 16)), ((24, 17), (12, 20)), ((9, 30), (9, 30)), ((12, 12), (29, 23))]


def draw_waves(num_images: int, height: int, width: int) -> np.ndarray:
    """Images of waves along both axes, different in each channel: uint8 [num_images, H, W, 3]."""
    y, x = np.mgrid[:height, :width] / 6.0
    waves = [np.sin(x + k) + np.cos(y * (k + 1) / 2) for k in range(3 * num_images)]
    pixels = np.stack(waves).reshape(num_images, 3, height, width).transpose(0, 2, 3, 1)
    return np.round(127.5 + 60 * pixels).astype(np.uint8)


@settings(max_examples=40)
@given(
    st.sampled_from(SIZES),
    st.integers(0, 10_000),
    st.builds(
        Policy,
        crop=st.floats(0, 0.9),
        stretch=st.floats(0, 1),
        rotate=st.floats(0, 180),
        shear=st.floats(0, 45),
        flip=st.sampled_from(FLIPS),
        brightness=st.floats(0, 0.5),
        contrast=st.floats(0, 1),
        saturation=st.floats(0, 1),
        hue=st.floats(0, 180),
        zoom_out=st.floats(0, 0.2),
    ),
)
def test_fused_equals_the_chain_of_plain_operations(
    sizes: tuple[tuple[int, int], tuple[int, int]], seed: int, policy: Policy
) -> None:
    in_size, out_size = sizes
    images = tf.constant(draw_waves(6, *in_size))
    drawn = draw_parameters(policy, seed, tf.constant(0, tf.int64), tf.range(6, dtype=tf.int64))
    actual = fused.augment_images(images, drawn, out_size).numpy()
    expected = reference.augment_images(images, drawn, out_size).numpy()
    assert actual.shape == expected.shape == (6, *out_size, 3)
    difference = np.abs(actual - expected)
    assert difference.max() <= 0.05
    assert difference.mean() <= 0.002


def constant(num_images: int, value: float) -> tf.Tensor:
    return tf.fill([num_images], float(value))


def parameters_with(num_images: int, **changes: float) -> Parameters:
    """Parameters that change no image, except that those in ``changes`` have the given values."""
    values = dict.fromkeys(Parameters._fields, 0.0)
    values |= {"scale_x": 1, "scale_y": 1, "center_x": 0.5, "center_y": 0.5}
    values |= {"flip_x": 1, "flip_y": 1, "contrast": 1, "saturation": 1, **changes}
    return Parameters(**{name: constant(num_images, value) for name, value in values.items()})


IMAGES = tf.constant(np.random.default_rng(1).uniform(0, 255, (2, 6, 6, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, tf.identity),
        ({"flip_x": -1}, tf.image.flip_left_right),
        ({"flip_y": -1}, tf.image.flip_up_down),
        ({"rotate": math.pi / 2}, tf.image.rot90),
    ],
)
def test_flips_and_rotation_equal_those_of_tf_image(changes, expected) -> None:
    result = reference.transform(IMAGES, parameters_with(2, **changes), (6, 6))
    assert np.abs(result - expected(IMAGES)).max() < 0.01


def test_a_window_of_the_output_size_equals_a_crop() -> None:
    window = parameters_with(2, scale_x=0.5, scale_y=0.5, center_x=0.25, center_y=0.75)
    result = reference.transform(IMAGES, window, (3, 3))
    assert np.abs(result - IMAGES[:, 3:, :3]).max() < 0.01


def test_saturation_equals_the_blend_with_luma() -> None:
    result = reference.adjust_hue_saturation(IMAGES, constant(2, 0), constant(2, 0.4))
    luma = np.sum(IMAGES * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
    assert np.abs(result - (luma + 0.4 * (IMAGES - luma))).max() < 0.01


def test_hue_rotates_the_chroma_by_the_angle() -> None:
    """In the colour space YIQ, Y is the luma, and the chroma is the complex number I + iQ."""
    rotated = reference.adjust_hue_saturation(IMAGES, constant(2, 0.7), constant(2, 1))
    before, after = (np.einsum("...j,ij", image, fused.RGB_TO_YIQ) for image in (IMAGES, rotated))
    chroma = [image[..., 1] + 1j * image[..., 2] for image in (before, after)]
    assert np.abs(after[..., 0] - before[..., 0]).max() < 0.01
    assert np.abs(chroma[1] - chroma[0] * np.exp(0.7j)).max() < 0.01


def test_the_matrix_from_rgb_to_yiq_is_that_of_tf_image_up_to_rounding() -> None:
    ours = np.einsum("...j,ij", IMAGES, fused.RGB_TO_YIQ)
    assert np.abs(ours - tf.image.rgb_to_yiq(IMAGES)).max() < 255 * 2e-3


def test_each_image_has_its_own_contrast_and_brightness() -> None:
    factors = tf.constant([0.5, 2.0])
    result = reference.adjust_contrast(IMAGES, factors)
    # Contrast multiplies the distance from 127.5.
    assert np.abs(result[0] - (0.5 * IMAGES[0] + 63.75)).max() < 1e-3
    assert np.abs(result[1] - (2 * IMAGES[1] - 127.5)).max() < 1e-3
    shifted = reference.adjust_brightness(IMAGES, tf.constant([5.0, -7.0]))
    assert np.abs(shifted - IMAGES - np.array([5, -7]).reshape(2, 1, 1, 1)).max() < 1e-3
