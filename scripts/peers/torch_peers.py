"""Augmentation in PyTorch, with torchvision and with Kornia, in a DataLoader."""

from __future__ import annotations

from collections.abc import Callable
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


class AugmentedDataset:
    """A dataset for PyTorch's DataLoader whose images are augmented when they are fetched."""

    def __init__(self, fetch: Callable[[list[int]], list[Any]]) -> None:
        """``fetch`` returns the augmented images of a batch for the indices of the images."""
        self._fetch = fetch

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The images of a batch; a DataLoader calls this instead of ``__getitem__``."""
        return self._fetch(indices)


def load_batches(fetch: Callable[[list[int]], list[Any]], threads: int) -> Batches:
    """Batches of a DataLoader with ``threads`` worker processes; other settings are its defaults."""
    from torch.utils.data import DataLoader, RandomSampler

    dataset = AugmentedDataset(fetch)
    endless = RandomSampler(dataset, replacement=True, num_samples=2**40)
    return iter(DataLoader(dataset, BATCH_SIZE, sampler=endless, num_workers=threads))


def torchvision(threads: int) -> Batches:
    """torchvision's transforms v2 in a DataLoader, image by image.

    The images are not rotated: the affine transform of torchvision cannot stretch, and
    RandomResizedCrop, which crops and stretches here, cannot rotate. They are transformed one by one,
    because a transform draws the same parameters for all images that it gets at once.

    The images are uint8 until they are flipped, as torchvision's documentation recommends for resizing.
    The colours are then changed in float32, which is a sixth faster than in uint8, because torchvision
    changes the hue in float32 in both cases.
    """
    import torch
    from torchvision.transforms import v2

    chain = v2.Compose(
        [
            v2.RandomResizedCrop(OUT_SIZE, scale=AREA, ratio=RATIO),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE / 360),
        ]
    )
    images = torch.from_numpy(noise_images()).permute(0, 3, 1, 2)
    return load_batches(lambda indices: [chain(images[i]) for i in indices], threads)


def kornia(threads: int) -> Batches:
    """Kornia's AugmentationSequential on float32 in a DataLoader, 8 images at a time.

    8 images at a time are as fast as 16, and more than twice as fast as 64.
    """
    import torch
    from kornia import augmentation

    chain = augmentation.AugmentationSequential(
        augmentation.RandomCrop((OUT_SIZE, OUT_SIZE)),
        # scale has four values: the range of the factor of the width, then that of the height
        augmentation.RandomAffine(180.0, scale=SCALE * 2, padding_mode="reflection", p=1.0),
        augmentation.RandomHorizontalFlip(),
        augmentation.RandomVerticalFlip(),
        augmentation.ColorJiggle(BRIGHTNESS, CONTRAST, SATURATION, HUE / 360, p=1.0),
        data_keys=["input"],
    )
    images = torch.from_numpy(noise_images()).permute(0, 3, 1, 2).contiguous()

    def fetch(indices: list[int]) -> list[Any]:
        groups = [images[indices[start : start + 8]] for start in range(0, len(indices), 8)]
        return [image for group in groups for image in chain(group.float() / 255)]

    return load_batches(fetch, threads)
