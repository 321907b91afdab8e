"""Prints the first lines of a run: the data that was found, the settings chosen, and the reasons."""

from __future__ import annotations

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
from seedtf.report import report, warn
from seedtf.runs.presets import initial_weights_licence
from seedtf.runs.records import describe_devices
from seedtf.training.distributed.choice import DeviceChoice
from seedtf.training.optim.choice import describe_optimizer
from seedtf.training.plan import Plan

__all__ = ["data_warnings", "report_plan", "report_worker"]

_SHOWN_FAULTS = 5
_BUSY_BATCH = (
    128  # images that keep a large GPU busy for longer than the host needs to start a step
)
_DETERMINISTIC = (
    "only bit-reproducible operations; no slowdown on 2 CPU cores (ResNet-50: 171 images/s without, "
    "174 with), not tested on a GPU; the time spent waiting for data is not measured"
)
_STORES = {
    "ram": "memory",
    "disk": "memory-mapped cache file",
    "off": "none, files are decoded in every epoch",
}


def report_plan(plan: Plan, dataset: Dataset, network: keras.Model, run_dir: Path) -> None:
    """Reports the data and the settings of a run, one line each, from images to learning rate.

    Args:
        plan: what the run will do.
        dataset: its images.
        network: the built network.
        run_dir: the run folder.
    """
    config, settings = plan.config, plan.settings
    lines = {
        "run": "none, because a dry run trains nothing" if config.dry_run else str(run_dir),
        "images": _images(dataset),
        "split": _split(config, dataset),
        "store": _store(dataset),
        "model": _model(plan, network),
        "precision": settings.precision.reason,
        "XLA": settings.compilation.reason,
        "augment": f"{_augmentation(config)}; {plan.placement.reason}",
        "device": f"{describe_devices()}, {config.threads} compute threads",
        "strategy": _strategy(config, settings.devices),
        "recipe": _recipe(config),
        "training": _training(plan),
        "update": _update(plan),
    }
    if config.sampler == BALANCED:
        lines["sampler"] = "balanced: an epoch draws the same number of images from every class"
    if batch := plan.batch_size_note or _small_batch(plan):
        lines["batch"] = batch
    if averages := _averages(config):
        lines["averages"] = averages
    if len(settings.stages) > 1:
        lines["sizes"] = _sizes(plan)
    if plan.class_weights is not None:
        lines["weights"] = _class_weights(dataset, plan.class_weights)
    if config.deterministic:
        lines["determinism"] = _DETERMINISTIC
    if config.data_service:
        lines["service"] = _service(config)
    for label, text in lines.items():
        report(label, text)
    for text in data_warnings(dataset):
        warn(text)
    _report_faults(dataset)


def report_worker(devices: DeviceChoice) -> None:
    """Reports which of several workers this process is, before it waits for the others."""
    cluster = devices.cluster
    if cluster is not None:
        part = "the chief, which writes the run" if devices.chief else "which prints nothing more"
        report(
            "worker",
            f"{cluster.name(cluster.index)}, number {cluster.index + 1} of {cluster.size}, {part}; "
            "waiting for the others",
        )


def _strategy(config: TrainConfig, devices: DeviceChoice) -> str:
    text = f"{devices.kind}, because {devices.reason}"
    if devices.replicas == 1:
        return text
    per_replica = config.batch_size // devices.replicas
    statistics = "over the whole batch" if config.sync_bn else "per replica"
    return (
        f"{text}; each of {devices.replicas} replicas gets {per_replica} images of a batch, batch-norm "
        f"statistics {statistics}; the time spent waiting for data is not measured"
    )


def _images(dataset: Dataset) -> str:
    catalog = dataset.store.catalog
    counts = catalog.class_counts().values()
    bad = f"{len(catalog.faults)} left out" if catalog.faults else "none left out"
    text = f"{len(catalog):,} in {len(counts)} classes ({min(counts):,} to {max(counts):,} each)"
    if not dataset.unopened:
        return f"{text}, {bad}"
    return (
        f"{text}; {dataset.store.opened:,} opened, {bad}; the others are checked when they are read, "
        "and there is no search for duplicates (--check=all does both first)"
    )


def _split(config: TrainConfig, dataset: Dataset) -> str:
    split = dataset.split
    source = f"stratified {config.val_fraction:.0%}, seed {config.seed}"
    if given := config.val_dir or config.split_csv or dataset.split_source:
        source = f"from {given}"
    test = f", {len(split.test):,} test" if len(split.test) else ""
    text = f"{len(split.train):,} train, {len(split.val):,} validation{test} ({source})"
    same_side = {"duplicates": dataset.duplicates, "near duplicates": dataset.near_duplicates}
    if dataset.near_duplicates_across_split:
        same_side = {}
    kept = " and ".join(f"{count} {name}" for name, count in same_side.items() if count)
    if kept:
        text += f"; {kept}, each on the same side as its original"
    if dataset.grouping:
        text += f"; {dataset.grouping.describe()}"
    return text


def _store(dataset: Dataset) -> str:
    store = dataset.store
    reused = ", reused from an earlier run" if store.from_cache else ""
    return f"{_STORES[store.mode]}{reused}; {store.size}² pixels, {dataset.cache_plan.reason}"


def _service(config: TrainConfig) -> str:
    return (
        f"training batches made by the tf.data service at {config.data_service}, put in order here; "
        "validation batches made here"
    )


def _model(plan: Plan, network: keras.Model) -> str:
    config = plan.config
    weights = {"none": "random"}.get(config.weights, config.weights)
    if plan.settings.preset and config.weights == "imagenet":
        weights = "those of the preset"
    if licence := initial_weights_licence(config, plan.settings.preset):
        weights += f" (licence: {licence})"
    text = f"{short_name(config.model)}, {network.count_params():,} parameters"
    return f"{text}, initial weights: {weights}; batch-norm momentum {plan.bn_momentum:.3g}"


