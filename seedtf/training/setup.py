"""What every use of a ``TrainConfig`` begins with: threads, data, network and optimizer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import tensorflow as tf

from seedtf.config.train_config import TrainConfig
from seedtf.data.check.check import name_broken_files
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.errors import UserError
from seedtf.model.network import build_network
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.optim.param_groups import layerwise_lr, no_decay_variables
from seedtf.training.plan import Plan, check_choices, data_folder, make_plan

__all__ = [
    "make_network",
    "open_planned",
    "planned_optimizer",
    "runtime_errors_as_user_errors",
    "settled",
]

# what a file that changed under --cache=off ends in, without its name
_BAD_FILE_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
)


def settled(config: TrainConfig) -> TrainConfig:
    """``config`` with absolute paths and the number of threads, which TensorFlow now has.

    Raises:
        UserError: as ``check_choices``.
    """
    config = _fix_threads(config.with_absolute_paths())
    check_choices(config)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return config


def open_planned(config: TrainConfig, replicas: int = 1) -> tuple[Dataset, Plan]:
    """Seeds all randomness, opens the data and sets the number format that the plan chose.

    Raises:
        UserError: as ``load_dataset`` and ``make_plan``.
    """
    keras.utils.set_random_seed(config.seed)
    dataset = _open_training_data(config)
    plan = make_plan(config, dataset, replicas)
    keras.mixed_precision.set_global_policy(plan.precision.policy)
    return dataset, plan


@contextmanager
def runtime_errors_as_user_errors(
    config: TrainConfig, dataset: Dataset, run_dir: Path | None = None
) -> Iterator[None]:
    """What the device or the disk refuses while training becomes a line that says what to do.

    Args:
        config: every choice of the training.
        intake: its data.
        run_dir: the folder that ``--resume`` can go on in; None where none is written.

    Raises:
        UserError: out of memory, an image went bad, or ``run_dir`` cannot be written.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"--batch_size={config.batch_size}: out of memory; lower it or --image_size, or train "
            "with --precision=mixed_bfloat16"
        ) from error
    except _BAD_FILE_ERRORS as error:
        broken = name_broken_files(dataset.store, config.max_pixels)
        if not broken:
            raise
        go_on = f", then go on with --resume={run_dir}," if run_dir else ""
        raise UserError(
            f"{broken[0].path}: found bad while training ({broken[0].fault}: {broken[0].detail}); "
            f"restore it{go_on} or remove it (seedtf check finds all such) and start again"
        ) from error
    except BrokenPipeError:  # the reader of the output left; the run folder is well
        raise
    except OSError as error:
        if run_dir is None:
            raise
        cause = error.strerror or str(error)
        raise UserError(
            f"--run_dir={run_dir}: cannot be written ({cause}); the last good state is kept: make "
            f"room or repair the folder, then go on with --resume={run_dir}"
        ) from error


def make_network(
    config: TrainConfig, dataset: Dataset, plan: Plan, *, weights: str, sync_bn: bool = False
) -> keras.Model:
    """The network that is trained; ``weights`` and ``sync_bn`` as ``build_network`` takes them."""
    return build_network(
        model=config.model,
        num_classes=len(dataset.store.catalog.class_names),
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
        no_decay=no_decay_variables(network),
        clip_norm=config.clip_norm,
        lr_scales=None if factor == 1.0 else layerwise_lr(network, factor),
    )


def _fix_threads(config: TrainConfig) -> TrainConfig:
    """Fixes the number of compute threads, and notes it in the config, so that a run can be repeated.

    TensorFlow's sums on a CPU depend on how many threads share them, not on how many cores those have.
    """
    threads = config.threads or os.cpu_count() or 1
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        print("threads   TensorFlow was running already and keeps the number it has", flush=True)
    return replace(config, threads=threads)


def _open_training_data(config: TrainConfig) -> Dataset:
    """The images, decoded or ready to be, and their split."""
    return load_dataset(
        data_folder(config),
        image_size=config.image_size,
        labels_csv=config.labels_csv,
        val_dir=config.val_dir,
        split_csv=config.split_csv,
        val_fraction=config.val_fraction,
        seed=config.seed,
        cache=config.cache,
        cache_dir=config.cache_folder,
        max_pixels=config.max_pixels,
        check=config.check,
        data_service=config.data_service,
        strict=config.strict,
    )
