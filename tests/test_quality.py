"""Poor images are reported under the name of their fault, unless many images of the folder have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy import ndimage

from seedtf.data.check.quality import QUALITY_SIZE, find_poor, halve, measure_quality

RNG = np.random.default_rng(1)


def draw_photograph(blobs_per_side: int) -> Image.Image:
    """A square of blurred blobs of colour, with noise like the fine texture of a photograph."""
    coarse = RNG.integers(40, 200, (blobs_per_side, blobs_per_side, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((QUALITY_SIZE,) * 2, Image.Resampling.BICUBIC)
    smooth = np.asarray(image, np.float32)
    grain = ndimage.gaussian_filter(RNG.normal(0, 25, smooth.shape), (0.7, 0.7, 0))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


PHOTOGRAPHS = [draw_photograph(4 + number % 5) for number in range(60)]
GOOD_MEASURES = [measure_quality(np.asarray(image)) for image in PHOTOGRAPHS]


def find_faults(*images: np.ndarray) -> list[tuple[int, str]]:
    """The index and the fault of each poor image of a folder with the 60 good images and ``images``.

    Index 0 is the first of ``images``.
    """
    measured = [measure_quality(np.asarray(image, np.uint8)) for image in images]
    return [
        (index - 60, fault) for index, fault, _ in find_poor(np.array(GOOD_MEASURES + measured))
    ]


def test_good_images_are_not_reported() -> None:
    assert find_faults() == []


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("blurred", lambda image: image.filter(ImageFilter.GaussianBlur(2))),
        ("blurred", lambda image: image.resize((36, 36)).resize(image.size)),
        ("dark", lambda image: image.point(lambda value: value * 0.15)),
        ("over-exposed", lambda image: image.point(lambda value: min(value * 4, 255))),
        ("nearly uniform", lambda image: Image.new("RGB", image.size, (90, 120, 60))),
        ("nearly uniform", lambda image: image.point(lambda value: 100 + value * 0.03)),
    ],
)
def test_each_fault_is_reported_under_its_name(fault: str, spoil) -> None:
    found = find_faults(*(spoil(image) for image in PHOTOGRAPHS[:3]))
    assert [each for each in found if each[1] == fault] == [(0, fault), (1, fault), (2, fault)]
    assert {name for _, name in found} == {fault}


def test_a_property_that_many_images_share_is_not_reported() -> None:
    dark = [np.asarray(image) * 0.15 for image in PHOTOGRAPHS[:8]]
    assert len(find_faults(*dark[:3])) == 3
    assert find_faults(*dark) == []


def test_blur_is_not_reported_in_a_folder_of_few_images() -> None:
    sharp = measure_quality(np.asarray(PHOTOGRAPHS[0]))
    soft = measure_quality(np.asarray(PHOTOGRAPHS[1].filter(ImageFilter.GaussianBlur(4))))
    assert list(find_poor(np.array([sharp] * 5 + [soft]))) == []
    assert list(find_poor(np.empty((0, 5), np.float32))) == []


@given(st.integers(0, 59), st.floats(0.5, 1.0), st.integers(-20, 20))
def test_measures_agree_with_scipy(number: int, factor: float, offset: int) -> None:
    pixels = np.asarray(PHOTOGRAPHS[number], np.float32) * factor + offset
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    variance = ndimage.laplace(grey)[1:-1, 1:-1].var()
    variance_at_half_size = ndimage.laplace(grey.reshape(72, 2, 72, 2).mean((1, 3)))[
        1:-1, 1:-1
    ].var()
    sharpness, detail, brightness, _, contrast = measure_quality(image)
    np.testing.assert_allclose(sharpness, np.log(variance + 1e-3), rtol=1e-4)
    expected_detail = np.log(variance + 1e-3) - np.log(variance_at_half_size + 1e-3)
    np.testing.assert_allclose(detail, expected_detail, atol=1e-3)
    np.testing.assert_allclose(brightness, np.percentile(grey, 95), rtol=1e-4)
    np.testing.assert_allclose(contrast, image.reshape(-1, 3).std(0).max(), rtol=1e-4)


def test_the_text_for_a_blurred_image_names_each_measure_that_is_too_low() -> None:
    # In the first row the sharpness is too low, in the second the detail, in the third both.
    low = [[3, 0, 200, 0, 30], [5, -1, 200, 0, 30], [3, -1, 200, 0, 30]]
    found = find_poor(np.array(low + 40 * [[5, 0, 200, 0, 30]], np.float32))
    sharpness = "variance of the Laplacian: 0.14 times the folder's median"
    detail = (
        "variance of the Laplacian divided by that at half the size: 0.37 times the folder's median"
    )
    assert list(found) == [
        (0, "blurred", sharpness),
        (1, "blurred", detail),
        (2, "blurred", f"{sharpness}; {detail}"),
    ]


def test_halving_is_the_mean_of_four_pixels() -> None:
    image = RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BOX), np.int16)
    assert np.abs(halve(image).astype(np.int16) - expected).max() <= 1
