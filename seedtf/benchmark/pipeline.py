"""Training batches a second, as the pipeline of ``seedtf train`` makes them."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from seedtf.data.augment import Policy
from seedtf.data.catalog import Catalog
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import device_dataset, make_augmentation, train_dataset
from seedtf.data.store import store_of_images

__all__ = ["Rate", "batches", "draw_pictures", "measure"]

# of a turn, at its begin: the batches that were made ready while another had its turn
_UNCOUNTED = 0.3


@dataclass(frozen=True)
class Rate:
    """Medians over the turns.

    Attributes:
        way: what was measured: the place of the augmentation, or its implementation.
        images_per_second: by the clock.
        images_per_cpu_second: by the processor's time, over all threads: what one core does.
    """

    way: str
    images_per_second: float
    images_per_cpu_second: float


def draw_pictures(count: int, size: int) -> np.ndarray:
    """uint8 ``[count, size, size, 3]``: coloured noise, the same at every call."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def batches(
    images: np.ndarray, out_size: int, batch_size: int, policy: Policy, way: str
) -> tf.data.Dataset:
    """Endless training batches of ``images``.

    Args:
        images: uint8 ``[N, S, S, 3]``.
        out_size: side of the augmented images.
        batch_size: images in a batch.
        policy: the augmentation.
        way: ``device`` (what is left to the host) or a value of ``--augment_impl``.
    """
    catalog = Catalog(Path(), [""] * len(images), np.zeros(len(images), np.int32), ("",))
    store = store_of_images(catalog, images)
    records, order = np.arange(len(images)), BatchIndices(len(images), batch_size)
    if way == "device":
        return device_dataset(store, records, order, with_images=True)
    return train_dataset(store, records, order, make_augmentation(policy, 0, out_size, way))


def measure(
    datasets: dict[str, tf.data.Dataset], batch_size: int, *, seconds: float, rounds: int
) -> list[Rate]:
    """Lets the datasets take turns; warmed up, and what was made in another's turn is not counted."""
    iterators = {way: iter(dataset) for way, dataset in datasets.items()}
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in datasets}
    for iterator in iterators.values():
        next(iterator)
    for _ in range(rounds):
        for way, iterator in iterators.items():
            turns[way].append(_turn(iterator, batch_size, seconds))
    return [
        Rate(way, *(statistics.median(values) for values in zip(*done, strict=True)))
        for way, done in turns.items()
    ]


def _turn(iterator: tf.data.Iterator, batch_size: int, seconds: float) -> tuple[float, float]:
    _take(iterator, _UNCOUNTED * seconds)
    began, computed = time.perf_counter(), _cpu_seconds()
    count = batch_size * _take(iterator, seconds)
    elapsed, used = time.perf_counter() - began, _cpu_seconds() - computed
    return count / elapsed, count / max(used, 1e-9)


def _take(iterator: tf.data.Iterator, seconds: float) -> int:
    """Takes batches for so long; how many."""
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        next(iterator)
        count += 1
    return count


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
