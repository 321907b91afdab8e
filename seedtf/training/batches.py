"""What the train step is fed: augmented, mixed batches, or what it needs to make them itself."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from seedtf.config.train_config import BALANCED, TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.data.order import BalancedIndices, BatchIndices
from seedtf.data.pipeline import (
    Augmentation,
    device_dataset,
    make_augmentation,
    make_mixer,
    train_dataset,
)
from seedtf.data.shard import Shard
from seedtf.training.optim.losses import make_targets
from seedtf.training.placement import make_prepare, resident_reader
from seedtf.training.plan import Plan
from seedtf.training.trainer import Prepare

__all__ = ["TrainBatches", "make_order"]


class TrainBatches:
    """Training batches of any image size, and the part of making them that the step does.

    Attributes:
        strength: float32 scalar, the factor on the augmentation where the plan leaves it open; read
            when a batch is made.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, plan: Plan) -> None:
        """Takes what to train on and how."""
        self._config, self._intake, self._plan = config, dataset, plan
        classes = len(dataset.store.catalog.class_names)
        self._mixer = make_mixer(plan.mixing, config.seed, classes)
        self._targets = make_targets(
            classes, smoothing=config.label_smoothing, weights=plan.class_weights
        )
        # once for the whole run: on a GPU it copies every image there
        self._read = resident_reader(dataset.store) if plan.placement.resident else None
        self.strength = tf.Variable(1.0, trainable=False)

    @property
    def works_ahead(self) -> bool:
        """Whether batches are augmented before the step that takes them."""
        return not self._plan.placement.on_device

    def prepare(self, size: int) -> Prepare | None:
        """What the step does to a batch of images of this size first; None for nothing."""
        augment = None
        if not self.works_ahead:
            augment = make_prepare(
                self._augmentation(size, whole_batch=True), self._mixer, self._read
            )
        targets = self._targets
        if targets is None:
            return augment

        def prepare(batch: Any) -> Any:
            return targets(*(batch if augment is None else augment(batch)))

        return prepare

    def batches(
        self, size: int, order: BatchIndices, start_step: int, shard: Shard
    ) -> tf.data.Dataset:
        """What ``prepare`` takes: whole batches, or indices, with the images where they are needed."""
        if self.works_ahead:
            return self.made_on_host(size, order, start_step, shard)
        return device_dataset(
            self._intake.store,
            self._intake.split.train,
            order,
            with_images=self._read is None,
            start_step=start_step,
            shard=shard,
        )

    def made_on_host(
        self, size: int, order: BatchIndices, start_step: int, shard: Shard
    ) -> tf.data.Dataset:
        """Augmented and mixed images and their labels, as ``train_dataset`` gives them."""
        return train_dataset(
            self._intake.store,
            self._intake.split.train,
            order,
            self._augmentation(size, whole_batch=False),
            start_step=start_step,
            shard=shard,
            data_service=self._config.data_service,
            mixer=self._mixer,
        )

    @functools.cache  # noqa: B019  as long-lived as the training
    def _augmentation(self, size: int, *, whole_batch: bool) -> Augmentation:
        config = self._config
        fixed = isinstance(config.augment_strength, float)
        return make_augmentation(
            self._plan.policy,
            config.seed,
            size,
            config.augment_impl,
            None if fixed else self.strength,
            whole_batch=whole_batch,
            deterministic=config.deterministic,
        )


def make_order(config: TrainConfig, dataset: Dataset) -> BatchIndices:
    """The order of the training images that ``--sampler`` names."""
    train = dataset.split.train
    if config.sampler == BALANCED:
        labels = dataset.store.catalog.labels[train]
        return BalancedIndices(labels, config.batch_size, seed=config.seed)
    return BatchIndices(len(train), config.batch_size, seed=config.seed)
