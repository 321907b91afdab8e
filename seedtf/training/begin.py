"""What every use of a ``TrainConfig`` begins with: threads, data, network and optimizer."""

from __future__ import annotations

import os
from dataclasses import replace

import keras
import tensorflow as tf

from seedtf.data.intake import Intake, open_data
from seedtf.model.network import build_network
from seedtf.training.config import TrainConfig
from seedtf.training.decay import layer_rates
from seedtf.training.optimizers import make_optimizer
from seedtf.training.plan import Plan, cache_folder, data_folder

__all__ = ["fix_threads", "make_network", "open_training_data", "planned_optimizer"]


def fix_threads(config: TrainConfig) -> TrainConfig:
    """Fixes the number of compute threads, and notes it in the config, so that a run can be repeated.

    TensorFlow's sums on a CPU depend on how many threads share them, not on how many cores those have.
    """
    threads = config.threads or os.cpu_count() or 1
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        print("threads   TensorFlow was running already and keeps the number it has", flush=True)
    return replace(config, threads=threads)


def open_training_data(config: TrainConfig) -> Intake:
    """The pictures, decoded or ready to be, and their split. Raises UserError as ``open_data``."""
    return open_data(
        data_folder(config),
        image_size=config.image_size,
        labels_csv=config.labels_csv,
        val_dir=config.val_dir,
        split_csv=config.split_csv,
        val_fraction=config.val_fraction,
        seed=config.seed,
        cache=config.cache,
        cache_dir=cache_folder(config),
        max_pixels=config.max_pixels,
        check=config.check,
        shared=bool(config.data_service),
        strict=config.strict,
    )


def make_network(
    config: TrainConfig, intake: Intake, plan: Plan, *, weights: str, sync_bn: bool = False
) -> keras.Model:
    """The network that is trained; ``weights`` and ``sync_bn`` as ``build_network`` takes them."""
    return build_network(
        model=config.model,
        num_classes=len(intake.store.catalog.class_names),
        image_size=config.image_size,
        weights=weights,
        bn_momentum=plan.bn_momentum,
        sync_bn=sync_bn,
        zero_init_residual=config.zero_init_residual,
    )


def planned_optimizer(
    config: TrainConfig, plan: Plan, network: keras.Model, lr: float, *, averaged_from: int = 0
) -> keras.optimizers.Optimizer:
    """A new optimizer of ``network``; ``lr`` and ``averaged_from`` as ``make_optimizer`` takes them."""
    factor = config.body_lr_factor
    return make_optimizer(
        config.optimizer,
        lr,
        averaged_from=averaged_from,
        steps_per_epoch=plan.steps_per_epoch,
        weight_decay=plan.weight_decay,
        clip_norm=config.clip_norm,
        rates=None if factor == 1.0 else layer_rates(network, factor),
    )
