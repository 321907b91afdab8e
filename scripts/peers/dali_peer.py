"""The pipeline of NVIDIA DALI on the CPU."""

from __future__ import annotations

from typing import Any

from peers.work import (
    AREA,
    BATCH_SIZE,
    BRIGHTNESS,
    CONTRAST,
    HUE,
    NUM_IMAGES,
    OUT_SIZE,
    RATIO,
    SATURATION,
    Batches,
    noise_images,
)


def dali(threads: int) -> Batches:
    """NVIDIA DALI on the CPU, without rotation."""
    import numpy as np
    from nvidia.dali import fn, pipeline_def, types

    images = noise_images()
    rng = np.random.default_rng(0)

    @pipeline_def(
        batch_size=BATCH_SIZE, num_threads=threads, device_id=None, prefetch_queue_depth=2
    )
    def pipeline() -> Any:
        image = fn.external_source(
            source=lambda: [images[i] for i in rng.integers(0, NUM_IMAGES, BATCH_SIZE)],
            layout="HWC",
            no_copy=True,
        )
        image = fn.random_resized_crop(
            image,
            size=[OUT_SIZE, OUT_SIZE],
            random_area=list(AREA),
            random_aspect_ratio=list(RATIO),
            antialias=False,
        )
        image = fn.flip(image, horizontal=fn.random.coin_flip(), vertical=fn.random.coin_flip())
        return fn.color_twist(
            image,
            brightness=fn.random.uniform(range=[1 - BRIGHTNESS, 1 + BRIGHTNESS]),
            contrast=fn.random.uniform(range=[1 - CONTRAST, 1 + CONTRAST]),
            saturation=fn.random.uniform(range=[1 - SATURATION, 1 + SATURATION]),
            hue=fn.random.uniform(range=[-HUE, HUE]),
            dtype=types.FLOAT,
        )

    built = pipeline()
    built.build()
    while True:
        yield built.run()[0].as_array()
