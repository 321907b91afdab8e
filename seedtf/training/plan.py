"""What the flags, the data and the device come to: every ``auto`` resolved, before anything runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seedtf.augment.mixing import Mixing
from seedtf.augment.policy import Policy
from seedtf.compat.tensorflow import import_addons
from seedtf.config.train_config import BALANCED, SAMPLE, TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.data.sample.write import write_sample
from seedtf.data.service import check_service
from seedtf.errors import UserError
from seedtf.model.batch_norm import momentum_for
from seedtf.model.families import check_image_size, minimum_image_size
from seedtf.model.network import resolve_model_name
from seedtf.model.precision import (
    Compilation,
    Precision,
    choose_jit,
    choose_precision,
)
from seedtf.model.weights import check_weights_file
from seedtf.training.callbacks import tensorboard_callback
from seedtf.training.machine import gpu_compute_capabilities
from seedtf.training.optim.class_weights import parse_class_weights
from seedtf.training.optim.optimizers import check_optimizer, needs_addons
from seedtf.training.optim.schedules import Schedule, make_schedule
from seedtf.training.placement import Placement, choose_placement
from seedtf.training.sizes import Stage, make_stages

__all__ = [
    "Plan",
    "check_choices",
    "data_folder",
    "make_plan",
]


@dataclass(frozen=True)
class Plan:
    """The resolved choices of a run.

    ``lr`` is the highest rate; ``policy`` has a fixed strength applied; ``class_weights`` is float32
    ``[K]`` or None.
    """

    precision: Precision
    compilation: Compilation
    steps_per_epoch: int
    lr: float
    weight_decay: float
    per_step: bool
    bn_momentum: float
    schedule: Schedule
    policy: Policy
    placement: Placement
    stages: list[Stage]
    mixing: Mixing
    class_weights: npt.NDArray[np.float32] | None

    def used_rate(self) -> Schedule:
        """The learning rate as training will set it: in steps of an epoch, unless set per step."""
        if self.per_step:
            return self.schedule
        return lambda epoch: self.schedule(float(math.floor(epoch)))

    def resolved(self) -> dict[str, Any]:
        """For config.json."""
        return {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "schedule_per_step": self.per_step,
            "bn_momentum": self.bn_momentum,
            "precision": self.precision.policy,
            "jit_compile": self.compilation.enabled,
            "steps_per_epoch": self.steps_per_epoch,
            "placement": self.placement.name,
            "stages": [asdict(stage) for stage in self.stages],
            "class_weights": None if self.class_weights is None else self.class_weights.tolist(),
        }


def make_plan(config: TrainConfig, dataset: Dataset, replicas: int = 1) -> Plan:
    """Resolves ``config`` for this data and the devices TensorFlow sees.

    Raises:
        UserError: the batch is larger than the training data, rates and lengths contradict, or the
            device cannot augment.
    """
    images = len(dataset.split.train)
    if config.batch_size > images:
        raise UserError(
            f"--batch_size={config.batch_size}: more than the {images} training images; "
            f"pass {images} or less"
        )
    steps_per_epoch = images // config.batch_size
    momentum = config.bn_momentum
    capabilities = gpu_compute_capabilities()
    return Plan(
        precision=choose_precision(config.precision, capabilities),
        compilation=choose_jit(config.jit_compile, len(capabilities), replicas),
        steps_per_epoch=steps_per_epoch,
        lr=config.highest_rate,
        weight_decay=_weight_decay(config),
        # set once an epoch, a warm-up would spend its whole first epoch near 0
        per_step=config.schedule_per_step or config.warmup_epochs > 0,
        bn_momentum=momentum_for(steps_per_epoch) if isinstance(momentum, str) else momentum,
        schedule=_schedule(config),
        policy=config.policy(),
        placement=choose_placement(config, dataset.store, len(capabilities), replicas),
        stages=_stages(config),
        mixing=config.mixing(),
        class_weights=_class_weights(config, dataset),
    )


def check_choices(config: TrainConfig) -> None:
    """Refuses what needs no data to be refused, before any image is decoded.

    Raises:
        UserError: an unknown network or one that takes no such small images, weights that are no
            such file, rates and lengths that contradict, TensorBoard or TensorFlow Addons where they
            are not installed.
    """
    _schedule(config)
    check_image_size(resolve_model_name(config.model), config.image_size)
    _stages(config)
    if config.has_weights_file:
        check_weights_file(Path(config.weights))
    check_optimizer(
        config.optimizer,
        weight_decay=_weight_decay(config),
        clip_norm=config.clip_norm,
        body_lr_factor=config.body_lr_factor,
    )
    if config.data_service:
        check_service(config.data_service)
    if config.augment_impl == "addons":
        import_addons("--augment_impl=addons")
    if config.tensorboard:
        tensorboard_callback(Path())


def _weight_decay(config: TrainConfig) -> float:
    """Those of TensorFlow Addons have none, so none is their default."""
    left_open = isinstance(config.weight_decay, str)
    return 0.0 if left_open and needs_addons(config.optimizer) else config.decay


def _stages(config: TrainConfig) -> list[Stage]:
    smallest = max(minimum_image_size(resolve_model_name(config.model)), 8)
    return make_stages(config.progressive_sizes, config.image_size, config.epochs, smallest)


def _class_weights(config: TrainConfig, dataset: Dataset) -> npt.NDArray[np.float32] | None:
    names = dataset.store.catalog.class_names
    labels = dataset.store.catalog.labels[dataset.split.train]
    # a balanced sampler shows every class alike, so nothing is left to be made up for
    counts = np.bincount(labels, minlength=len(names))
    counts = np.ones_like(counts) if config.sampler == BALANCED else counts
    return parse_class_weights(config.class_weights, names, counts)


def _schedule(config: TrainConfig) -> Schedule:
    return make_schedule(
        config.schedule,
        lr=config.highest_rate,
        min_lr=config.min_lr,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        cycle_epochs=config.cycle_epochs,
        cycle_decay=config.cycle_decay,
    )


def data_folder(config: TrainConfig) -> str:
    """``--data_dir``; for ``sample`` the folder of the embedded data, drawn when it is not there."""
    if config.data_dir != SAMPLE:
        return config.data_dir
    root = config.cache_folder / "sample"
    print(f"sample    {root}", flush=True)
    try:
        return str(write_sample(root))
    except OSError as error:
        raise UserError(f"--cache_dir={root.parent}: {error.strerror}; pass another one") from error
