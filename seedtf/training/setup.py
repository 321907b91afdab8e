"""Configures TensorFlow, loads the data, and builds the network and the optimizer of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from seedtf.config.train_config import SAMPLE, TrainConfig
from seedtf.data.archives import unpack_archive
from seedtf.data.check.check import name_broken_files
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.data.sample.write import write_sample
from seedtf.data.service import check_service
from seedtf.errors import UserError
from seedtf.model.network import build_network
from seedtf.model.weights import check_weights_file
from seedtf.report import report
from seedtf.runs.paths import RunPaths
from seedtf.training.optim.choice import first_averaged_epoch
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.optim.param_groups import layerwise_lr, no_decay_variables
from seedtf.training.plan import Plan
from seedtf.training.resolve import Settings
from seedtf.training.state import has_state
from seedtf.training.teacher import with_teacher

__all__ = [
    "configure_tensorflow",
    "data_folder",
    "load_training_data",
    "make_network",
    "make_phase_optimizer",
    "runtime_errors_as_user_errors",
    "seed_and_set_precision",
]

# With --cache=off files are read during training. If a file has become unreadable, TensorFlow raises
# one of these errors, without the name of the file.
_BAD_FILE_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
)


def configure_tensorflow(settings: Settings) -> None:
    """Sets TensorFlow's threads and determinism, and checks ``--weights`` and ``--data_service``.

    ``--weights`` is not checked if a resumed run takes its weights from its state.

    The rounding of TensorFlow's sums on a CPU depends on how many threads share the work, but not on
    the number of cores. So with a fixed number of threads, another machine with a processor of the same
    kind computes the same numbers.

    Raises:
        UserError: ``--weights`` is not a weights file, or ``--data_service`` cannot be reached.
    """
    config = settings.config
    try:
        tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    except RuntimeError:
        report("threads", "TensorFlow is already running, so --threads has no effect")
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    weights = _initial_weights(config)
    if weights not in ("none", "imagenet"):
        check_weights_file(Path(weights))
    if config.data_service:
        check_service(config.data_service)


def seed_and_set_precision(settings: Settings) -> None:
    """Seeds Keras, NumPy and Python, and sets Keras's dtype policy for layers created afterwards."""
    keras.utils.set_random_seed(settings.config.seed)
    keras.mixed_precision.set_global_policy(settings.precision.policy)


def data_folder(config: TrainConfig) -> str:
    """The folder of the images: ``--data_dir``, or the folder of the sample or of the unpacked archive.

    Raises:
        UserError: the sample data cannot be written, or the archive cannot be unpacked.
    """
    if config.data_dir != SAMPLE:
        return unpack_archive(config.data_dir, "--data_dir", config.cache_folder)
    root = config.cache_folder / "sample"
    report("sample", str(root))
    try:
        return str(write_sample(root))
    except OSError as error:
        raise UserError(f"--cache_dir={root.parent}: {error.strerror}; pass another one") from error


def load_training_data(config: TrainConfig) -> Dataset:
    """Loads the images that the flags name, their split, and the soft labels of ``--teacher``.

    Raises:
        UserError: for the same reasons as in ``load_dataset`` and ``with_teacher``.
    """
    dataset = load_dataset(
        data_folder(config),
        image_size=config.image_size,
        labels_csv=config.labels_csv,
        file_column=config.file_column,
        label_column=config.label_column,
        split_column=config.split_column,
        layout=config.layout,
        val_dir=unpack_archive(config.val_dir, "--val_dir", config.cache_folder),
        split_csv=config.split_csv,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        group_by=config.group_by,
        group_regex=config.group_regex,
        groups_csv=config.groups_csv,
        fixes=config.fixes,
        pseudo_labels=config.pseudo_labels,
        min_confidence=config.min_confidence,
        pseudo_weight=config.pseudo_weight,
        twins=config.twins,
        seed=config.seed,
        cache=config.cache,
        cache_dir=config.cache_folder,
        max_pixels=config.max_pixels,
        fit=config.fit,
        check=config.check,
        data_service=config.data_service,
        strict=config.strict,
    )
    return with_teacher(config, dataset)


def make_network(plan: Plan, dataset: Dataset) -> keras.Model:
    """The network of a run with its initial weights.

    Raises:
        UserError: for the same reasons as in ``build_network``.
    """
    config = plan.config
    return build_network(
        model=plan.settings.preset or config.model,
        num_classes=len(dataset.store.catalog.class_names),
        image_size=config.image_size,
        weights=_initial_weights(config),
        bn_momentum=plan.bn_momentum,
        sync_bn=config.sync_bn and plan.settings.devices.replicas > 1,
        zero_init_residual=config.zero_init_residual,
    )


def make_phase_optimizer(
    plan: Plan, network: keras.Model, *, phase_start: int = 0, lr: float | None = None
) -> keras.optimizers.Optimizer:
    """A new optimizer for the training phase whose first epoch is ``phase_start``.

    With ``--freeze_epochs`` a run has two phases, otherwise one (see ``Segment``).

    Args:
        plan: the plan of the run.
        network: the network to train.
        phase_start: the first epoch of the phase, counted from 0.
        lr: the initial learning rate; None for the highest rate of the schedule.
    """
    config, settings = plan.config, plan.settings
    factor = config.body_lr_factor
    return make_optimizer(
        config.optimizer,
        settings.lr if lr is None else lr,
        averaged_from=max(first_averaged_epoch(config.epochs) - phase_start, 0),
        steps_per_epoch=plan.steps_per_epoch,
        weight_decay=settings.weight_decay,
        clip_norm=config.clip_norm,
        no_decay=no_decay_variables(network),
        lr_scales=None if factor == 1.0 else layerwise_lr(network, factor),
    )


@contextmanager
def runtime_errors_as_user_errors(
    config: TrainConfig, dataset: Dataset, run_dir: Path | None = None
) -> Iterator[None]:
    """Converts errors of devices and disks during training to UserError with a remedy.

    Args:
        config: the flags of the training.
        dataset: the images of the training.
        run_dir: the run folder, for the advice to resume; None if no run is written.

    Raises:
        UserError: there is not enough memory, a file has become unreadable, or ``run_dir`` cannot be
            written, for example because the disk is full.
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
        resume = f", then continue with --resume={run_dir}," if run_dir else ""
        raise UserError(
            f"{broken[0].path}: became unreadable during training ({broken[0].fault}: "
            f"{broken[0].detail}); restore it{resume} or remove it (seedtf check finds all such "
            "files) and start again"
        ) from error
    except OSError as error:
        if run_dir is None:
            raise
        cause = error.strerror or str(error)
        raise UserError(
            f"--run_dir={run_dir}: cannot be written ({cause}); the last good state is kept: free "
            f"some space or repair the folder, then continue with --resume={run_dir}"
        ) from error


def _initial_weights(config: TrainConfig) -> str:
    """The value of ``--weights``, or ``none`` if a resumed run takes all weights from its state.

    A resumed EfficientNetB0 to B7 keeps ``imagenet``, because Keras builds these networks with one more
    layer for ``imagenet``.
    """
    has_extra_layer = config.weights == "imagenet" and config.model.lower().startswith(
        "efficientnetb"
    )
    # A run that was killed in its first epoch may have no state: it starts again from `config.weights`.
    resumes_a_state = config.resume and has_state(RunPaths.of(config.run_dir).state)
    return "none" if resumes_a_state and not has_extra_layer else config.weights
