"""MixUp, CutMix and Random Erasing: their random numbers follow from seed, epoch and record alone.

A record is the index of an image among all images of a run.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.augment.mixing import Mixing, beta_quantiles, mix

SIDE = 12
ALL = Mixing(mixup=0.4, cutmix=1.0, random_erasing=0.5)


def mix_images(
    images: np.ndarray, records: list[int], mixing: Mixing, *, seed: int = 0, epoch: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mixed images and labels; before they are mixed, each image has a class of its own."""
    mixed, labels = mix(
        tf.constant(images, tf.float32),
        tf.eye(len(images)),
        tf.constant(epoch, tf.int64),
        tf.constant(records, tf.int64),
        seed=seed,
        mixing=mixing,
    )
    return mixed.numpy(), labels.numpy()


def black_and_white(count: int, side: int = SIDE) -> np.ndarray:
    """Black images and white ones in turn, so that a mixed image shows the weight of each pixel."""
    values = np.arange(count) % 2 * 255.0
    return np.broadcast_to(values[:, None, None, None], (count, side, side, 3)).astype(np.float32)


def own_pixel_weights(mixed: np.ndarray) -> np.ndarray:
    """The weight of each image in its own pixels, for a mixed ``black_and_white``: ``[B, H, W]``."""
    own = mixed[..., 0] / 255.0
    return np.where((np.arange(len(mixed)) % 2 == 1)[:, None, None], own, 1.0 - own)


def own_weight(labels: np.ndarray) -> np.ndarray:
    """The weight that each image's own class has in its mixed label: ``[B]``."""
    return np.diagonal(labels).copy()


