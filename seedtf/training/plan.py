"""Chooses the settings of a run that depend on its data.

These settings are the batch size, the number of steps in an epoch and in a call of the train function,
the momentum of batch normalization, the class weights, and where images are augmented. ``make_plan`` is
a pure function of the other settings and the dataset. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from seedtf.config.optim_flags import DEFAULT_BATCH_SIZE
from seedtf.config.train_config import AUTO, BALANCED, TrainConfig
from seedtf.errors import UserError
from seedtf.report import format_bytes
from seedtf.training.optim.class_weights import parse_class_weights
from seedtf.training.optim.schedules import Schedule
from seedtf.training.resolve import Settings
from seedtf.training.segments import Segment, plan_segments

if TYPE_CHECKING:
    from seedtf.data.dataset import Dataset
    from seedtf.data.store import Store

__all__ = ["Placement", "Plan", "batch_norm_momentum", "make_plan"]

# All images are kept in a GPU's memory if they take at most this fraction of the memory.
_RESIDENT_FRACTION = 1 / 3
# If the size of the memory is unknown, the images may take at most this number of bytes (2 GiB).
_DEFAULT_RESIDENT_BYTES = 2 << 30
# With 10 steps in a call, the time to start the call is short compared with the time of its steps. With
# more steps, the reaction to a signal would be late, because it has to wait for the end of the call.
_STEPS_PER_EXECUTION = 10


@dataclass(frozen=True)
class Placement:
    """Where the augmentation runs.

    Attributes:
        on_device: whether the train step augments; otherwise the data pipeline does.
        resident: whether the device holds all decoded images, so that the train step gets only indices.
        reason: where the augmentation runs and why, as a phrase for the console.
    """

    on_device: bool
    resident: bool
    reason: str

    @property
    def name(self) -> str:
        """``device`` or ``host``, for config.json."""
        return "device" if self.on_device else "host"


@dataclass(frozen=True)
class Plan:
    """All settings of a run, including those that depend on the data.

    Attributes:
        settings: the choices that do not depend on the data.
        config: the flags, as in ``settings.config``, except that ``batch_size`` is always a number.
        num_train: number of training images.
        steps_per_epoch: number of training steps in an epoch.
        bn_momentum: momentum of the moving statistics of batch normalization.
        placement: where the augmentation runs.
        steps_per_execution: number of training steps that the host starts with one call.
        class_weights: float32 ``[K]``; None without ``--class_weights``.
    """

    settings: Settings
    config: TrainConfig
    num_train: int
    steps_per_epoch: int
    bn_momentum: float
    placement: Placement
    steps_per_execution: int
    class_weights: npt.NDArray[np.float32] | None

    @property
    def batch_size_note(self) -> str:
        """Why the batch size is not the default; empty if it is the default or was given."""
        size = self.config.batch_size
        if self.settings.config.batch_size is not None or size == DEFAULT_BATCH_SIZE:
            return ""
        reasons = []
        if self.num_train < DEFAULT_BATCH_SIZE:
            count = "no more" if size == self.num_train else f"{self.num_train}"
            reasons.append(f"there are {count} for training")
        if size != min(DEFAULT_BATCH_SIZE, self.num_train):
            reasons.append(f"{self.settings.devices.replicas} devices share a batch evenly")
        return (
            f"{size} images instead of {DEFAULT_BATCH_SIZE}, because {' and '.join(reasons)}; "
            "--batch_size sets another number"
        )

    def lr_schedule(self) -> Schedule:
        """The learning rate that training will set, as a function of the epoch.

        Unless the rate is set at every step, it is constant within an epoch.
        """
        schedule = self.settings.schedule
        if self.settings.lr_per_step:
            return schedule
        return lambda epoch: schedule(float(math.floor(epoch)))

    @property
    def restarts_every_epoch(self) -> bool:
        """Whether every epoch needs a ``fit`` of its own.

        With ``--augment_strength=auto`` the strength changes after each epoch. In one ``fit``, the
        pipeline would prefetch batches for the next epoch with the old strength.
        """
        return self.config.augment_strength == AUTO and not self.placement.on_device

    def segments(self, epoch: int = 0, step: int = 0) -> list[Segment]:
        """The ``fit`` calls that remain after ``epoch`` epochs and ``step`` steps of the next epoch."""
        return plan_segments(
            self.settings.stages,
            epochs=self.config.epochs,
            freeze_epochs=self.config.freeze_epochs,
            every_epoch=self.restarts_every_epoch,
            epoch=epoch,
            step=step,
        )

    def resolved(self) -> dict[str, Any]:
        """The values that were chosen for the run, for config.json."""
        settings = self.settings
        return {
            "lr": settings.lr,
            "weight_decay": settings.weight_decay,
            "schedule_per_step": settings.lr_per_step,
            "bn_momentum": self.bn_momentum,
            "precision": settings.precision.policy,
            "jit_compile": settings.compilation.enabled or settings.compilation.halves,
            "steps_per_epoch": self.steps_per_epoch,
            "placement": self.placement.name,
            "steps_per_execution": self.steps_per_execution,
            "stages": [asdict(stage) for stage in settings.stages],
            "class_weights": None if self.class_weights is None else self.class_weights.tolist(),
        }


def make_plan(settings: Settings, dataset: Dataset, gpu_memory: int = 0) -> Plan:
    """Chooses the settings that depend on the data, and checks that the data fits the flags.

    Args:
        settings: the choices that do not depend on the data.
        dataset: the images.
        gpu_memory: bytes that TensorFlow may use on a GPU; 0 if that is not known.

    Raises:
        UserError: in one of these cases:

            * A batch has more images than the training data.
            * There are fewer training images, or fewer validation images, than replicas.
            * ``--class_weights`` does not fit the classes.
            * ``--steps_per_execution`` is above 1, but the train step does not look up its images
              itself, or Keras 2.15 is installed.
    """
    num_train, num_val = len(dataset.split.train), len(dataset.split.val)
    config, replicas = settings.config, settings.devices.replicas
    if config.batch_size is None:
        size = min(DEFAULT_BATCH_SIZE, num_train)
        config = replace(config, batch_size=max(size - size % replicas, replicas))
    if num_train < replicas:
        raise UserError(
            f"--strategy: {replicas} replicas share {num_train} training images, and each needs one; "
            "add images, or use fewer devices"
        )
    if config.batch_size > num_train:
        raise UserError(
            f"--batch_size={config.batch_size}: more than the {num_train} training images; "
            f"pass {num_train} or less"
        )
    if num_val < replicas:
        raise UserError(
            f"--strategy: {replicas} replicas share {num_val} validation images, and each needs one; "
            "pass a larger --val_fraction, or use fewer devices"
        )
    steps_per_epoch, momentum = num_train // config.batch_size, config.bn_momentum
    placement = _choose_placement(settings, dataset.store, gpu_memory)
    return Plan(
        settings=settings,
        config=config,
        num_train=num_train,
        steps_per_epoch=steps_per_epoch,
        bn_momentum=batch_norm_momentum(steps_per_epoch) if isinstance(momentum, str) else momentum,
        placement=placement,
        steps_per_execution=_choose_steps_per_execution(
            settings, placement, steps_per_epoch, dataset.store, gpu_memory
        ),
        class_weights=_choose_class_weights(config, dataset),
    )


def batch_norm_momentum(steps_per_epoch: int) -> float:
    """Returns a momentum with which the moving statistics follow the training within an epoch.

    With Keras's default of 0.99, the statistics average over about 100 steps. After an epoch of 30
    steps they still contain much of their initial values 0 and 1, so the validation metrics stay bad
    for hundreds of steps although the training loss falls.

    ``1 - 10 / steps_per_epoch`` averages over a tenth of an epoch: after one epoch, the earlier values
    have the weight ``exp(-10)``. The result is at least 0.8, because an average over fewer than five
    batches is noisy, and at most 0.99, because Keras's default is good enough for long epochs.

    Example:
        >>> batch_norm_momentum(steps_per_epoch=100)
        0.9
    """
    return min(max(1.0 - 10.0 / steps_per_epoch, 0.8), 0.99)


def _choose_placement(settings: Settings, store: Store, gpu_memory: int) -> Placement:
    if not settings.augments_on_device:
        return Placement(False, False, settings.placement_reason)
    fits = not settings.num_gpus or _bytes_of_images(store) <= _resident_bytes(gpu_memory)
    resident = store.mode != "off" and settings.devices.replicas == 1 and fits
    fed = "only indices" if resident else "uint8 images"
    return Placement(True, resident, f"in the train step, which is fed {fed}")


def _bytes_of_images(store: Store) -> int:
    return len(store.catalog) * store.size**2 * 3


def _resident_bytes(gpu_memory: int) -> float:
    """The largest number of bytes that the images may take of a GPU's memory to be kept in it."""
    return _RESIDENT_FRACTION * gpu_memory or _DEFAULT_RESIDENT_BYTES


