"""The images, sizes and augmentation strengths that all libraries of benchmark_peers.py get.

The modules of this folder import a library inside the function that uses it, because some libraries
are not installed in the environment of seedtf, and each process imports only the library it measures.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

IN_SIZE, OUT_SIZE, BATCH_SIZE, NUM_IMAGES = 256, 224, 64, 512

# Augmentation strengths, as seedtf's flags define them: CROP is the largest fraction of each side that
# is cut away, STRETCH the largest relative change of the ratio of width to height; HUE is in degrees.
CROP, STRETCH, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.1, 0.1, 0.1, 0.1, 5.0

# CROP and STRETCH as the ranges of a random resized crop: AREA is the area of the crop relative to that
# of the image, RATIO its width relative to its height.
AREA, RATIO = ((1 - CROP) ** 2, 1.0), (1 / (1 + STRETCH), 1 + STRETCH)

# CROP and STRETCH for libraries that rotate and scale in one pass. They first crop a square of side
# OUT_SIZE, then scale width and height by independent factors in this range. With the largest factor,
# 1 - CROP of each side of the image stays visible, as with the smallest AREA.
SCALE = (1.0, OUT_SIZE / IN_SIZE / (1 - CROP))

Batches = Iterator[Any]


def noise_images(size: int = IN_SIZE) -> Any:
    """Images of 16² pixel patches, each of one random colour: uint8 ``[NUM_IMAGES, size, size, 3]``."""
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (NUM_IMAGES, size // 16, size // 16, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def in_threads(make_batch: Callable[[], Any], threads: int) -> Batches:
    """Yields batches that are made in ``threads`` threads; at most two of them wait in a queue."""
    batches: queue.Queue[Any] = queue.Queue(2)

    def work() -> None:
        while True:
            batches.put(make_batch())

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    while True:
        yield batches.get()