def assert_rectangle(inside: np.ndarray) -> tuple[int, int, int, int]:
    """Asserts that bool ``[H, W]`` is one filled rectangle; returns its top, bottom, left and right."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    assert inside[top:bottom, left:right].all()
    assert inside.sum() == (bottom - top) * (right - left)
    return int(top), int(bottom), int(left), int(right)


alphas = st.sampled_from([0.0, 0.2, 1.0, 3.0])
mixings = st.builds(Mixing, alphas, alphas, st.sampled_from([0.0, 0.5, 1.0]))


@given(mixings, st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(1, 9))
def test_labels_are_distributions_over_two_classes_and_pixels_in_range(
    mixing: Mixing, seed: int, epoch: int, count: int
) -> None:
    images = np.random.default_rng(count).uniform(0, 255, (count, 8, 6, 3)).astype(np.float32)
    mixed, labels = mix_images(images, list(range(count)), mixing, seed=seed, epoch=epoch)
    assert mixed.shape == images.shape
    assert mixed.dtype == labels.dtype == np.float32
    assert labels.min() >= 0
    assert labels.sum(1) == pytest.approx(np.ones(count), abs=1e-6)
    others = labels - np.diag(own_weight(labels))
    partner = np.roll(np.eye(count), -1, 0) if count > 1 else np.zeros((1, 1))
    assert not others[partner == 0].any()
    assert mixed.min() >= 0
    assert mixed.max() <= 255.001


def test_without_mixup_cutmix_or_random_erasing_nothing_changes() -> None:
    assert not Mixing(0.0, 0.0, 0.0).is_active
    assert all(
        m.is_active for m in (Mixing(mixup=0.1), Mixing(cutmix=1), Mixing(random_erasing=0.1))
    )
    images = black_and_white(4)
    mixed, labels = mix_images(images, [0, 1, 2, 3], Mixing())
    assert (mixed == images).all()
    assert (labels == np.eye(4)).all()


def test_mixup_blends_pixels_and_labels_by_the_same_weight() -> None:
    mixed, labels = mix_images(black_and_white(64), list(range(64)), Mixing(mixup=1.0))
    kept = own_pixel_weights(mixed)
    assert kept == pytest.approx(
        np.broadcast_to(own_weight(labels)[:, None, None], kept.shape), abs=1e-5
    )
    assert len(set(own_weight(labels).tolist())) > 60


def test_cutmix_pastes_one_rectangle_and_labels_have_its_exact_area() -> None:
    mixed, labels = mix_images(black_and_white(256), list(range(256)), Mixing(cutmix=1.0))
    kept = own_pixel_weights(mixed)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert kept.mean((1, 2)) == pytest.approx(own_weight(labels), abs=1e-6)
    boxes = [assert_rectangle(k == 0) for k in kept if not k.all()]
    clipped = [
        top == 0 or bottom == SIDE or left == 0 or right == SIDE
        for top, bottom, left, right in boxes
    ]
    assert len(boxes) > 200
    assert 0.3 < np.mean(clipped) < 0.95
    # Before they are clipped, rectangles have the aspect ratio of the image, which is square here.
    squares = [box for box, is_clipped in zip(boxes, clipped, strict=True) if not is_clipped]
    assert all(bottom - top == right - left for top, bottom, left, right in squares)


def test_a_pasted_part_has_the_same_position_in_the_next_image() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (16, SIDE, SIDE, 3)).astype(np.float32)
    mixed, _ = mix_images(images, list(range(16)), Mixing(cutmix=1.0))
    own, partner = mixed == images, mixed == np.roll(images, -1, 0)
    assert (own | partner).all()
    assert own.any()
    assert partner.any()


def test_the_mean_area_that_cutmix_keeps_follows_from_the_beta_distribution() -> None:
    """With a large alpha, the rectangle has about half of the area before it is clipped."""
    _, labels = mix_images(black_and_white(512, 32), list(range(512)), Mixing(cutmix=10.0))
    side = np.sqrt(0.5)
    # Of an interval of length s around a uniform center, on average s − s²/4 lies inside [0, 1].
    expected = 1 - (side - side**2 / 4) ** 2
    assert own_weight(labels).mean() == pytest.approx(expected, abs=0.02)
    assert own_weight(labels).min() > 0.15


def test_mixup_and_cutmix_together_mix_half_of_the_images_each() -> None:
    mixed, labels = mix_images(
        black_and_white(1000, 4), list(range(1000)), Mixing(mixup=10.0, cutmix=10.0)
    )
    kept = own_pixel_weights(mixed)
    pasted = ((kept == 0) | (kept == 1)).all((1, 2))
    # 62 is 3.9 standard deviations of the binomial distribution.
    assert abs(pasted.sum() - 500) < 62
    assert kept.mean((1, 2)) == pytest.approx(own_weight(labels), abs=1e-5)


def test_erasing_follows_the_probability_and_the_sizes_of_the_paper() -> None:
    side, count = 64, 600
    mixed, labels = mix_images(
        np.full((count, side, side, 3), -1.0), list(range(count)), Mixing(random_erasing=0.3)
    )
    assert (labels == np.eye(count)).all()
    inside = (mixed >= 0).all(-1)
    assert ((mixed == -1).all(-1) | inside).all()
    boxes = [assert_rectangle(k) for k in inside if k.any()]
    # 44 is 3.9 standard deviations of the binomial distribution.
    assert abs(len(boxes) - 180) < 44
    sides = np.array([(bottom - top, right - left) for top, bottom, left, right in boxes])
    areas, aspects = sides.prod(1) / side**2, sides[:, 0] / sides[:, 1]
    # Rounding changes a side by up to half a pixel; the shortest side has 5 pixels.
    assert 0.017 < areas.min() < 0.04
    assert 0.30 < areas.max() < 0.345
    assert areas.mean() == pytest.approx(0.175, abs=0.03)
    assert 0.26 < aspects.min() < 0.36
    assert 2.8 < aspects.max() < 3.75
    assert np.log(aspects).mean() == pytest.approx(0, abs=0.2)
    edge_distances = np.array(
        [(top, side - bottom, left, side - right) for top, bottom, left, right in boxes]
    )
    assert edge_distances.min(0).max() <= 1, "no rectangle comes near one of the four edges"


def test_probability_one_erases_every_image_and_zero_none() -> None:
    images = np.full((200, 8, 8, 3), -1.0)
    mixed, _ = mix_images(images, list(range(200)), Mixing(random_erasing=1.0))
    assert (mixed >= 0).any((1, 2, 3)).all()
    # With a tiny probability, or with CutMix only, none of 200 images is erased.
    for mixing in (Mixing(random_erasing=1e-9), Mixing(cutmix=1.0)):
        mixed, _ = mix_images(images, list(range(200)), mixing)
        assert (mixed == -1).all()


def test_noise_is_uniform_over_grey_levels_and_uncorrelated() -> None:
    """Chi-square over 256 grey levels, and correlations between channels and neighbouring pixels.

    With 255 degrees of freedom, chi-square exceeds 347 in one of 10,000 cases.
    """
    mixed, _ = mix_images(
        np.full((64, 48, 48, 3), -1.0), list(range(64)), Mixing(random_erasing=1.0)
    )
    noise = mixed[(mixed >= 0).all(-1)]  # [pixels, 3]
    assert (noise == np.round(noise)).all()
    counts = np.bincount(noise.astype(int).ravel(), minlength=256)
    expected = noise.size / 256
    assert expected > 200
    assert np.sum((counts - expected) ** 2 / expected) < 347
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.03


def erased(count: int, records: list[int], mixing: Mixing) -> np.ndarray:
    """Where Random Erasing puts noise, before images are mixed: bool ``[B, H, W]``."""
    blank = np.full((count, SIDE, SIDE, 3), -1.0)
    only = Mixing(random_erasing=mixing.random_erasing)
    return (mix_images(blank, records, only, seed=5, epoch=2)[0] >= 0).all(-1)


@pytest.mark.parametrize("mixing", [ALL, Mixing(cutmix=1.0), Mixing(random_erasing=1.0)])
def test_random_numbers_of_a_record_do_not_depend_on_its_batch(mixing: Mixing) -> None:
    images, records = black_and_white(6), [7, 3, 10**12, 0, 9, 4]
    together, labels = mix_images(images, records, mixing, seed=5, epoch=2)
    erased_together = erased(6, records, mixing)
    for position, record in ((1, 3), (3, 0), (5, 4)):
        # In another batch, the same white image and record is mixed with another black image.
        other, other_labels = mix_images(images[:2], [99, record], mixing, seed=5, epoch=2)
        erased_in_other = erased(2, [99, record], mixing)
        assert own_weight(other_labels)[1] == own_weight(labels)[position]
        assert (erased_in_other[1] == erased_together[position]).all()
        # The noise in a black image depends on the record of that image. So pixels where either black
        # image has noise are not compared.
        partner_noise = erased_in_other[0] | erased_together[(position + 1) % 6]
        partner_noise &= mixing.mixup > 0 or mixing.cutmix > 0
        assert (~partner_noise).mean() > 0.3
        assert (other[1] == together[position])[~partner_noise].all()


def test_records_epochs_and_seeds_have_different_weights() -> None:
    weights = [
        own_weight(
            mix_images(black_and_white(4), [0, 1, 2, 10**6], Mixing(mixup=1.0), seed=s, epoch=e)[1]
        ).tolist()
        for s in (0, 1, 2)
        for e in (0, 1, 2)
    ]
    # Among 36 draws from 16,384 values, two are equal in one of 26 cases. Three equal pairs practically
    # never occur.
    assert len(set(np.ravel(weights).tolist())) >= 34


@pytest.mark.parametrize("mixing", [ALL, Mixing(mixup=0.2), Mixing(cutmix=1.0, random_erasing=1.0)])
def test_eager_tf_data_and_xla_values_agree(mixing: Mixing) -> None:
    images = np.random.default_rng(1).uniform(0, 255, (32, SIDE, SIDE, 3)).astype(np.float32)
    batch = (images, tf.eye(32), tf.constant(3, tf.int64), tf.range(100, 132, dtype=tf.int64))

    def mix_batch(*batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return mix(*batch, seed=5, mixing=mixing)

    eager = mix_batch(*batch)
    compiled = tf.function(mix_batch, jit_compile=True)(*map(tf.constant, batch))
    dataset = tf.data.Dataset.from_tensors(batch).map(mix_batch)
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [
        [32, SIDE, SIDE, 3],
        [32, 32],
    ]
    for mixed in (compiled, next(iter(dataset))):
        assert mixed[0].numpy() == pytest.approx(eager[0].numpy(), abs=1e-4)
        assert mixed[1].numpy() == pytest.approx(eager[1].numpy(), abs=1e-7)


def test_mix_runs_inside_a_compiled_train_step() -> None:
    weight = tf.Variable(tf.ones([3, 4]))

    @tf.function(jit_compile=True)
    def step(images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, records: tf.Tensor):
        with tf.GradientTape() as tape:
            images, labels = mix(images, labels, epoch, records, seed=1, mixing=ALL)
            logits = tf.reduce_mean(images, [1, 2]) @ weight
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
        return tape.gradient(loss, weight)

    gradient = step(
        tf.constant(black_and_white(4)),
        tf.eye(4),
        tf.constant(0, tf.int64),
        tf.range(4, dtype=tf.int64),
    )
    assert np.isfinite(gradient.numpy()).all()
    assert np.abs(gradient.numpy()).max() > 0


def test_the_mix_of_seed_seven_never_changes() -> None:
    """Runs of earlier versions resume exactly only while these numbers stay the same."""
    mixed, labels = mix_images(black_and_white(6), [0, 5, 9, 2, 8, 3], ALL, seed=7, epoch=1)
    assert own_weight(labels) == pytest.approx(
        [0.836291, 0.625, 0.02458, 0.652371, 0.888889, 0.120174], abs=1e-6
    )
    assert mixed.sum((1, 2, 3)) == pytest.approx(
        [28757.5, 59517.0, 107452.3, 77896.6, 29590.0, 25341.8], rel=1e-5
    )


@settings(max_examples=15)
@given(st.floats(0.05, 10.0))
def test_the_quantiles_are_those_of_the_beta_distribution(a: float) -> None:
    quantiles = beta_quantiles(a, 2000)
    assert np.all(np.diff(quantiles) >= 0)
    assert quantiles + quantiles[::-1] == pytest.approx(np.ones(2000), abs=1e-12)
    assert np.var(quantiles) == pytest.approx(1 / (4 * (2 * a + 1)), rel=1e-3)
    # For a small a, the upper quantiles are rounded to 1. Because the distribution is symmetric, the
    # lower half of the quantiles is enough.
    lower = tf.math.betainc(
        *(
            tf.constant(v, tf.float64)
            for v in (np.full(1000, a), np.full(1000, a), quantiles[:1000])
        )
    )
    assert lower.numpy() == pytest.approx((np.arange(1000) + 0.5) / 2000, abs=1e-5)


@pytest.mark.parametrize("a", [1e-6, 1e-3, 10.0])
def test_extreme_parameters_of_the_beta_distribution_have_finite_quantiles(a: float) -> None:
    quantiles = beta_quantiles(a)
    assert np.isfinite(quantiles).all()
    assert quantiles.min() >= 0
    assert quantiles.max() <= 1


def test_with_the_parameter_1_the_quantiles_are_uniform() -> None:
    assert beta_quantiles(1.0, 10) == pytest.approx(np.arange(0.05, 1, 0.1), abs=1e-12)
