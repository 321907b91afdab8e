"""Measures how long the parts of an epoch of ``seedtf train`` take.

Whole epochs are measured in a training. Then the train step and the work of the host are each measured
alone.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from seedtf.benchmark.pipeline import IN_MEMORY, list_sample, make_batches, measure_rates
from seedtf.benchmark.step import Variant, make_step
from seedtf.config.train_config import TrainConfig
from seedtf.data.store import Store, build_store
from seedtf.runs.folder import read_class_names, read_settings
from seedtf.runs.history import read_timing
from seedtf.runs.paths import RunPaths
from seedtf.training.setup import data_folder
from seedtf.training.train import train_and_evaluate

__all__ = ["ORIGINAL_CARD", "ORIGINAL_SECONDS", "Epoch", "best_flag", "measure_epoch"]

ORIGINAL_SECONDS = 125.0
"""Seconds of an epoch of the Kaggle solution that seedtf is based on."""

ORIGINAL_CARD = "GTX 1080 Ti"
"""The GPU on which ``ORIGINAL_SECONDS`` was measured."""

_MAX_BARE_SECONDS = 120.0
"""The longest time for which bare train steps are measured."""
_ROUND_SECONDS, _ROUNDS = 0.3, 3


@dataclass(frozen=True)
class Epoch:
    """Median seconds of an epoch and of its parts.

    Attributes:
        epochs: number of epochs that were measured.
        steps: training steps per epoch.
        images: training images per epoch.
        seconds: the time from the start of an epoch to the start of the next one.
        step: the time of ``steps`` bare train steps: the mean time of a train step on a constant batch,
            without input pipeline and callbacks, times ``steps``.
        wait: the time in which training waits for data.
        loop: the rest of the time of training. Callbacks at every step take it, and other work of the
            process that makes steps slower than bare steps.
        validation: the time of evaluating the validation images.
        callbacks: the time of callbacks at the end of an epoch, which write checkpoint, state and
            curves.
        read, decode, augment: the times in which the host reads, decodes and augments the images of an
            epoch, each measured alone. In a training, they overlap with the steps. With a cache, images
            are decoded at most once per run, not once per epoch.
        decodes_every_epoch: whether images are decoded in every epoch, because there is no cache.
        device: ``cpu`` or ``gpu``.
        precision: the precision policy of the network.
        image_size: side of the images in pixels.
    """

    epochs: int
    steps: int
    images: int
    seconds: float
    step: float
    wait: float
    loop: float
    validation: float
    callbacks: float
    read: float
    decode: float
    augment: float
    decodes_every_epoch: bool
    device: str
    precision: str
    image_size: int

    @property
    def training_ratio(self) -> float:
        """Time of an epoch without its validation, divided by the time of its bare steps."""
        return (self.seconds - self.validation) / self.step


def measure_epoch(config: TrainConfig) -> Epoch:
    """Measures ``config.epochs`` epochs of a training in a temporary run folder.

    Two more epochs are trained and not counted. The first epoch also traces and compiles the step. The
    time of the callbacks after the last epoch is unknown, because it is measured until the next epoch
    starts.

    Raises:
        UserError: as ``train_and_evaluate``.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_dir = f"{folder}/run"
        train_and_evaluate(replace(config, run_dir=run_dir, epochs=config.epochs + 2))
        rows = read_timing(RunPaths.of(run_dir).timing)[1:]
        settings = read_settings(run_dir)
        resolved = settings["resolved"]
        config = replace(config, batch_size=settings["batch_size"])
        num_classes = len(read_class_names(run_dir))
    steps = int(resolved["steps_per_epoch"])
    num_images = steps * config.batch_size
    variant = Variant(
        model=config.model,
        image_size=config.image_size,
        batch_size=config.batch_size,
        precision=resolved["precision"],
        jit_compile="on" if resolved["jit_compile"] else "off",
        classes=num_classes,
        optimizer=config.optimizer,
    )
    bare_steps = steps * _measure_mean_seconds(make_step(variant), steps)
    decode, read, augment = (num_images * seconds for seconds in _measure_host_seconds(config))
    # The row of an epoch has the time between the previous epoch and this one.
    pairs = list(itertools.pairwise(rows))
    seconds, wait, validation = (
        statistics.median(row[name] for row, _ in pairs)
        for name in ("seconds", "data_wait", "validation")
    )
    train = statistics.median(num_images / row["images_per_second"] for row, _ in pairs)
    between = statistics.median(later["between"] for _, later in pairs)
    return Epoch(
        epochs=len(pairs),
        steps=steps,
        images=num_images,
        seconds=seconds + between,
        step=bare_steps,
        wait=wait,
        loop=train - wait - bare_steps,
        validation=validation,
        callbacks=seconds - train - validation + between,
        read=read,
        decode=decode,
        augment=augment,
        decodes_every_epoch=config.cache == "off",
        device="gpu" if tf.config.list_physical_devices("GPU") else "cpu",
        precision=str(resolved["precision"]),
        image_size=config.image_size,
    )


