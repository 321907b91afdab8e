"""Augmentation: random parameters from seed, epoch and record alone, and their effect on the pixels."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seedtf.augment import FLIPS
from seedtf.augment.fused import (
    RGB_TO_YIQ,
    YIQ_TO_RGB,
    affine_matrices,
    augment_images,
    compile_augmentation,
)
from seedtf.augment.policy import Parameters, Policy, draw_parameters, make_parameters
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError

IDENTITY = {
    "scale_x": 1.0,
    "scale_y": 1.0,
    "center_x": 0.5,
    "center_y": 0.5,
    "rotate": 0.0,
    "shear": 0.0,
    "flip_x": 1.0,
    "flip_y": 1.0,
    "brightness": 0.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.0,
}
EVERYTHING = Policy(0.3, 0.3, 180.0, 30.0, "both", 0.3, 0.4, 0.5, 60.0, zoom_out=0.1)
NOISE = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3)).astype(np.uint8)


def parameters(batch: int = 1, **changes: float) -> Parameters:
    """Parameters that change nothing except for ``changes``, the same for each image of the batch."""
    values = {**IDENTITY, **changes}
    return Parameters(**{name: tf.fill([batch], float(v)) for name, v in values.items()})


def apply(images: np.ndarray, out: tuple[int, int] | None = None, **changes: float) -> np.ndarray:
    images = images if images.ndim == 4 else images[None]
    drawn = parameters(len(images), **changes)
    return augment_images(tf.constant(images), drawn, out or images.shape[1:3]).numpy()


def draw(policy: Policy, seed: int, epoch: int, records: list[int]) -> dict[str, np.ndarray]:
    drawn = draw_parameters(
        policy, seed, tf.constant(epoch, tf.int64), tf.constant(records, tf.int64)
    )
    return {name: value.numpy() for name, value in drawn._asdict().items()}


def grey(*rows: list[int]) -> np.ndarray:
    """An image with the same value in all channels, uint8 [H, W, 3]."""
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=-1)


TILES = grey([10, 20, 30], [40, 50, 60], [70, 80, 90])


def test_identity_parameters_return_the_pixels() -> None:
    result = apply(NOISE)
    assert result.dtype == np.float32
    # The product of the two YIQ matrices is the identity only to float32 precision.
    assert np.abs(result - NOISE).max() < 1e-3


def test_the_yiq_matrices_are_inverse() -> None:
    assert np.allclose(np.array(YIQ_TO_RGB) @ np.array(RGB_TO_YIQ), np.eye(3), atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"flip_x": -1}, TILES[:, ::-1]),
        ({"flip_y": -1}, TILES[::-1]),
        ({"flip_x": -1, "flip_y": -1}, TILES[::-1, ::-1]),
        ({"rotate": math.pi / 2}, np.rot90(TILES)),
        ({"rotate": -math.pi / 2}, np.rot90(TILES, -1)),
        ({"rotate": math.pi}, TILES[::-1, ::-1]),
        ({"brightness": 12.5}, TILES + 12.5),
        ({"brightness": -35}, np.maximum(TILES - 35.0, 0)),
        ({"brightness": 200}, np.minimum(TILES + 200.0, 255)),
        ({"contrast": 0}, np.full_like(TILES, 127.5, np.float32)),
        ({"contrast": 1.5}, np.maximum(1.5 * (TILES - 127.5) + 127.5, 0)),
        ({"contrast": 0.5, "brightness": 10}, 0.5 * (TILES - 127.5) + 137.5),
    ],
)
def test_parameters_give_pixels_worked_out_by_hand(
    changes: dict[str, float], expected: np.ndarray
) -> None:
    result = apply(TILES, **changes)[0]
    assert result == pytest.approx(expected.astype(np.float32), abs=1e-3)


def test_a_magnified_pixel_keeps_its_center_and_blends_at_its_sides() -> None:
    result = apply(TILES, scale_x=1 / 3, scale_y=1 / 3)[0]
    assert result[1, 1] == pytest.approx(50.0, abs=1e-3)
    assert result[1, 0] == pytest.approx(50 - 10 / 3, abs=1e-3)


def test_a_corner_can_be_cropped() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    result = apply(grey(*image), (2, 2), scale_x=0.5, scale_y=0.5, center_x=0.75, center_y=0.25)
    assert result[0, ..., 0] == pytest.approx(np.array([[2, 3], [6, 7]]), abs=1e-3)


def test_the_image_is_mirrored_beyond_its_edges() -> None:
    result = apply(grey([10, 20, 30, 40], [10, 20, 30, 40]), center_x=1.0)
    assert result[0, 0, :, 0] == pytest.approx([30, 40, 40, 30], abs=1e-3)


def test_shear_shifts_each_row_by_its_distance_from_the_middle() -> None:
    image = np.repeat(np.arange(0, 90, 10, dtype=np.uint8)[None], 9, axis=0)
    result = apply(grey(*image), shear=math.pi / 4)[0, ..., 0]
    assert result[4] == pytest.approx(image[4], abs=1e-3)
    assert result[5, 1:7] == pytest.approx(image[4, 2:8], abs=1e-3)


def test_saturation_0_gives_the_luma() -> None:
    luma = NOISE.astype(np.float64) @ [0.299, 0.587, 0.114]
    result = apply(NOISE, saturation=0.0)
    assert np.abs(result - luma[..., None]).max() < 0.01


def test_hue_changes_colours_but_neither_greys_nor_luma() -> None:
    assert apply(TILES, hue=1.0)[0] == pytest.approx(TILES.astype(float), abs=0.01)
    color = np.full((2, 2, 3), (120, 100, 90), np.uint8)
    rotated = apply(color, hue=1.0)[0]
    assert np.abs(rotated - color).max() > 10
    weights = [0.299, 0.587, 0.114]
    assert rotated @ weights == pytest.approx(color @ weights, abs=0.01)
    assert apply(color, hue=2 * math.pi)[0] == pytest.approx(color.astype(float), abs=0.01)


@pytest.mark.parametrize("out", [(3, 4), (18, 14), (9, 7), (1, 1)])
def test_the_result_has_the_requested_size(out: tuple[int, int]) -> None:
    result = apply(NOISE, out, rotate=0.3)
    assert result.shape == (4, *out, 3)
    assert result.dtype == np.float32
    plain = apply(np.full((2, 9, 7, 3), 77, np.uint8), out, rotate=0.3, scale_x=0.5)
    assert plain == pytest.approx(np.full((2, *out, 3), 77.0), abs=1e-3)


def test_an_image_is_enlarged_bilinearly() -> None:
    image = grey([0, 100], [200, 40])
    result = apply(image, (4, 4))[0, ..., 0]
    assert result[0].tolist() == pytest.approx([0, 25, 75, 100], abs=1e-3)
    assert result[0, 0] == pytest.approx(0, abs=1e-3)
    assert result[3, 0] == pytest.approx(200, abs=1e-3)


def test_parameters_do_not_depend_on_the_batch() -> None:
    single = [draw(EVERYTHING, 5, 2, [record]) for record in (7, 0, 123_456_789)]
    batched = draw(EVERYTHING, 5, 2, [3, 7, 0, 9, 123_456_789])
    for name, values in batched.items():
        assert values.dtype == np.float32
        assert values[[1, 2, 4]].tolist() == [drawn[name][0] for drawn in single]


def test_records_epochs_and_seeds_have_different_parameters() -> None:
    drawn = [
        draw(EVERYTHING, seed, epoch, [0, 1, 2, 1_000_000])["rotate"].tolist()
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
    ]
    assert len(set(np.ravel(drawn).tolist())) == 36


def test_the_parameters_of_seed_7_never_change() -> None:
    """Runs of earlier versions resume exactly only while these numbers stay the same."""
    drawn = draw(EVERYTHING, 7, 1, [0, 5])
    assert drawn["rotate"] == pytest.approx([-2.492198, 2.225314], abs=1e-5)
    assert drawn["hue"] == pytest.approx([0.067176, 0.652538], abs=1e-6)


unit = st.floats(0, 1)
policies = st.builds(
    Policy,
    crop=st.floats(0, 0.9),
    stretch=unit,
    rotate=st.floats(0, 180),
    shear=st.floats(0, 45),
    flip=st.sampled_from(FLIPS),
    brightness=unit,
    contrast=unit,
    saturation=unit,
    hue=st.floats(0, 180),
    zoom_out=st.floats(0, 0.2),
)


def test_the_help_says_which_part_of_a_side_is_lost_to_crop_and_stretch() -> None:
    policy = TrainConfig(data_dir="x", zoom_out=0.0).make_policy()
    largest_draw = 1 - 2.0**-24  # random numbers are multiples of 2**-24 below 1
    scale = make_parameters(policy, tf.fill([12, 1], largest_draw)).scale_y
    (crop,) = (field for field in dataclasses.fields(TrainConfig) if field.name == "crop")
    assert f"up to {round(100 * (1 - float(scale[0])))} % of it is lost" in crop.metadata["help"]


def test_equal_crop_and_zoom_out_keep_the_scale_on_average() -> None:
    drawn = draw(Policy(stretch=0.0), 0, 0, list(range(20_000)))
    scale = drawn["scale_x"]
    assert (scale.min(), scale.max()) == pytest.approx((0.9, 1.1), abs=1e-3)
    # The standard error of the mean is 0.2 / √12 / √20,000 = 0.0004.
    assert scale.mean() == pytest.approx(1.0, abs=0.002)
    one_way = draw(Policy(crop=0.2, zoom_out=0.0, stretch=0.0), 0, 0, list(range(20_000)))
    assert one_way["scale_x"] == pytest.approx(scale - 0.1, abs=1e-6)


def test_a_zoomed_out_image_is_framed_by_its_mirror_image() -> None:
    image = np.arange(1, 9, dtype=np.uint8) * 10
    result = apply(grey(*np.tile(image, (8, 1))), (16, 16), scale_x=2.0, scale_y=2.0)[0, 8, :, 0]
    expected = np.concatenate([image[3::-1], image, image[:3:-1]])
    assert result == pytest.approx(expected.astype(np.float32), abs=1e-3)


def test_the_largest_window_reads_less_than_the_size_of_the_image_outside_of_it() -> None:
    uniforms = np.zeros((12, 2 * 721), np.float32)  # the largest window, far off the middle
    uniforms[1] = 0.5  # not stretched, so that both sides are the largest
    uniforms[4] = np.tile(np.linspace(0, 1, 721), 2)  # rotated by −180 to 180 degrees
    uniforms[5] = np.repeat([0.0, 1.0], 721)  # sheared by −45 and 45 degrees
    policy = Policy(crop=0.0, rotate=180.0, shear=45.0).scaled(10.0)  # each range at its limit
    size = (40, 100)
    matrices = affine_matrices(make_parameters(policy, tf.constant(uniforms)), size, size).numpy()
    corners = np.array([[u, v, 1] for u in (-0.5, 99.5) for v in (-0.5, 39.5)])
    sides = (np.einsum("bij,kj->bki", matrices, corners) + 0.5) / [100, 40]
    assert sides.min() > -1
    assert 1.9 < sides.max() < 2


@given(policies, st.integers(0, 2**31), st.integers(0, 1000))
def test_parameters_stay_within_the_policy(policy: Policy, seed: int, epoch: int) -> None:
    drawn = draw(policy, seed, epoch, list(range(64)))
    tolerance = 1e-5
    for axis in ("x", "y"):
        scale, center = drawn[f"scale_{axis}"], drawn[f"center_{axis}"]
        smallest = (1 - policy.crop) / math.sqrt(1 + policy.stretch)
        assert np.all((scale >= smallest - tolerance) & (scale <= np.float32(1 + policy.zoom_out)))
        # The window lies inside the image, or the image inside the window.
        assert np.all(np.abs(center - 0.5) <= np.abs(1 - scale) / 2 + tolerance)
    middle_and_reach = {
        "rotate": (0, math.radians(policy.rotate)),
        "shear": (0, math.radians(policy.shear)),
        "brightness": (0, 255 * policy.brightness),
        "contrast": (1, policy.contrast),
        "saturation": (1, policy.saturation),
        "hue": (0, math.radians(policy.hue)),
    }
    for name, (middle, reach) in middle_and_reach.items():
        assert np.all(np.abs(drawn[name] - middle) <= reach * (1 + tolerance) + 1e-6), name
    for axis, directions in (("x", ("horizontal", "both")), ("y", ("vertical", "both"))):
        seen = set(drawn[f"flip_{axis}"].tolist())
        assert seen == ({-1.0, 1.0} if policy.flip in directions else {1.0})


def test_the_generator_is_uniform_and_its_numbers_are_independent() -> None:
    """The draws of 20,000 images are uncorrelated and pass a chi-square test at the level of 0.0001."""
    policy = Policy(0.9, 0.0, 180.0, 45.0, "both", 1.0, 1.0, 1.0, 180.0)
    drawn = draw(policy, 3, 0, list(range(20_000)))
    names = ("rotate", "shear", "brightness", "contrast", "saturation", "hue")
    columns = [drawn[name] for name in names]
    units = np.stack([(c - np.mean(c)) / (np.max(np.abs(c - np.mean(c)))) for c in columns])
    assert np.abs(np.corrcoef(units) - np.eye(len(names))).max() < 0.04
    neighbours = [np.corrcoef(u[:-1], u[1:])[0, 1] for u in units]
    assert np.abs(neighbours).max() < 0.04
    for name, reach in (("rotate", math.pi), ("brightness", 255.0), ("hue", math.pi)):
        counts, _ = np.histogram(drawn[name], bins=20, range=(-reach, reach))
        # Each bin should have 20,000 / 20 = 1000 draws. 50.8 is the 0.9999 quantile of the chi-square
        # distribution with 19 degrees of freedom.
        assert np.sum((counts - 1000.0) ** 2 / 1000.0) < 50.8, name
    assert abs(np.mean(drawn["flip_x"])) < 0.03
    assert abs(np.mean(drawn["flip_x"] * drawn["flip_y"])) < 0.03


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop": 2}, r"Augment\(crop=2\): pass a number from 0 to 0.9"),
        ({"zoom_out": 0.25}, r"Augment\(zoom_out=0.25\): pass a number from 0 to 0.2"),
        ({"rotate": -1.0}, r"Augment\(rotate=-1.0\): pass a number from 0 to 180"),
        ({"hue": math.nan}, r"Augment\(hue=nan\)"),
        ({"shear": "10"}, r"Augment\(shear='10'\)"),
        ({"flip": "left"}, r"Augment\(flip='left'\): choose from none, horizontal"),
    ],
)
def test_a_range_outside_its_limits_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Policy(**wrong)


def test_a_range_and_the_strength_may_be_numpy_numbers() -> None:
    assert Policy(hue=np.float32(2.0), crop=np.int64(0)).scaled(np.float32(0.5)).hue == 1.0


def test_strength_0_gives_the_identity_parameters() -> None:
    drawn = draw(EVERYTHING.scaled(0.0), 0, 0, [0, 1, 2, 3])
    for name, value in IDENTITY.items():
        assert drawn[name] == pytest.approx(value, abs=0), name


def test_strength_scales_every_range_within_its_limits() -> None:
    half, clipped = EVERYTHING.scaled(0.5), EVERYTHING.scaled(100.0)
    assert half == Policy(0.15, 0.15, 90.0, 15.0, "both", 0.15, 0.2, 0.25, 30.0, 0.25, 0.05)
    assert clipped == Policy(0.9, 1.0, 180.0, 45.0, "both", 1.0, 1.0, 1.0, 180.0, 0.5, 0.2)
    assert EVERYTHING.scaled(1.0) == EVERYTHING


@pytest.fixture(scope="module")
def compiled():
    return compile_augmentation(EVERYTHING, 5, (8, 6))


def test_compiled_calls_eager_calls_and_tf_data_give_the_same_pixels(compiled) -> None:
    epoch, records = tf.constant(3, tf.int64), tf.constant([4, 9, 0, 7], tf.int64)
    eager = augment_images(
        tf.constant(NOISE), draw_parameters(EVERYTHING, 5, epoch, records), (8, 6)
    )
    assert np.abs(compiled(tf.constant(NOISE), epoch, records) - eager).max() < 0.02
    dataset = tf.data.Dataset.from_tensors((NOISE, epoch, records)).map(compiled)
    assert dataset.element_spec == tf.TensorSpec([4, 8, 6, 3], tf.float32)
    piped = next(dataset.as_numpy_iterator())
    assert np.array_equal(piped, compiled(tf.constant(NOISE), epoch, records))


@pytest.mark.parametrize("whole_batch", [False, True])
def test_xla_takes_index_and_weight_of_a_pixel_from_the_same_position(
    whole_batch: bool,
) -> None:
    """Shear puts positions close to integers, where rounding could pair a pixel with a wrong weight.

    In noise, neighbouring pixels differ, so that a wrong pair would change the result.
    """
    noise = np.random.default_rng(0).integers(0, 256, (16, 97, 97, 3)).astype(np.uint8)
    epoch, records = tf.constant(3, tf.int64), tf.range(16, dtype=tf.int64)
    policy = Policy(shear=20.0)
    eager = augment_images(tf.constant(noise), draw_parameters(policy, 5, epoch, records), (80, 80))
    augmentation = compile_augmentation(policy, 5, (80, 80), whole_batch=whole_batch)
    assert np.abs(augmentation(tf.constant(noise), epoch, records) - eager).max() < 0.02


def test_the_pixels_of_a_record_do_not_depend_on_the_batch(compiled) -> None:
    epoch = tf.constant(1, tf.int64)
    ordered = compiled(tf.constant(NOISE), epoch, tf.constant([4, 9, 0, 7], tf.int64))
    swapped = compiled(tf.constant(NOISE[::-1]), epoch, tf.constant([7, 0, 9, 4], tf.int64))
    assert np.array_equal(ordered, swapped[::-1])


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_argument_rows_selects_images_of_a_store(compiled, deterministic: bool) -> None:
    epoch, records = tf.constant(1, tf.int64), tf.constant([4, 9, 0, 7], tf.int64)
    rows = [6, 0, 3, 5]
    store = np.full((8, *NOISE.shape[1:]), 255, np.uint8)
    store[rows] = NOISE
    augmentation = compile_augmentation(EVERYTHING, 5, (8, 6), deterministic=deterministic)
    augmented = augmentation(tf.constant(store), epoch, records, tf.constant(rows, tf.int64))
    assert np.array_equal(augmented, compiled(tf.constant(NOISE), epoch, records))


@given(policies, st.integers(0, 1000))
def test_pixels_stay_in_range_for_all_parameters(policy: Policy, seed: int) -> None:
    epoch, records = tf.constant(0, tf.int64), tf.range(4, dtype=tf.int64)
    drawn = draw_parameters(policy, seed, epoch, records)
    result = augment_images(tf.constant(NOISE), drawn, (5, 5)).numpy()
    assert np.all((result >= 0) & (result <= 255))
