"""Makes the batches of a run: in the input pipeline, and by preprocessing in the train step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from seedtf.augment.mixing import Mixer, make_mixer
from seedtf.config.train_config import BALANCED, TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.data.order import BalancedIndices, BatchIndices
from seedtf.data.pipeline import (
    Augmentation,
    DataWaitTimer,
    device_chunks,
    device_dataset,
    eval_dataset,
    make_augmentation,
    train_dataset,
)
from seedtf.data.shard import WHOLE, Shard
from seedtf.data.store import Store
from seedtf.training.optim.losses import make_targets
from seedtf.training.plan import Plan
from seedtf.training.trainer import Prepare

__all__ = ["TrainBatches", "make_order", "make_step_preprocessing", "resident_images"]


class TrainBatches:
    """Training and validation batches of a run, and the preprocessing inside the train step.

    Attributes:
        order: which images each training batch holds.
        steps_per_epoch: number of training batches in an epoch.
        val_steps: number of validation batches.
        strength: float32 scalar, the factor on the augmentation ranges; read when a batch is augmented.
            Used only with ``--augment_strength=auto``.
        take_data_wait: returns the seconds that training has waited for data since the previous call.
    """

    def __init__(self, plan: Plan, dataset: Dataset, shard: Shard = WHOLE) -> None:
        """Prepares the functions that make batches; copies resident images to the GPU, if there is one.

        Args:
            plan: the settings of the run.
            dataset: the images of the run.
            shard: the part of every batch that this process makes.
        """
        config, num_classes = plan.config, len(dataset.store.catalog.class_names)
        self._config, self._plan, self._dataset, self._shard = config, plan, dataset, shard
        self._mixer = make_mixer(config.make_mixing(), config.seed, num_classes)
        self._to_targets = make_targets(
            num_classes,
            smoothing=config.label_smoothing,
            weights=plan.class_weights,
            weighted_labels=len(dataset.pseudo) > 0,
        )
        # `resident_images` copies all images to the GPU if there is one, so it is called only once.
        self._images = resident_images(dataset.store) if plan.placement.resident else None
        self._wait_timer = DataWaitTimer()
        self.order = make_order(config, dataset)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.val_steps = shard.steps(len(dataset.split.val), config.batch_size)
        self.strength = tf.Variable(1.0, trainable=False)
        self.take_data_wait = self._wait_timer.take

    @property
    def augments_on_host(self) -> bool:
        """Whether the input pipeline augments the batches; otherwise the train step does."""
        return not self._plan.placement.on_device

    def make_prepare(self, size: int) -> Prepare | None:
        """Returns the function with which the train step preprocesses a batch; None if none is needed.

        ``size`` is the side in pixels of the images that the function returns.
        """
        augment = None
        if not self.augments_on_host:
            augment = make_step_preprocessing(
                self._augmentation(size, whole_batch=True), self._mixer, self._images
            )
        to_targets = self._to_targets
        if to_targets is None:
            return augment

        def prepare(batch: Any) -> Any:
            return to_targets(*(batch if augment is None else augment(batch)))

        return prepare

    def train(self, size: int, start_step: int) -> tf.data.Dataset:
        """The endless input of the train function from ``start_step`` on, counted over all epochs.

        If the pipeline augments, an element is a batch of augmented images and their labels. If the
        train step augments, an element has the indices and labels of the images; it also has the uint8
        images if the train step does not look them up itself. With several steps per execution, an
        element has the batches of all these steps.
        """
        if self.augments_on_host:
            return self.train_on_host(size, start_step)
        if self._plan.steps_per_execution > 1:
            return device_chunks(
                self._dataset.store,
                self._dataset.split.train,
                self.order,
                length=self._plan.steps_per_execution,
                start_step=start_step,
            )
        return device_dataset(
            self._dataset.store,
            self._dataset.split.train,
            self.order,
            with_images=self._images is None,
            start_step=start_step,
            shard=self._shard,
        )

    def train_on_host(self, size: int, start_step: int) -> tf.data.Dataset:
        """Augmented and mixed images with their labels, endless, as ``train_dataset`` returns them."""
        return train_dataset(
            self._dataset.store,
            self._dataset.split.train,
            self.order,
            self._augmentation(size, whole_batch=False),
            start_step=start_step,
            shard=self._shard,
            data_service=self._config.data_service,
            mixer=self._mixer,
        )

    def epoch(self, size: int, epoch: int) -> tf.data.Dataset:
        """The augmented batches of ``epoch``, counted from 0; always made by the input pipeline."""
        steps = self.steps_per_epoch
        return self.train_on_host(size, epoch * steps).take(steps)

    def validation(self) -> tf.data.Dataset:
        """The validation images of this process, each exactly once."""
        dataset, batch_size = self._dataset, self._config.batch_size
        return eval_dataset(dataset.store, dataset.split.val, batch_size, self._shard)

    def measure_wait(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns ``batches`` as a dataset that measures how long training waits for its batches.

        ``take_data_wait`` returns this time. With ``--deterministic`` nothing is measured, because
        TensorFlow then refuses to read the clock.
        """
        return batches if self._config.deterministic else self._wait_timer.attach(batches)

    def files(self, epoch: int, step: int) -> list[str]:
        """The paths of the images of a batch; ``epoch`` and ``step`` are counted from 0."""
        start, stop = step * self.order.batch_size, (step + 1) * self.order.batch_size
        positions = self.order.epoch_order(epoch).numpy()[start:stop]
        paths = self._dataset.store.catalog.paths
        return [paths[record] for record in self._dataset.split.train[positions]]

    @functools.cache  # noqa: B019  lives as long as the training
    def _augmentation(self, size: int, *, whole_batch: bool) -> Augmentation:
        config = self._config
        is_fixed = isinstance(config.augment_strength, float)
        return make_augmentation(
            config.make_policy(),
            config.seed,
            size,
            config.augment_impl,
            None if is_fixed else self.strength,
            whole_batch=whole_batch,
            deterministic=config.deterministic,
        )