def best_flag(epoch: Epoch) -> str:
    """One line with the flag that would probably shorten the epoch most, and the reason.

    The first rule that applies decides. The limits of the rules are rules of thumb.
    """
    waits = epoch.wait > 0.05 * epoch.seconds
    smaller = max(32, epoch.image_size * 2 // 3)
    rules = [
        (
            waits and epoch.decodes_every_epoch,
            "--cache=disk: training waits while images are decoded again in every epoch.",
        ),
        (
            waits and epoch.augment > epoch.read,
            "--placement=device: training waits for the augmentation on the host.",
        ),
        (waits, "--cache=ram: training waits for images to be read."),
        (
            epoch.validation > 0.3 * epoch.seconds,
            "--val_fraction: lower it; validation takes a large part of the epoch.",
        ),
        (
            epoch.device == "gpu" and epoch.precision == "float32",
            "--precision=mixed_bfloat16: the float32 steps take most of the time.",
        ),
        (
            epoch.loop > 0.2 * epoch.step,
            "--batch_size: raise it; much of the time is spent between the steps.",
        ),
        (
            smaller < epoch.image_size,
            f"--image_size={smaller}: the steps take most of the time, in proportion to the pixels.",
        ),
        (True, "--model: choose a smaller one; the steps take most of the time."),
    ]
    return next(text for applies, text in rules if applies)


def _measure_mean_seconds(work: Callable[[], Any], times: int) -> float:
    """The mean time of ``times`` calls of ``work``, after two calls that are not timed.

    No call starts after ``_MAX_BARE_SECONDS``, so fewer calls may be timed. The result is not a median,
    which would be too short on a machine whose speed varies: an epoch has slow steps, too.
    """
    for _ in range(2):
        work()
    calls, start, seconds = 0, time.perf_counter(), 0.0
    while calls < times and seconds < _MAX_BARE_SECONDS:
        work()
        calls, seconds = calls + 1, time.perf_counter() - start
    return seconds / calls


def _measure_host_seconds(config: TrainConfig) -> tuple[float, float, float]:
    """The seconds per image to decode, to read from memory, and to augment, on all cores."""
    sample = list_sample(data_folder(config))
    size, few = config.image_size, np.arange(min(8, len(sample)))
    # The first build in a process also traces the decoder, so it is not measured.
    build_store(sample.take(few), size, IN_MEMORY, Path(), config.max_pixels, fit=config.fit)
    start = time.perf_counter()
    store = build_store(sample, size, IN_MEMORY, Path(), config.max_pixels, fit=config.fit)
    decode = (time.perf_counter() - start) / len(sample)
    return decode, *_measure_pipeline_seconds(config, store)


def _measure_pipeline_seconds(config: TrainConfig, store: Store) -> tuple[float, float]:
    """The seconds per image to read from memory, and to augment, in the input pipeline."""
    batch, policy = min(config.batch_size, len(store.catalog)), config.make_policy()
    datasets = {
        variant: make_batches(store, config.image_size, batch, policy, variant)
        for variant in ("device", config.augment_impl)
    }
    rates = measure_rates(datasets, batch, seconds=_ROUND_SECONDS, rounds=_ROUNDS)
    reading, reading_and_augmenting = (1.0 / rate.images_per_second for rate in rates)
    return reading, max(reading_and_augmenting - reading, 0.0)
