"""Augmentation of Keras: ImageDataGenerator, and preprocessing layers in tf.data and in Grain."""

from __future__ import annotations

from typing import Any

from peers.tensorflow_peers import import_tensorflow, prefetched
from peers.work import (
    BATCH_SIZE,
    BRIGHTNESS,
    CONTRAST,
    CROP,
    HUE,
    NUM_IMAGES,
    OUT_SIZE,
    SATURATION,
    Batches,
    in_threads,
    noise_images,
)


def keras_generator(threads: int) -> Batches:
    """Keras's ImageDataGenerator, called in ``threads`` threads."""
    tf = import_tensorflow(threads)
    import numpy as np

    images = noise_images(OUT_SIZE).astype(np.float32)
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=180,
        zoom_range=CROP,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        channel_shift_range=255 * BRIGHTNESS,
        fill_mode="reflect",
        interpolation_order=1,
    )
    flow = generator.flow(images, batch_size=BATCH_SIZE, shuffle=True)
    return in_threads(lambda: next(flow), threads)


def _layers() -> Any:
    """The preprocessing layers, for whole batches with values in 0 to 255."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            layers.RandomZoom((-CROP, 0.0), (-CROP, 0.0)),
            layers.RandomCrop(OUT_SIZE, OUT_SIZE),
            layers.RandomFlip(),
            layers.RandomRotation(0.5),
            layers.RandomBrightness(BRIGHTNESS),
            layers.RandomContrast(CONTRAST),
            layers.RandomSaturation((0.5 - SATURATION / 2, 0.5 + SATURATION / 2)),
            layers.RandomHue(HUE / 180, value_range=(0, 255)),
        ]
    )


def keras_layers(threads: int) -> Batches:
    """Keras 3 preprocessing layers on whole batches, in tf.data."""
    tf = import_tensorflow(threads)
    layers, images = _layers(), tf.constant(noise_images())
    indices = tf.data.Dataset.range(NUM_IMAGES).repeat().shuffle(NUM_IMAGES).batch(BATCH_SIZE)
    dataset = indices.map(
        lambda i: layers(tf.cast(tf.gather(images, i), tf.float32), training=True), threads
    )
    return prefetched(tf, dataset, threads)


def keras_grain(threads: int) -> Batches:
    """Keras 3 preprocessing layers in Grain, with ``threads`` worker processes.

    The layers get 16 images at a time, which is faster than 64. Outside of tf.data no backend of Keras
    compiles the layers; the TensorFlow backend, which is used here, is the fastest without compilation.
    """
    import_tensorflow(threads)
    import grain
    import numpy as np

    layers = _layers()
    dataset = (
        grain.MapDataset.source(noise_images())
        .shuffle(seed=0)
        .repeat()
        .batch(16)
        .map(lambda images: np.asarray(layers(images.astype(np.float32), training=True)))
        .batch(BATCH_SIZE // 16, batch_fn=np.concatenate)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=threads))
    )
    return iter(dataset)