def make_order(config: TrainConfig, dataset: Dataset) -> BatchIndices:
    """The order of the training images that ``--sampler`` selects."""
    train = dataset.split.train
    if config.sampler == BALANCED:
        labels = dataset.store.catalog.labels[train]
        return BalancedIndices(labels, config.batch_size, seed=config.seed)
    return BatchIndices(len(train), config.batch_size, seed=config.seed)


def make_step_preprocessing(
    augmentation: Augmentation, mixer: Mixer | None = None, images: tf.Tensor | None = None
) -> Callable[[Any], tuple[tf.Tensor, tf.Tensor]]:
    """Returns the function with which the train step turns a batch of ``device_dataset`` into images.

    Args:
        augmentation: from ``make_augmentation``.
        mixer: from ``make_mixer``; None without MixUp, CutMix and random erasing.
        images: all images, from ``resident_images``; None if the batch contains its images.
    """

    def prepare(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
        features, labels = batch
        records = features["record"]
        # The epoch is a vector of equal values, so that a strategy can split it like the records.
        epoch = features["epoch"][0]
        if images is None:
            augmented = augmentation(features["image"], epoch, records)
        else:  # `images` has all images, and row i is the image of record i
            augmented = augmentation(images, epoch, records, records)
        return (augmented, labels) if mixer is None else mixer(augmented, labels, epoch, records)

    return prepare


def resident_images(store: Store) -> tf.Tensor:
    """All images of a store, uint8 ``[N, S, S, 3]``, in the memory of the first GPU if there is one.

    Raises:
        ValueError: the images are neither in memory nor memory-mapped.
    """
    if store.images is None:
        raise ValueError(f"the store must keep its images in memory. Received mode: {store.mode!r}")
    if not tf.config.list_physical_devices("GPU"):
        return store.images
    with tf.device("/gpu:0"):
        return tf.identity(store.images)
