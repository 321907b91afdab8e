"""Pipelines in TensorFlow: seedtf itself, and operations of tf.image."""

from __future__ import annotations

import os
from typing import Any

from peers.work import (
    BATCH_SIZE,
    BRIGHTNESS,
    CONTRAST,
    CROP,
    HUE,
    IN_SIZE,
    NUM_IMAGES,
    OUT_SIZE,
    SATURATION,
    STRETCH,
    Batches,
    noise_images,
)


def import_tensorflow(threads: int) -> Any:
    """The module tensorflow, imported with the settings of the ``seedtf`` command.

    The ``seedtf`` command adds its own XLA flags only if ``XLA_FLAGS`` is not set. ``--without_avx512``
    of benchmark_peers.py sets it. This function adds the command's flags in either case, so that the
    runs with and without AVX-512 differ in nothing else.
    """
    from seedtf.compat import tensorflow_env

    given_flags = os.environ.pop("XLA_FLAGS", "")
    tensorflow_env.set_performance_switches()
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {given_flags}".strip()
    tensorflow_env.import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return tf


def prefetched(tf: Any, dataset: Any, threads: int) -> Batches:
    """The batches of a tf.data dataset, which uses a private pool of ``threads`` threads."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    return iter(dataset.prefetch(2).with_options(options))


def _seedtf(threads: int, variant: str) -> Batches:
    import_tensorflow(threads)
    from seedtf.augment.policy import Policy
    from seedtf.benchmark.pipeline import make_batches, store_of_images

    # Its defaults for the rest are BRIGHTNESS, CONTRAST and SATURATION.
    policy = Policy(crop=CROP, stretch=STRETCH, rotate=180.0, hue=HUE, zoom_out=0.0)
    return iter(
        make_batches(store_of_images(noise_images()), OUT_SIZE, BATCH_SIZE, policy, variant)
    )


def seedtf_host(threads: int) -> Batches:
    """seedtf's training pipeline with augmentation on the host (``--augment_impl=fused``)."""
    return _seedtf(threads, "fused")


def seedtf_device(threads: int) -> Batches:
    """The host's part of seedtf's training pipeline when the device augments.

    It yields uint8 batches that are not augmented yet.
    """
    return _seedtf(threads, "device")


def tf_image(threads: int) -> Batches:
    """Operations of tf.image, one image at a time as in TensorFlow's tutorials; a raw op rotates."""
    tf = import_tensorflow(threads)

    def rotate(image: Any, angle: Any) -> Any:
        middle = (OUT_SIZE - 1) / 2
        cos, sin = tf.cos(angle), tf.sin(angle)
        offset = (middle - cos * middle + sin * middle, middle - sin * middle - cos * middle)
        coefficients = tf.stack([cos, -sin, offset[0], sin, cos, offset[1], 0.0, 0.0])
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=coefficients[None],
            output_shape=[OUT_SIZE, OUT_SIZE],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )[0]

    def augment(image: Any) -> Any:
        window = 1.0 - CROP * tf.random.uniform([])
        root_aspect = tf.exp(tf.random.uniform([], -STRETCH / 2, STRETCH / 2))
        height = tf.cast(tf.minimum(window * root_aspect, 1.0) * IN_SIZE, tf.int32)
        width = tf.cast(tf.minimum(window / root_aspect, 1.0) * IN_SIZE, tf.int32)
        image = tf.image.random_crop(image, tf.stack([height, width, 3]))
        image = tf.image.resize(image, [OUT_SIZE, OUT_SIZE])
        image = tf.image.random_flip_up_down(tf.image.random_flip_left_right(image))
        image = rotate(image, tf.random.uniform([], -3.14159, 3.14159)) / 255.0
        image = tf.image.random_brightness(image, BRIGHTNESS)
        image = tf.image.random_contrast(image, 1 - CONTRAST, 1 + CONTRAST)
        image = tf.image.random_saturation(image, 1 - SATURATION, 1 + SATURATION)
        image = tf.image.random_hue(image, HUE / 360)
        return tf.clip_by_value(image * 255.0, 0.0, 255.0)

    images = tf.constant(noise_images())
    indices = tf.data.Dataset.range(NUM_IMAGES).repeat().shuffle(NUM_IMAGES)
    dataset = indices.map(lambda i: augment(tf.gather(images, i)), threads, deterministic=False)
    return prefetched(tf, dataset.batch(BATCH_SIZE, drop_remainder=True), threads)
