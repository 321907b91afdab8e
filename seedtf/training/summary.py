"""The first lines of a run: what was found and what was chosen, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from seedtf.config.recipes import RECIPES, recipe_changes
from seedtf.config.train_config import BALANCED, TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.runs.records import describe_devices
from seedtf.training.distributed.devices import Devices
from seedtf.training.optim.optimizers import describe_optimizer
from seedtf.training.plan import Plan

__all__ = ["announce", "announce_worker", "data_warnings"]

_SHOWN_FAULTS = 5
_DETERMINISTIC = (
    "operations that repeat to the bit; cost: none seen on 2 CPU cores (171 and 174 images/s without "
    "and with, ResNet-50), unmeasured on a GPU; waiting for data is not measured"
)
_STORES = {"ram": "memory", "disk": "memory-mapped cache file", "off": "none, files read again"}


def announce(
    config: TrainConfig,
    dataset: Dataset,
    plan: Plan,
    model: keras.Model,
    run_dir: Path,
    *,
    devices: Devices,
) -> None:
    """Prints a line each on images, split, store, model, precision, XLA, device and schedule."""
    lines = {
        "run": "none, nothing is trained" if config.dry_run else str(run_dir),
        "images": _images(dataset),
        "split": _split(config, dataset),
        "store": _store(dataset),
        "model": _model(config, model, plan),
        "precision": plan.precision.reason,
        "XLA": plan.compilation.reason,
        "augment": f"{_augmentation(config)}; {plan.placement.reason}",
        "device": f"{describe_devices()}, {config.threads} compute threads",
        "strategy": _strategy(config, devices),
        "recipe": _recipe(config),
        "training": _training(config, plan),
        "update": _update(config, plan),
    }
    if config.sampler == BALANCED:
        lines["sampler"] = "balanced: an epoch takes as many images of every class"
    if averages := _averages(config):
        lines["averages"] = averages
    if len(plan.stages) > 1:
        lines["sizes"] = _sizes(plan)
    if plan.class_weights is not None:
        lines["weights"] = _class_weights(dataset, plan)
    if config.deterministic:
        lines["determinism"] = _DETERMINISTIC
    if config.data_service:
        lines["service"] = _service(config)
    for name, text in lines.items():
        print(f"{name:10}{text}", flush=True)
    for line in (*data_warnings(dataset), *_faults(dataset)):
        print(line, flush=True)


def announce_worker(devices: Devices) -> None:
    """Among several workers, a line that says which one this is; before it waits for the others."""
    if devices.cluster is not None:
        cluster = devices.cluster
        part = "the chief, which writes the run" if devices.chief else "quiet from here on"
        print(
            f"worker    {cluster.name(cluster.index)}, number {cluster.index + 1} of {cluster.size}, "
            f"{part}; waiting for the others",
            flush=True,
        )


def _strategy(config: TrainConfig, devices: Devices) -> str:
    text = f"{devices.kind}, because {devices.reason}"
    if devices.replicas == 1:
        return text
    each = config.batch_size // devices.replicas
    statistics = "over the whole batch" if config.sync_bn else "of its own part"
    return (
        f"{text}; {devices.replicas} replicas take {each} images of a batch each, batch-norm "
        f"statistics {statistics}; waiting for data is not measured"
    )


def _images(dataset: Dataset) -> str:
    catalog = dataset.store.catalog
    counts = catalog.class_counts().values()
    bad = f"{len(catalog.faults)} left out" if catalog.faults else "none left out"
    text = f"{len(catalog):,} in {len(counts)} classes ({min(counts):,} to {max(counts):,} each)"
    if not dataset.unopened:
        return f"{text}, {bad}"
    return (
        f"{text}; {dataset.store.opened:,} opened, {bad}, the others are judged as they are read and "
        "identical ones are not looked for (--check=all)"
    )


def _split(config: TrainConfig, dataset: Dataset) -> str:
    split = dataset.split
    source = f"stratified {config.val_fraction:.0%}, seed {config.seed}"
    if config.val_dir or config.split_csv:
        source = f"from {config.val_dir or config.split_csv}"
    text = f"{len(split.train):,} train, {len(split.val):,} validation ({source})"
    if dataset.duplicates and not dataset.duplicates_across_split:
        text += f"; {dataset.duplicates} duplicates, each on the same side as its original"
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


def _model(config: TrainConfig, model: keras.Model, plan: Plan) -> str:
    weights = {"none": "random"}.get(config.weights, config.weights)
    text = f"{config.model}, {model.count_params():,} parameters, first weights: {weights}"
    return f"{text}; batch-norm momentum {plan.bn_momentum:.3g}"


def _recipe(config: TrainConfig) -> str:
    values = ", ".join(f"{k}={_value(v)}" for k, v in RECIPES[config.recipe].items())
    changed = recipe_changes(config.recipe, config.as_dict())
    others = ", ".join(f"{k}={_value(v)}" for k, v in changed.items())
    return f"{config.recipe} ({values})" + (f"; changed by flags: {others}" if others else "")


def _value(value: Any) -> str:
    return str(value).lower()


def _augmentation(config: TrainConfig) -> str:
    strength = f"strength {_value(config.augment_strength).removesuffix('.0')}"
    parts = {
        f"MixUp by Beta({config.mixup:g})": config.mixup,
        f"CutMix by Beta({config.cutmix:g})": config.cutmix,
        f"a rectangle erased in {config.random_erasing:.3g} of the images": config.random_erasing,
    }
    return ", ".join([strength, *(text for text, on in parts.items() if on)])


def _update(config: TrainConfig, plan: Plan) -> str:
    parts = {
        f"weight decay {plan.weight_decay:g}": True,
        f"gradient cut to norm {config.clip_norm:g}": config.clip_norm > 0,
        f"first layers at {config.body_lr_factor:g} of the rate": config.body_lr_factor != 1,
        f"labels smoothed by {config.label_smoothing:g}": config.label_smoothing > 0,
    }
    return ", ".join(text for text, on in parts.items() if on)


def _averages(config: TrainConfig) -> str:
    parts = {
        f"weights over {config.ema_horizon:.3g} of all steps, validated and kept": (
            config.ema_horizon > 0
        ),
        "a snapshot at the bottom of every cycle": config.snapshots,
    }
    return "; ".join(text for text, on in parts.items() if on)


def _sizes(plan: Plan) -> str:
    parts = [f"{s.size}² pixels in epochs {s.first + 1} to {s.last}" for s in plan.stages]
    return f"{', '.join(parts)}; validation always at {plan.stages[-1].size}²"


def _class_weights(dataset: Dataset, plan: Plan) -> str:
    names = dataset.store.catalog.class_names
    assert plan.class_weights is not None
    pairs = zip(names, plan.class_weights, strict=True)
    return "an image counts " + ", ".join(f"{weight:.3g} in {name}" for name, weight in pairs)


def _training(config: TrainConfig, plan: Plan) -> str:
    text = f"{config.epochs} epochs of {plan.steps_per_epoch} steps of {config.batch_size} images"
    rule = describe_optimizer(config.optimizer, config.epochs)
    rate = f"{rule}, {config.schedule} learning rate from {plan.lr:g}, "
    rate += "set at every step" if plan.per_step else "set once an epoch"
    frozen = f"; head alone for {config.freeze_epochs}" if config.freeze_epochs else ""
    return f"{text}, {rate}{frozen}"


def data_warnings(dataset: Dataset) -> list[str]:
    """A line on identical images on both sides of the split, and one on those in two classes."""
    lines = []
    if dataset.duplicates_across_split:
        lines.append(
            "warning   validation images with an identical training image: "
            f"{dataset.duplicates_across_split}; the accuracy will flatter"
        )
    if dataset.conflicting_labels:
        later, first = dataset.conflicting_labels[0]
        lines.append(
            "warning   images with an identical one in another class: "
            f"{len(dataset.conflicting_labels)}, first {later} and {first}; seedtf check names them"
        )
    return lines


def _faults(dataset: Dataset) -> list[str]:
    faults = dataset.store.catalog.faults
    lines = [f"left out  {f.path}: {f.fault} ({f.detail})" for f in faults[:_SHOWN_FAULTS]]
    if len(faults) > _SHOWN_FAULTS:
        lines.append(f"left out  … and {len(faults) - _SHOWN_FAULTS} more, see data_report.csv")
    return lines
