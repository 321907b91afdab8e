"""Chooses all settings that do not depend on the data, and checks the flags.

The settings include the values of the flags that are ``auto``. ``resolve`` is a function of the flags
and the machine, and reads no file. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seedtf.config.network_flags import FITTED_HEAD
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError, missing_addons, missing_hub, missing_sklearn
from seedtf.model.backbones import ImageSizes
from seedtf.model.families import check_image_size, match_model_name, minimum_image_size
from seedtf.model.precision import Compilation, Precision, choose_jit, choose_precision
from seedtf.model.presets import Preset
from seedtf.training.distributed.choice import DeviceChoice, check_even_batch, choose_devices
from seedtf.training.distributed.cluster import SLURM
from seedtf.training.machine import Machine
from seedtf.training.optim.choice import check_optimizer, check_strategy, needs_addons
from seedtf.training.optim.schedules import Schedule, make_schedule
from seedtf.training.segments import SizeStage, parse_size_stages
from seedtf.training.trackers.tracker import check_installed

__all__ = ["Settings", "resolve"]

# --progressive_sizes has no sizes below this one, even if the network accepts them.
_SMALLEST_STAGE_SIZE = 8


@dataclass(frozen=True)
class Settings:
    """All choices of a run that can be made before any image is read.

    Attributes:
        config: the flags; paths are absolute, and ``threads`` is above 0.
        preset: the KerasHub preset that ``--model`` names; None for a network of keras.applications.
        devices: the devices that share a batch.
        precision: the dtype policy of the network.
        compilation: whether XLA compiles the train step.
        lr: the highest learning rate.
        weight_decay: decoupled weight decay; 0 for none.
        schedule: a function from the epoch, a float that is 0.0 at the start, to the learning rate.
        lr_per_step: whether the learning rate is set at every step; otherwise once an epoch.
        stages: the image size of the training in each epoch, from ``--progressive_sizes``.
        augments_on_device: whether the train step augments; otherwise the data pipeline does.
        placement_reason: why the data pipeline augments, as a phrase; empty if the train step augments.
        num_gpus: number of GPUs.
        keras_2: whether this is the Keras 2.15 environment.
    """

    config: TrainConfig
    preset: Preset | None
    devices: DeviceChoice
    precision: Precision
    compilation: Compilation
    lr: float
    weight_decay: float
    schedule: Schedule
    lr_per_step: bool
    stages: Sequence[SizeStage]
    augments_on_device: bool
    placement_reason: str
    num_gpus: int
    keras_2: bool


def resolve(config: TrainConfig, machine: Machine, preset: Preset | None = None) -> Settings:
    """Returns the settings that do not depend on the data, and checks the flags.

    Each ``auto`` whose value does not depend on the data is replaced by its value.

    Args:
        config: the flags of the run.
        machine: from ``inspect_machine``.
        preset: from ``resolve_preset``; None for a network of keras.applications.

    Raises:
        UserError: in one of these cases; the message names the flag, its value and the remedy.

            * The network is unknown, or does not accept the image sizes.
            * Learning rates, numbers of epochs or other flags contradict each other.
            * The strategy, the optimizer or XLA is impossible on this machine.
            * A package is not installed.

    Example:
        >>> settings = resolve(TrainConfig(data_dir="sample", weights="none"), Machine())
        >>> settings.lr, settings.precision.policy
        (0.001, 'float32')
    """
    config = replace(config.with_absolute_paths(), threads=config.threads or machine.cores)
    _check_packages(config, machine, preset)
    sizes = _accepted_image_sizes(config, preset, machine)
    devices = choose_devices(config.strategy, machine, config.cluster)
    _check_devices(config, devices)
    check_strategy(config.optimizer, devices.kind)
    weight_decay = _choose_weight_decay(config, machine)
    check_optimizer(
        config.optimizer,
        machine,
        weight_decay=weight_decay,
        clip_norm=config.clip_norm,
        body_lr_factor=config.body_lr_factor,
    )
    augments_on_device, placement_reason = _place_augmentation(config, len(machine.gpus))
    smallest = max(sizes.minimum, _SMALLEST_STAGE_SIZE)
    lr = _highest_rate(config, preset)
    return Settings(
        config=config,
        preset=preset,
        devices=devices,
        precision=choose_precision(config.precision, machine.gpus),
        compilation=choose_jit(
            config.jit_compile,
            len(machine.gpus),
            devices.replicas,
            deterministic=config.deterministic,
            can_split_step=not machine.keras_2,
        ),
        lr=lr,
        weight_decay=weight_decay,
        schedule=_make_schedule(config, lr),
        # With one rate per epoch, the first epoch of a warm-up would run at 1 % of the target rate.
        lr_per_step=config.schedule_per_step or config.warmup_epochs > 0,
        stages=parse_size_stages(
            config.progressive_sizes, config.image_size, config.epochs, smallest
        ),
        augments_on_device=augments_on_device,
        placement_reason=placement_reason,
        num_gpus=len(machine.gpus),
        keras_2=machine.keras_2,
    )


def _accepted_image_sizes(
    config: TrainConfig, preset: Preset | None, machine: Machine
) -> ImageSizes:
    """The image sizes that the network accepts. Raises UserError if the flags ask for another size."""
    if preset is None:
        network = match_model_name(config.model, machine.networks)
        check_image_size(network, config.image_size)
        return ImageSizes(minimum_image_size(network))
    preset.sizes.check(preset.name, config.image_size)
    if preset.sizes.fixed_once_built and config.progressive_sizes != "off":
        raise UserError(
            f"--progressive_sizes={config.progressive_sizes}: --model={preset.name} takes one image "
            "size in a run, because its position embeddings fit no other size; leave the flag out"
        )
    return preset.sizes


def _check_packages(config: TrainConfig, machine: Machine, preset: Preset | None) -> None:
    if preset is not None and not machine.hub:
        raise missing_hub(f"--model={config.model}")
    if config.augment_impl == "addons" and not machine.addons:
        raise missing_addons("--augment_impl=addons")
    check_installed(config.trackers, machine.trackers)
    if config.head == FITTED_HEAD and not machine.sklearn:
        raise missing_sklearn(f"--head={FITTED_HEAD}")


def _check_devices(config: TrainConfig, devices: DeviceChoice) -> None:
    if config.dry_run and devices.cluster is not None:
        by_slurm = devices.cluster.source == SLURM
        remedy = "start seedtf without srun" if by_slurm else "unset TF_CONFIG"
        raise UserError(f"--dry_run: works on one machine only; {remedy}, or pass --strategy=none")
    if config.head == FITTED_HEAD and devices.cluster is not None:
        raise UserError(
            f"--head={FITTED_HEAD}: several workers would fit different heads; fit the head on one "
            "machine, and start the workers from that run with --weights"
        )
    if config.batch_size is not None:  # the default is adapted to the replicas by make_plan
        check_even_batch(devices.replicas, config.batch_size)
    if config.ema_horizon and devices.replicas > 1:
        raise UserError(
            f"--ema_horizon={config.ema_horizon:g}: averages on one device only, and "
            f"{devices.replicas} share the batch here; pass --strategy=none, or leave --ema_horizon out"
        )


def _choose_weight_decay(config: TrainConfig, machine: Machine) -> float:
    """The weight decay; 0 by default for optimizers of TensorFlow Addons, which have none."""
    is_default = isinstance(config.weight_decay, str)
    if is_default and needs_addons(config.optimizer, machine.keras_2):
        return 0.0
    return config.weight_decay_in_use


def _highest_rate(config: TrainConfig, preset: Preset | None) -> float:
    """The highest learning rate.

    For a preset, ``config.highest_rate`` would read the preset's files, which may be gone when a run is
    resumed.
    """
    if preset is None:
        return config.highest_rate
    return config.lr or config.default_rate(preset.is_efficientnet)


def _make_schedule(config: TrainConfig, lr: float) -> Schedule:
    return make_schedule(
        config.schedule,
        lr=lr,
        min_lr=config.min_lr,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        cycle_epochs=config.cycle_epochs,
        cycle_decay=config.cycle_decay,
    )


def _place_augmentation(config: TrainConfig, num_gpus: int) -> tuple[bool, str]:
    """Returns whether the train step augments and, if it does not, the reason.

    ``auto`` augments in the train step if there is a GPU and no other flag prevents it
    (``_why_not_on_device``). The host then has little to do: it only gathers uint8 images. Without a
    GPU, the data pipeline augments: it uses the same cores as the train step, but can prepare batches
    in advance.
    """
    obstacle = _why_not_on_device(config)
    if config.placement == "host":
        return False, "on the host, as requested"
    if config.placement == "device" and obstacle:
        raise UserError(f"--placement=device: {obstacle}; leave one of the two flags out")
    if config.placement == "auto" and (not num_gpus or obstacle):
        return False, f"on the host: {obstacle or 'there is no GPU'}"
    return True, ""


def _why_not_on_device(config: TrainConfig) -> str:
    """Why the train step cannot augment; empty if it can."""
    if config.augment_impl != "fused":
        return f"--augment_impl={config.augment_impl} cannot be compiled into the step"
    if config.data_service:
        return "--data_service augments the images on its workers"
    return ""
