"""The work that scripts/benchmark_peers.py gives to each library: images, sizes, augmentations.

The modules of this folder import a library inside the function that uses it: each library is imported
only by the process that measures it, and some are installed in other environments than seedtf.
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

# CROP and STRETCH for libraries that rotate and scale in one pass: they first crop a square of side
# OUT_SIZE, then scale width and height by independent factors in this range. The largest factor leaves
# 1 - CROP of each side of the image visible, like the smallest AREA.
SCALE = (1.0, OUT_SIZE / IN_SIZE / (1 - CROP))

Batches = Iterator[Any]


def noise_images(size: int = IN_SIZE) -> Any:
    """The images that all libraries use: uint8 ``[NUM_IMAGES, size, size, 3]``.

    They consist of patches of 16² pixels, each of one random colour.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (NUM_IMAGES, size // 16, size // 16, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def in_threads(make: Callable[[], Any], threads: int) -> Batches:
    """Yields the batches that ``threads`` threads make; at most two batches wait in a queue."""
    batches: queue.Queue[Any] = queue.Queue(2)

    def work() -> None:
        while True:
            batches.put(make())

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    while True:
        yield batches.get()
