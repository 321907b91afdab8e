"""Prints the first lines of a run: its data, the settings that were chosen, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from seedtf.config.recipes import RANDOM_WEIGHTS, RECIPES, recipe_changes
from seedtf.config.train_config import AUTO, BALANCED, TrainConfig
from seedtf.data.catalog import describe_faults, describe_others
from seedtf.data.dataset import Dataset
from seedtf.data.split import classes_without_validation
from seedtf.model.families import short_name
from seedtf.report import format_count, report, warn
from seedtf.runs.presets import initial_weights_licence
from seedtf.runs.records import describe_devices
from seedtf.training.distributed.choice import DeviceChoice
from seedtf.training.optim.choice import describe_optimizer
from seedtf.training.plan import Plan

__all__ = ["data_warnings", "describe_split", "report_plan", "report_worker"]

_MAX_SHOWN_FAULTS = 5
# With this many images for each GPU, a large GPU computes a step longer than the host needs to start
# the next step.
_BUSY_BATCH = 128
_DETERMINISTIC = (
    "only bit-reproducible operations; no slowdown on 2 CPU cores (ResNet-50: 171 images/s without, "
    "174 with), not tested on a GPU; the time spent waiting for data is not measured"
)
_STORE_TEXTS = {
    "ram": "memory",
    "disk": "memory-mapped cache file",
    "off": "none, files are decoded in every epoch",
}


def report_plan(plan: Plan, dataset: Dataset, network: keras.Model, run_dir: Path) -> None:
    """Prints the data and the settings of a run, one line each; warns of faults in the data.

    Args:
        plan: the settings of the run.
        dataset: the images of the run.
        network: the built network.
        run_dir: the run folder.
    """
    config, settings = plan.config, plan.settings
    lines = {
        "run": "none, because a dry run trains nothing" if config.dry_run else str(run_dir),
        "images": _describe_images(dataset),
        "split": describe_split(config, dataset),
        "store": _describe_store(dataset),
        "model": _describe_model(plan, network),
        "precision": settings.precision.reason,
        "XLA": settings.compilation.reason,
        "augment": f"{_describe_augmentation(config)}; {plan.placement.reason}",
        "device": f"{describe_devices()}, {config.threads} compute threads",
        "strategy": _describe_strategy(config, settings.devices),
        "recipe": _describe_recipe(config),
        "training": _describe_training(plan),
        "update": _describe_update(plan),
    }
    if config.sampler == BALANCED:
        lines["sampler"] = "balanced: an epoch draws the same number of images from every class"
    if batch := plan.batch_size_note or _small_batch_advice(plan):
        lines["batch"] = batch
    if averages := _describe_averages(config):
        lines["averages"] = averages
    if len(settings.stages) > 1:
        lines["sizes"] = _describe_sizes(plan)
    if plan.class_weights is not None:
        lines["weights"] = _describe_class_weights(dataset, plan.class_weights)
    if config.deterministic:
        lines["determinism"] = _DETERMINISTIC
    if config.data_service:
        lines["service"] = _describe_service(config)
    for label, text in lines.items():
        report(label, text)
    for text in data_warnings(dataset):
        warn(text)
    _report_faults(dataset)


def report_worker(devices: DeviceChoice) -> None:
    """If there are several workers, prints which of them this process is."""
    cluster = devices.cluster
    if cluster is not None:
        part = "the chief, which writes the run" if devices.chief else "which prints nothing more"
        report(
            "worker",
            f"{cluster.name(cluster.index)}, number {cluster.index + 1} of {cluster.size}, {part}; "
            "waiting for the others",
        )


def _describe_strategy(config: TrainConfig, devices: DeviceChoice) -> str:
    text = f"{devices.kind}, because {devices.reason}"
    if devices.replicas == 1:
        return text
    per_replica = config.batch_size // devices.replicas
    statistics = "over the whole batch" if config.sync_bn else "per replica"
    return (
        f"{text}; each of {devices.replicas} replicas gets {per_replica} images of a batch, batch-norm "
        f"statistics {statistics}; the time spent waiting for data is not measured"
    )


def _describe_images(dataset: Dataset) -> str:
    catalog = dataset.store.catalog
    counts = catalog.class_counts().values()
    left_out = f"{len(catalog.faults)} left out" if catalog.faults else "none left out"
    least, most = min(counts), max(counts)
    each = f"{least:,} each" if least == most else f"{least:,} to {most:,} each"
    text = f"{len(catalog):,} in {len(counts)} classes ({each})"
    if not dataset.num_unopened:
        return f"{text}, {left_out}"
    return (
        f"{text}; {dataset.store.num_opened:,} opened, {left_out}; the others are checked when they "
        "are read, without a search for duplicates (--check=all checks and compares all images first)"
    )


def describe_split(config: TrainConfig, dataset: Dataset) -> str:
    """Returns the numbers of images on each side, and what the split keeps on one side."""
    split = dataset.split
    source = f"stratified {config.val_fraction:.0%}, seed {config.seed}"
    if given := config.val_dir or config.split_csv or dataset.split_source:
        source = f"from {given}"
    test = f", {len(split.test):,} test" if len(split.test) else ""
    text = f"{len(split.train):,} train, {len(split.val):,} validation{test} ({source})"
    # If some are on different sides, a warning counts these, see `data_warnings`.
    on_same_side = {
        "duplicate": 0 if dataset.duplicates_across_split else dataset.duplicates,
        "near duplicate": 0 if dataset.near_duplicates_across_split else dataset.near_duplicates,
    }
    counts = " and ".join(
        format_count(count, name) for name, count in on_same_side.items() if count
    )
    if counts:
        text += f"; {counts}, each on the same side as its original"
    if dataset.grouping:
        text += f"; {dataset.grouping.describe()}"
    return text


def _describe_store(dataset: Dataset) -> str:
    store = dataset.store
    reused = ", reused from an earlier run" if store.from_cache else ""
    return f"{_STORE_TEXTS[store.mode]}{reused}; {store.size}² pixels, {dataset.cache_plan.sizes}"


def _describe_service(config: TrainConfig) -> str:
    return (
        f"training batches made by the tf.data service at {config.data_service}, put in order here; "
        "validation batches made here"
    )


def _describe_model(plan: Plan, network: keras.Model) -> str:
    config = plan.config
    weights = {"none": "random"}.get(config.weights, config.weights)
    if plan.settings.preset and config.weights == "imagenet":
        weights = "those of the preset"
    if licence := initial_weights_licence(config, plan.settings.preset):
        weights += f" (licence: {licence})"
    text = f"{short_name(config.model)}, {network.count_params():,} parameters"
    return f"{text}, initial weights: {weights}; batch-norm momentum {plan.bn_momentum:.3g}"


def _describe_recipe(config: TrainConfig) -> str:
    recipe = config.recipe_in_use
    defaults = _flags_as_text(RECIPES[recipe])
    changed = _flags_as_text(recipe_changes(recipe, config.as_dict()))
    changes = f"; changed by flags: {changed}" if changed else ""
    return f"{recipe}, {_why_this_recipe(config)} (defaults: {defaults}){changes}"


def _flags_as_text(flags: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_as_text(value)}" for name, value in flags.items())


def _why_this_recipe(config: TrainConfig) -> str:
    """Why the run has its recipe, as a phrase."""
    if config.recipe != AUTO:
        return "as requested"
    state = "random" if config.weights == RANDOM_WEIGHTS else "trained"
    return f"because the initial weights are {state}"


def _as_text(value: Any) -> str:
    return str(value).lower()


def _describe_augmentation(config: TrainConfig) -> str:
    parts = [f"strength {_as_text(config.augment_strength).removesuffix('.0')}"]
    if config.mixup:
        parts.append(f"MixUp by Beta({config.mixup:g})")
    if config.cutmix:
        parts.append(f"CutMix by Beta({config.cutmix:g})")
    if config.random_erasing:
        parts.append(f"a rectangle erased in {config.random_erasing:.3g} of the images")
    return ", ".join(parts)


def _describe_update(plan: Plan) -> str:
    config, parts = plan.config, [f"weight decay {plan.settings.weight_decay:g}"]
    if config.clip_norm:
        parts.append(f"gradient clipped to norm {config.clip_norm:g}")
    if config.body_lr_factor != 1:
        parts.append(f"first layers at {config.body_lr_factor:g} of the learning rate")
    if config.label_smoothing:
        parts.append(f"label smoothing {config.label_smoothing:g}")
    return ", ".join(parts)


def _small_batch_advice(plan: Plan) -> str:
    """Advice for batches so small that a GPU waits for the host; empty if they are large enough."""
    settings, size = plan.settings, plan.config.batch_size
    per_gpu = size // settings.devices.replicas
    if not settings.num_gpus or per_gpu >= _BUSY_BATCH:
        return ""
    advised_size = _BUSY_BATCH * settings.devices.replicas
    return (
        f"{per_gpu} images for each GPU keep it waiting for the host; "
        f"try --batch_size={advised_size} or more, with a higher --lr"
    )


def _describe_averages(config: TrainConfig) -> str:
    parts = []
    if config.ema_horizon:
        span = f"{config.ema_horizon:.3g} of all steps"
        parts.append(f"moving average of the weights over {span}, validated and saved")
    if config.snapshots:
        parts.append("a snapshot at the end of every cycle")
    return "; ".join(parts)


def _describe_sizes(plan: Plan) -> str:
    stages = plan.settings.stages
    parts = [f"{stage.size}² pixels in epochs {stage.first + 1} to {stage.end}" for stage in stages]
    return f"{', '.join(parts)}; validation always at {stages[-1].size}²"


def _describe_class_weights(dataset: Dataset, weights: np.ndarray) -> str:
    pairs = zip(dataset.store.catalog.class_names, weights, strict=True)
    weighted = ", ".join(f"{name} {weight:.3g}" for name, weight in pairs)
    return f"loss weight of an image by class: {weighted}"


def _describe_training(plan: Plan) -> str:
    config, settings = plan.config, plan.settings
    counts = ("epoch", config.epochs), ("step", plan.steps_per_epoch), ("image", config.batch_size)
    text = " of ".join(format_count(count, unit) for unit, count in counts)
    optimizer = describe_optimizer(config.optimizer, config.epochs, settings.keras_2)
    rate = f"{config.schedule} schedule with a highest learning rate of {settings.lr:g}, "
    rate += "set at every step" if settings.lr_per_step else "set once per epoch"
    frozen = ""
    if config.freeze_epochs:
        first = "epoch" if config.freeze_epochs == 1 else f"{config.freeze_epochs} epochs"
        frozen = f"; only the head in the first {first}"
    return f"{text}, {optimizer}, {rate}{frozen}"


def data_warnings(dataset: Dataset) -> list[str]:
    """Returns a warning for each property of the data that makes the validation accuracy unreliable.

    These properties are classes without validation images, identical or similar images on two sides of
    the split, and identical images with different labels.
    """
    warnings = []
    catalog = dataset.store.catalog
    if missing := classes_without_validation(catalog, dataset.split):
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        warnings.append(
            f"no validation image of {len(missing)} of {len(catalog.class_names)} classes: {shown}; "
            "their accuracy is not measured"
        )
    if dataset.duplicates_across_split:
        warnings.append(
            "validation and test images that are identical to an image of another side of the split: "
            f"{dataset.duplicates_across_split}; the accuracy will be too optimistic"
        )
    elif dataset.near_duplicates_across_split:
        warnings.append(
            "validation and test images that look like an image of another side of the split: "
            f"{dataset.near_duplicates_across_split}; the accuracy may be too optimistic"
        )
    if dataset.conflicting_labels:
        later, first = dataset.conflicting_labels[0]
        warnings.append(
            "images that are identical to an image of another class: "
            f"{len(dataset.conflicting_labels)}, first {later} and {first}; seedtf check lists them"
        )
    return warnings


def _report_faults(dataset: Dataset) -> None:
    catalog = dataset.store.catalog
    faults = catalog.faults
    if faults:
        report("left out", describe_faults(faults))
    if catalog.others:
        report("ignored", f"{describe_others(catalog.others)} that are not images")
    for fault in faults[:_MAX_SHOWN_FAULTS]:
        report("left out", f"{fault.path}: {fault.fault} ({fault.detail})")
    if len(faults) > _MAX_SHOWN_FAULTS:
        report("left out", f"… and {len(faults) - _MAX_SHOWN_FAULTS} more, see data_report.csv")