def _recipe(config: TrainConfig) -> str:
    recipe = config.recipe_in_use
    values = ", ".join(f"{k}={_value(v)}" for k, v in RECIPES[recipe].items())
    changed = recipe_changes(recipe, config.as_dict())
    others = ", ".join(f"{k}={_value(v)}" for k, v in changed.items())
    return f"{recipe}, {_why(config)} ({values})" + (
        f"; changed by flags: {others}" if others else ""
    )


def _why(config: TrainConfig) -> str:
    """Why a run has its recipe, as a phrase."""
    if config.recipe != AUTO:
        return "as requested"
    state = "random" if config.weights == RANDOM_WEIGHTS else "trained"
    return f"because the initial weights are {state}"


def _value(value: Any) -> str:
    return str(value).lower()


def _augmentation(config: TrainConfig) -> str:
    parts = [f"strength {_value(config.augment_strength).removesuffix('.0')}"]
    if config.mixup:
        parts.append(f"MixUp by Beta({config.mixup:g})")
    if config.cutmix:
        parts.append(f"CutMix by Beta({config.cutmix:g})")
    if config.random_erasing:
        parts.append(f"a rectangle erased in {config.random_erasing:.3g} of the images")
    return ", ".join(parts)


def _update(plan: Plan) -> str:
    config, parts = plan.config, [f"weight decay {plan.settings.weight_decay:g}"]
    if config.clip_norm:
        parts.append(f"gradient clipped to norm {config.clip_norm:g}")
    if config.body_lr_factor != 1:
        parts.append(f"first layers at {config.body_lr_factor:g} of the learning rate")
    if config.label_smoothing:
        parts.append(f"label smoothing {config.label_smoothing:g}")
    return ", ".join(parts)


def _small_batch(plan: Plan) -> str:
    """Advice where the host, not the GPU, would limit the speed; empty elsewhere."""
    settings, size = plan.settings, plan.config.batch_size
    per_gpu = size // settings.devices.replicas
    if not settings.gpus or per_gpu >= _BUSY_BATCH:
        return ""
    whole = _BUSY_BATCH * settings.devices.replicas
    return (
        f"{per_gpu} images for each GPU keep it waiting for the host; try --batch_size={whole} or "
        "more, with a higher --lr"
    )


def _averages(config: TrainConfig) -> str:
    parts = []
    if config.ema_horizon:
        parts.append(f"weights over {config.ema_horizon:.3g} of all steps, validated and saved")
    if config.snapshots:
        parts.append("a snapshot at the end of every cycle")
    return "; ".join(parts)


def _sizes(plan: Plan) -> str:
    stages = plan.settings.stages
    parts = [f"{s.size}² pixels in epochs {s.first + 1} to {s.end}" for s in stages]
    return f"{', '.join(parts)}; validation always at {stages[-1].size}²"


def _class_weights(dataset: Dataset, weights: np.ndarray) -> str:
    pairs = zip(dataset.store.catalog.class_names, weights, strict=True)
    weighted = ", ".join(f"{name} {weight:.3g}" for name, weight in pairs)
    return f"loss weight of an image by class: {weighted}"


def _training(plan: Plan) -> str:
    config, settings = plan.config, plan.settings
    text = f"{config.epochs} epochs of {plan.steps_per_epoch} steps of {config.batch_size} images"
    rule = describe_optimizer(config.optimizer, config.epochs, settings.keras_2)
    rate = f"{rule}, {config.schedule} learning rate from {settings.lr:g}, "
    rate += "set at every step" if settings.lr_per_step else "set once per epoch"
    frozen = f"; only the head in the first {config.freeze_epochs}" if config.freeze_epochs else ""
    return f"{text}, {rate}{frozen}"


def data_warnings(dataset: Dataset) -> list[str]:
    """Returns warnings about data with which the accuracy would be misleading or unknown.

    They are about classes without validation images, identical or similar images on two sides of the
    split, and identical images with different labels.
    """
    sentences = []
    catalog = dataset.store.catalog
    if missing := classes_without_validation(catalog, dataset.split):
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        sentences.append(
            f"no validation image of {len(missing)} of {len(catalog.class_names)} classes: {shown}; "
            "their accuracy is not measured"
        )
    if dataset.duplicates_across_split:
        sentences.append(
            "validation images that are identical to a training image: "
            f"{dataset.duplicates_across_split}; the accuracy will be too optimistic"
        )
    elif dataset.near_duplicates_across_split:
        sentences.append(
            "validation and test images that look like an image of another side of the split: "
            f"{dataset.near_duplicates_across_split}; the accuracy may be too optimistic"
        )
    if dataset.conflicting_labels:
        later, first = dataset.conflicting_labels[0]
        sentences.append(
            "images that are identical to an image of another class: "
            f"{len(dataset.conflicting_labels)}, first {later} and {first}; seedtf check lists them"
        )
    return sentences


def _report_faults(dataset: Dataset) -> None:
    catalog = dataset.store.catalog
    faults = catalog.faults
    if faults:
        report("left out", describe_faults(faults))
    if catalog.others:
        report("ignored", f"{describe_others(catalog.others)} that are not images")
    for fault in faults[:_SHOWN_FAULTS]:
        report("left out", f"{fault.path}: {fault.fault} ({fault.detail})")
    if len(faults) > _SHOWN_FAULTS:
        report("left out", f"… and {len(faults) - _SHOWN_FAULTS} more, see data_report.csv")
