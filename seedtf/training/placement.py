"""Where the augmentation runs: in the data pipeline on the host, or inside the train step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from seedtf.config.train_config import TrainConfig
from seedtf.data.pipeline import Augmentation, Mixer
from seedtf.data.store import Store
from seedtf.errors import UserError

__all__ = ["Placement", "Reader", "choose_placement", "make_prepare", "resident_reader"]

_RESIDENT_BYTES = 2 << 30

Reader = Callable[[tf.Tensor], tf.Tensor]
"""From records, int64 ``[B]``, to their images, uint8 ``[B, S, S, 3]``."""


@dataclass(frozen=True)
class Placement:
    """The resolved ``--placement``.

    Attributes:
        on_device: the train step augments; else the pipeline does.
        resident: the device holds every decoded image, and only indices reach the step.
        reason: one sentence for the console.
    """

    on_device: bool
    resident: bool
    reason: str

    @property
    def name(self) -> str:
        """For config.json."""
        return "device" if self.on_device else "host"


def choose_placement(config: TrainConfig, store: Store, gpus: int, replicas: int) -> Placement:
    """Resolves ``--placement`` for this store and these devices.

    ``auto`` takes the device where there is a GPU and the augmentation is the compiled one: the host
    then only gathers uint8. On a CPU both are the same cores, and the host's pipeline works ahead.

    Args:
        config: the flags.
        store: decoded images.
        gpus: how many TensorFlow sees.
        replicas: how many share a batch.

    Raises:
        UserError: ``device`` was asked for together with what only a host can do.
    """
    hindrance = _why_not_on_device(config)
    if config.placement == "host":
        return Placement(False, False, "on the host, as asked for")
    if config.placement == "device" and hindrance:
        raise UserError(
            f"--placement=device: {hindrance}; pass --placement=host, or leave that out"
        )
    if config.placement == "auto" and (not gpus or hindrance):
        return Placement(False, False, f"on the host: {hindrance or 'there is no GPU'}")
    needed = len(store.catalog) * store.size**2 * 3
    resident = store.mode != "off" and replicas == 1 and (not gpus or needed <= _RESIDENT_BYTES)
    fed = "only indices" if resident else "uint8 images"
    return Placement(True, resident, f"in the train step, which is fed {fed}")


def make_prepare(
    augmentation: Augmentation, mixer: Mixer | None = None, read: Reader | None = None
) -> Callable[[Any], tuple[tf.Tensor, tf.Tensor]]:
    """What the train step does to a batch of ``device_dataset`` first.

    Args:
        augmentation: from ``make_augmentation``.
        mixer: from ``make_mixer``.
        read: from ``resident_reader``, where images do not come with the batch.
    """

    def prepare(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        features, labels = batch
        records = features["record"]
        images = features["image"] if read is None else read(records)
        # one epoch a batch; a vector, so that a strategy can cut it like the others
        epoch = features["epoch"][0]
        images = augmentation(images, epoch, records)
        return (images, labels) if mixer is None else mixer(images, labels, epoch, records)

    return prepare


def _why_not_on_device(config: TrainConfig) -> str:
    if config.augment_impl != "fused":
        return f"--augment_impl={config.augment_impl} cannot be compiled into the step"
    if config.data_service:
        return "--data_service makes whole batches"
    return ""


def resident_reader(store: Store) -> Reader:
    """Reads images that the first GPU holds from now on, all of them; without one, the host's."""
    if not tf.config.list_physical_devices("GPU"):
        return store.read
    everything = store.read(tf.range(len(store.catalog), dtype=tf.int64))
    with tf.device("/gpu:0"):
        table = tf.identity(everything)
    return lambda records: tf.gather(table, records)