def _choose_steps_per_execution(
    settings: Settings, placement: Placement, steps_per_epoch: int, store: Store, gpu_memory: int
) -> int:
    """The number of training steps in one call of the train function.

    A call can have several steps only with Keras 3, and only if the train step looks up its images
    itself, so that the host passes on nothing but indices. If ``--steps_per_execution`` does not set
    the number, a call has several steps only on a GPU with XLA.
    """
    requested = settings.config.steps_per_execution
    if settings.config.dry_run:  # a dry run times single steps
        return 1
    if placement.resident and not settings.keras_2:
        auto = _STEPS_PER_EXECUTION if settings.num_gpus and settings.compilation.enabled else 1
        return min(requested or auto, steps_per_epoch)
    if requested > 1:
        needed = _what_several_steps_need(settings, store, gpu_memory)
        raise UserError(f"--steps_per_execution={requested}: {needed}, or pass 1")
    return 1


def _what_several_steps_need(settings: Settings, store: Store, gpu_memory: int) -> str:
    """What a call of several training steps needs and does not have here, and the remedy."""
    if settings.keras_2:
        return "needs Keras 3; install seedtf without [addons]"
    needs = "needs a train step that looks up its images itself"
    if (replicas := settings.devices.replicas) > 1:
        return f"{needs}, which is possible on one device, not on {replicas}; pass --strategy=none"
    needed_bytes, allowed_bytes = _bytes_of_images(store), _resident_bytes(gpu_memory)
    if settings.num_gpus and needed_bytes > allowed_bytes:
        return (
            f"{needs}, but the images take {format_bytes(needed_bytes)} and may take "
            f"{format_bytes(allowed_bytes)} of the GPU's memory; lower --image_size"
        )
    return f"{needs}; pass --placement=device with --cache=ram or disk"


def _choose_class_weights(config: TrainConfig, dataset: Dataset) -> npt.NDArray[np.float32] | None:
    names = dataset.store.catalog.class_names
    labels = dataset.store.catalog.labels[dataset.split.train]
    # A balanced sampler shows every class equally often, so all classes get the same count.
    counts = np.bincount(labels, minlength=len(names))
    counts = np.ones_like(counts) if config.sampler == BALANCED else counts
    return parse_class_weights(config.class_weights, names, counts)
