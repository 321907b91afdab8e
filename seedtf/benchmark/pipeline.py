"""Throughput of the input pipeline of ``seedtf train``."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from seedtf.augment.policy import Policy
from seedtf.data.catalog import Catalog, scan_folder
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import device_dataset, make_augmentation, train_dataset
from seedtf.data.store import CachePlan, Store, build_store, keep_in_memory

__all__ = [
    "IN_MEMORY",
    "Rate",
    "batches",
    "measure",
    "sample_catalog",
    "sample_store",
    "store_of_images",
]

IN_MEMORY = CachePlan("ram", 0, "")
"""A cache plan without a memory estimate, for the few images of a benchmark."""

_SAMPLE, _NOISE_SIZE = 256, 256

# Part of a turn, at its start, that is not counted: it consumes batches prefetched in other turns.
_UNCOUNTED = 0.3


@dataclass(frozen=True)
class Rate:
    """Throughput: medians over the turns.

    Attributes:
        way: what was measured: where the augmentation runs, or its implementation.
        images_per_second: per second of wall-clock time.
        images_per_cpu_second: per second of CPU time over all threads, that is, per core.
    """

    way: str
    images_per_second: float
    images_per_cpu_second: float


def sample_catalog(data_dir: str) -> Catalog:
    """At most 256 images of a folder, evenly spaced in its sorted list."""
    catalog = scan_folder(data_dir)
    count = len(catalog)
    return catalog.take(np.linspace(0, count - 1, min(_SAMPLE, count)).astype(np.int64))


def sample_store(data_dir: str, size: int) -> Store:
    """``sample_catalog`` decoded to ``size``² in memory; noise of 256² if ``data_dir`` is empty."""
    if not data_dir:
        shape = (_SAMPLE, _NOISE_SIZE, _NOISE_SIZE, 3)
        return store_of_images(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return build_store(sample_catalog(data_dir), size, IN_MEMORY, Path())


def store_of_images(images: np.ndarray) -> Store:
    """A store with a copy of ``images``, uint8 ``[N, S, S, 3]``, all of one class."""
    count = len(images)
    catalog = Catalog(Path(), [""] * count, np.zeros(count, np.int32), ("",))
    return keep_in_memory(catalog, images)


def batches(
    store: Store, out_size: int, batch_size: int, policy: Policy, way: str
) -> tf.data.Dataset:
    """A dataset that repeats the training batches of a store forever.

    Args:
        store: decoded images.
        out_size: side of the augmented images in pixels.
        batch_size: images per batch.
        policy: the augmentation.
        way: a value of ``--augment_impl``, or ``device``: uint8 batches without augmentation, which
            is all that the host computes if the device augments.
    """
    count = len(store.catalog)
    records, order = np.arange(count), BatchIndices(count, batch_size)
    if way == "device":
        return device_dataset(store, records, order, with_images=True)
    return train_dataset(store, records, order, make_augmentation(policy, 0, out_size, way))


def measure(
    datasets: dict[str, tf.data.Dataset], batch_size: int, *, seconds: float, rounds: int
) -> list[Rate]:
    """Measures datasets in turn, so that a change of the machine's load affects all of them.

    Args:
        datasets: endless batches, by what they are called in the result.
        batch_size: images per batch.
        seconds: length of a turn.
        rounds: turns of each dataset.
    """
    iterators = {way: iter(dataset) for way, dataset in datasets.items()}
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in datasets}
    for iterator in iterators.values():
        next(iterator)
    for _ in range(rounds):
        for way, iterator in iterators.items():
            turns[way].append(_turn(iterator, batch_size, seconds))
    return [
        Rate(way, *(statistics.median(values) for values in zip(*rates, strict=True)))
        for way, rates in turns.items()
    ]


def _turn(iterator: tf.data.Iterator, batch_size: int, seconds: float) -> tuple[float, float]:
    _take(iterator, _UNCOUNTED * seconds)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    count = batch_size * _take(iterator, seconds)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return count / wall, count / max(cpu, 1e-9)


def _take(iterator: tf.data.Iterator, seconds: float) -> int:
    """Takes batches for ``seconds`` and returns their number."""
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        next(iterator)
        count += 1
    return count


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
