"""Albumentations and its successor AlbumentationsX, which compute with OpenCV on uint8 images."""

from __future__ import annotations

import os
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
    SCALE,
    Batches,
    noise_images,
)


def _in_threads(chain: Any, threads: int) -> Batches:
    """Yields float32 batches of images augmented by ``chain``, whose results are uint8."""
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import numpy as np

    cv2.setNumThreads(1)  # one thread per image is faster than two threads for one image
    images = noise_images()
    rng = np.random.default_rng(0)

    def fill(task: tuple[Any, Any]) -> None:
        batch, rows = task
        for row, index in rows:
            batch[row] = chain(image=images[index])["image"]

    with ThreadPoolExecutor(threads) as pool:
        while True:
            batch = np.empty((BATCH_SIZE, OUT_SIZE, OUT_SIZE, 3), np.float32)
            rows = list(enumerate(rng.integers(0, NUM_IMAGES, BATCH_SIZE)))
            list(pool.map(fill, [(batch, rows[thread::threads]) for thread in range(threads)]))
            yield batch


def _without_rotation(library: Any, colors: list[Any]) -> Any:
    crop = library.RandomResizedCrop((OUT_SIZE, OUT_SIZE), scale=AREA, ratio=RATIO)
    return library.Compose([crop, library.HorizontalFlip(), library.VerticalFlip(), *colors])


def albumentations(threads: int) -> Batches:
    """Albumentations without rotation, in the last version under the MIT licence."""
    import albumentations as library

    colors = library.ColorJitter(
        brightness=(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        contrast=(1 - CONTRAST, 1 + CONTRAST),
        saturation=(1 - SATURATION, 1 + SATURATION),
        hue=(-HUE / 360, HUE / 360),
        p=1.0,
    )
    return _in_threads(_without_rotation(library, [colors]), threads)


def _import_albumentationsx() -> Any:
    """The module of AlbumentationsX, whose import name is that of Albumentations."""
    os.environ["ALBUMENTATIONS_OFFLINE"] = "1"  # no usage reports over the network
    import albumentations as library

    return library


def _albumentationsx_colors(library: Any) -> list[Any]:
    """Two colour operations of AlbumentationsX, which are faster than its ColorJitter."""
    return [
        library.RandomBrightnessContrast((-BRIGHTNESS, BRIGHTNESS), (-CONTRAST, CONTRAST), p=1.0),
        library.HueSaturationValue(  # OpenCV counts the hue in steps of two degrees
            (-HUE / 2, HUE / 2), (-255 * SATURATION, 255 * SATURATION), (0.0, 0.0), p=1.0
        ),
    ]


def albumentationsx(threads: int) -> Batches:
    """AlbumentationsX without rotation, in threads, which are as fast as processes of a DataLoader."""
    library = _import_albumentationsx()
    return _in_threads(_without_rotation(library, _albumentationsx_colors(library)), threads)


def albumentationsx_rotation(threads: int) -> Batches:
    """AlbumentationsX; the cropped image is scaled, stretched and rotated in one pass."""
    import cv2

    library = _import_albumentationsx()
    affine = library.Affine(
        scale={"x": SCALE, "y": SCALE},
        keep_ratio=False,
        rotate=(-180.0, 180.0),
        border_mode=cv2.BORDER_REFLECT_101,
        p=1.0,
    )
    flips = [library.HorizontalFlip(), library.VerticalFlip()]
    chain = library.Compose(
        [library.RandomCrop(OUT_SIZE, OUT_SIZE), affine, *flips, *_albumentationsx_colors(library)]
    )
    return _in_threads(chain, threads)
