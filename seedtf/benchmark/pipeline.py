"""Measures the throughput of the input pipeline of ``seedtf train``.

A ``Catalog`` lists labelled image files. A ``Store`` holds the decoded images of a catalog.
"""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from seedtf.augment.mixing import Mixing, make_mixer
from seedtf.augment.policy import Policy
from seedtf.data.catalog import Catalog, scan_folder
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import device_dataset, make_augmentation, train_dataset
from seedtf.data.store import CachePlan, Store, build_store, keep_in_memory

__all__ = [
    "IN_MEMORY",
    "Rate",
    "list_sample",
    "load_sample",
    "make_batches",
    "measure_rates",
    "store_of_images",
]

IN_MEMORY = CachePlan("ram", 0, "")
"""A cache plan without a memory estimate, for the few images of a benchmark."""

_SAMPLE_SIZE, _NOISE_SIDE = 256, 256

# Before a dataset is measured, its batches are discarded for this fraction of the turn, because some of
# them were prefetched while other datasets were measured.
_DISCARDED_FRACTION = 0.3


@dataclass(frozen=True)
class Rate:
    """The throughput of one dataset, as medians over its turns.

    Attributes:
        way: the name of the dataset in the argument of ``measure_rates``.
        images_per_second: images per second of wall-clock time.
        images_per_cpu_second: images per second of CPU time, which is summed over all threads. So this
            is the throughput of one core.
    """

    way: str
    images_per_second: float
    images_per_cpu_second: float


def list_sample(data_dir: str) -> Catalog:
    """At most 256 images of a folder, evenly spaced in the order of their paths."""
    catalog = scan_folder(data_dir)
    count = len(catalog)
    return catalog.take(np.linspace(0, count - 1, min(_SAMPLE_SIZE, count)).astype(np.int64))


def load_sample(data_dir: str, size: int) -> Store:
    """The images of ``list_sample``, decoded and resized to a side of ``size`` pixels.

    If ``data_dir`` is empty, they are 256 images of noise with a side of 256 pixels.
    """
    if not data_dir:
        shape = (_SAMPLE_SIZE, _NOISE_SIDE, _NOISE_SIDE, 3)
        return store_of_images(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return build_store(list_sample(data_dir), size, IN_MEMORY, Path())


def store_of_images(images: np.ndarray) -> Store:
    """A store with a copy of ``images``, uint8 ``[N, S, S, 3]``, all of one class."""
    count = len(images)
    catalog = Catalog(Path(), [""] * count, np.zeros(count, np.int32), ("",))
    return keep_in_memory(catalog, images)


def make_batches(
    store: Store,
    out_size: int,
    batch_size: int,
    policy: Policy,
    variant: str,
    *,
    mixing: Mixing | None = None,
) -> tf.data.Dataset:
    """A dataset that repeats the training batches of a store without end.

    Args:
        store: decoded images.
        out_size: side of the augmented images in pixels.
        batch_size: images per batch.
        policy: the ranges of the augmentation.
        variant: the implementation with which the host augments, a value of ``--augment_impl``; or
            ``device`` for uint8 batches that the host does not augment.
        mixing: the settings of MixUp, CutMix and random erasing; None to use none of the three.
    """
    count = len(store.catalog)
    records, order = np.arange(count), BatchIndices(count, batch_size)
    if variant == "device":
        return device_dataset(store, records, order, with_images=True)
    augmentation = make_augmentation(policy, 0, out_size, variant)
    mixer = make_mixer(mixing, 0, len(store.catalog.class_names)) if mixing else None
    return train_dataset(store, records, order, augmentation, mixer=mixer)


def measure_rates(
    datasets: dict[str, tf.data.Dataset], batch_size: int, *, seconds: float, rounds: int
) -> list[Rate]:
    """The throughput of each dataset.

    The datasets are measured in turn, so that a change of the machine's load affects all of them.

    Args:
        datasets: datasets without an end, by name.
        batch_size: images per batch.
        seconds: the length of a turn.
        rounds: number of turns of each dataset.
    """
    iterators = {name: iter(dataset) for name, dataset in datasets.items()}
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in datasets}
    for iterator in iterators.values():
        next(iterator)
    for _ in range(rounds):
        for name, iterator in iterators.items():
            turns[name].append(_measure_turn(iterator, batch_size, seconds))
    return [
        Rate(name, *(statistics.median(values) for values in zip(*rates, strict=True)))
        for name, rates in turns.items()
    ]


def _measure_turn(
    iterator: tf.data.Iterator, batch_size: int, seconds: float
) -> tuple[float, float]:
    """Images per second of wall-clock time, and per second of CPU time."""
    _take(iterator, _DISCARDED_FRACTION * seconds)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    count = batch_size * _take(iterator, seconds)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return count / wall, count / max(cpu, 1e-9)


def _take(iterator: tf.data.Iterator, seconds: float) -> int:
    """The number of batches that the iterator yields in ``seconds``."""
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        next(iterator)
        count += 1
    return count


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
