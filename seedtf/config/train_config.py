"""``TrainConfig``: every choice of a training run, its range and its help, in one place.

Nothing here imports TensorFlow, so ``seedtf train --help`` answers at once. The command line is made
from these fields: a flag's name is the field's name.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from seedtf.config.flags import check_ranges, option
from seedtf.config.recipes import (
    AUTO,
    FAST,
    RECIPES,
    by_recipe,
    default_decay,
    default_rate,
)
from seedtf.data.paths import is_url
from seedtf.errors import UserError
from seedtf.images.header import MAX_PIXELS

__all__ = ["AUTO", "BALANCED", "NEWEST", "PATHS", "SAMPLE", "TrainConfig", "number_or_auto"]

SAMPLE = "sample"
"""The value of ``data_dir`` that means the embedded sample data."""

NEWEST = "newest"
"""The value of ``resume`` that means the newest run below ``runs/``; also a bare ``--resume``."""


BALANCED = "balanced"
"""The value of ``sampler`` that takes as many images of every class."""

PATHS = ("data_dir", "val_dir", "labels_csv", "split_csv", "cache_dir")
"""Fields that name where the data is; what it is decides whether a run may go on."""


@dataclass(frozen=True)
class TrainConfig:
    """What ``train_and_evaluate`` needs; also the flags of ``seedtf train``.

    Each field's metadata holds its help, its inclusive range (``low``, ``high``) or its ``choices``.
    Creating one checks every range and raises ``UserError`` naming the flag.
    """

    recipe: str = option(
        FAST,
        "Named set of defaults for the flags whose help says so; a flag that is given overrides it.",
        choices=tuple(RECIPES),
    )
    # data
    data_dir: str = option(
        "", "Folder with one sub-folder of images per class, or 'sample' for the embedded data."
    )
    val_dir: str = option("", "Folder of validation images in the same classes; else a split.")
    val_fraction: float = option(
        0.15, "Share of each class held out for validation, 0.01 to 0.9.", low=0.01, high=0.9
    )
    labels_csv: str = option("", "Table with the columns file (below --data_dir) and label.")
    split_csv: str = option("", "A run's split.csv, to train on exactly its split.")
    run_dir: str = option("", "New folder for the results; default runs/<date>-<time>-<model>.")
    image_size: int = option(
        224, "Side in pixels that images are resized to, 8 to 2048.", low=8, high=2048
    )
    cache: str = option(
        "auto",
        "Where decoded images stay: memory, a memory-mapped file, or nowhere (read again).",
        choices=("auto", "ram", "disk", "off"),
    )
    check: str = option(
        "auto",
        "With --cache=off, open every image before training, or 1,000 of them and the others as "
        "they are read; auto opens all of up to 20,000.",
        choices=("auto", "all", "sample"),
    )
    data_service: str = option(
        "", "Address host:port of a tf.data service (seedtf data_service) that makes the batches."
    )
    cache_dir: str = option(
        "", "Folder for cache files and the sample data; default $XDG_CACHE_HOME/seedtf."
    )
    max_pixels: int = option(
        MAX_PIXELS, "Largest width × height of an image that is decoded, 1024 or more.", low=1024
    )
    # network
    model: str = option("ResNet50", "A keras.applications network, in any case, or 'tiny'.")
    weights: str = option(
        "imagenet", "First weights: imagenet (downloaded), none (random), or a .keras/.h5 file."
    )
    zero_init_residual: bool = by_recipe(
        "zero_init_residual", "Begin random weights with residual branches that add nothing."
    )
    freeze_epochs: int = option(
        0, "Epochs at the start that train the head alone, 0 or more.", low=0
    )
    precision: str = option(
        "auto",
        "Number format of the network; auto takes 16 bits where the GPU is fast at it.",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: str = option(
        "auto",
        "Compile the train step with XLA; auto does on a GPU.",
        choices=("auto", "on", "off"),
    )
    bn_momentum: float | str = by_recipe(
        "bn_momentum",
        "Momentum of batch normalisation's averages, 0 to 0.9999; auto: from the steps of an epoch.",
        low=0.0,
        high=0.9999,
    )
    # training
    epochs: int = by_recipe("epochs", "Passes over the training images, 1 or more.", low=1)
    batch_size: int = option(32, "Images in a step, over all devices together, 1 or more.", low=1)
    optimizer: str = by_recipe(
        "optimizer",
        "Update rule; sgd has Nesterov momentum 0.9; ranger is lookahead around radam, swa averages "
        "the weights of the last quarter; radam and those after it need seedtf[addons].",
        choices=(
            "adam",
            "adamw",
            "sgd",
            "rmsprop",
            "lamb",
            "radam",
            "lookahead",
            "ranger",
            "swa",
        ),
    )
    lr: float | None = option(
        None,
        "Highest learning rate, above 0; default by optimizer (sgd 5e-2, lamb 5e-3, others "
        "1e-3) from random weights, a tenth of it from trained ones.",
        low=1e-12,
        high=100.0,
    )
    min_lr: float = option(
        1e-6, "Lowest learning rate of a schedule, 0 to --lr.", low=0.0, high=100.0
    )
    schedule: str = by_recipe(
        "schedule",
        "Course of the rate: cycles with decaying peaks, one exponential decay, one rise and fall.",
        choices=("cyclic", "smooth", "one_cycle", "cosine", "constant"),
    )
    cycle_epochs: float = option(
        10.0, "Length of a cycle of --schedule=cyclic in epochs, 0.1 or more.", low=0.1
    )
    cycle_decay: float = option(
        0.8, "Peak of a cycle relative to the one before, 0.01 to 1.", low=0.01, high=1.0
    )
    warmup_epochs: float = option(
        0.0, "Epochs over which the rate rises from near 0, 0 or more.", low=0.0
    )
    schedule_per_step: bool = by_recipe(
        "schedule_per_step",
        "Set the learning rate at every step, not every epoch; a warm-up implies it.",
    )
    weight_decay: float | str = by_recipe(
        "weight_decay",
        "Decoupled weight decay, 0 to 1: a step takes rate × this off each weight, but off no bias and "
        "no scale of a normalisation; auto: 0.05 for adamw and lamb, 5e-4 for sgd, else 0.",
        low=0.0,
        high=1.0,
    )
    clip_norm: float = option(
        0.0, "Shorten the gradient to this norm, over all weights; 0 never.", low=0.0
    )
    body_lr_factor: float = option(
        1.0,
        "Learning rate of the body's first layers relative to the head's, 0.0001 to 1; layers between "
        "get rates between.",
        low=1e-4,
        high=1.0,
    )
    label_smoothing: float = by_recipe(
        "label_smoothing",
        "Share of each training label that is spread over all classes, 0 to 0.5.",
        low=0.0,
        high=0.5,
    )
    class_weights: str = option(
        "",
        "Weight of each class in the training loss: auto (inverse to its number of images), or "
        "name:weight,… with 1 for the others.",
    )
    sampler: str = option(
        "shuffle",
        "Which images an epoch takes: each once, or as many of every class.",
        choices=("shuffle", BALANCED),
    )
    ema_horizon: float = option(
        0.0,
        "Validate and keep a moving average of the weights and batch statistics over this share of all "
        "steps, 0 to 0.5; 0 is off.",
        low=0.0,
        high=0.5,
    )
    snapshots: bool = option(
        False, "Keep the network at the bottom of every cycle of --schedule=cyclic as well."
    )
    progressive_sizes: str = option(
        "off",
        "Smaller image sizes to begin with, such as 32,40, each for an equal share of the epochs, "
        "before --image_size; auto: two thirds of it for the first half; or off.",
    )
    patience: int = option(
        0, "Stop after so many epochs without a new lowest validation loss; 0 never.", low=0
    )
    time_limit: float = option(0.0, "Stop after so many minutes of training; 0 never.", low=0.0)
    seed: int = option(0, "Root of all randomness, 0 to 2147483647.", low=0, high=2**31 - 1)
    # augmentation
    crop: float = option(0.2, "Largest share of each side cut away, 0 to 0.9.", low=0.0, high=0.9)
    stretch: float = option(0.1, "Largest relative change of aspect, 0 to 1.", low=0.0, high=1.0)
    rotate: float = option(
        0.0, "Largest rotation either way in degrees, 0 to 180.", low=0.0, high=180.0
    )
    shear: float = option(0.0, "Largest shear either way in degrees, 0 to 45.", low=0.0, high=45.0)
    flip: str = option(
        "both",
        "Mirror half of the images; both suits images without an up, such as from above.",
        choices=("none", "horizontal", "vertical", "both"),
    )
    brightness: float = option(
        0.1, "Largest darkening or brightening, share of the full range, 0 to 1.", low=0.0, high=1.0
    )
    contrast: float = option(0.1, "Largest relative change of contrast, 0 to 1.", low=0.0, high=1.0)
    saturation: float = option(
        0.1, "Largest relative change of saturation, 0 to 1.", low=0.0, high=1.0
    )
    hue: float = option(
        5.0, "Largest turn of the colour circle either way in degrees, 0 to 180.", low=0, high=180.0
    )
    augment_strength: float | str = option(
        1.0,
        "Factor on every augmentation range at once, 0 to 10; 0 is off; auto raises it while training "
        "runs ahead of validation and lowers it where it falls behind.",
        low=0.0,
        high=10.0,
    )
    mixup: float = option(
        0.0,
        "Blend images and labels in pairs, the share from Beta(a, a) for this a, 0 to 10; 0 is off.",
        low=0.0,
        high=10.0,
    )
    cutmix: float = option(
        0.0,
        "Paste a rectangle of another image, its area from Beta(a, a) for this a, 0 to 10; 0 is off; "
        "with --mixup one of both by chance.",
        low=0.0,
        high=10.0,
    )
    random_erasing: float = option(
        0.0, "Share of the images that lose a rectangle to noise, 0 to 1.", low=0.0, high=1.0
    )
    augment_impl: str = option(
        "fused",
        "One compiled resample and colour matrix, or a chain of plain TensorFlow ops, or of "
        "TensorFlow Addons' (seedtf[addons]).",
        choices=("fused", "tf_image", "addons"),
    )
    placement: str = option(
        "auto",
        "Augment in the data pipeline on the host, or inside the train step on the device; auto "
        "takes the device where there is a GPU.",
        choices=("auto", "host", "device"),
    )
    # going on, and trust
    resume: str = option(
        "", "Go on with an interrupted run: its folder, or bare for the newest.", bare=NEWEST
    )
    save_minutes: float = option(
        0.0, "Also save the state so often within an epoch, in minutes; 0 at its end only.", low=0.0
    )
    threads: int = option(
        0,
        "Compute threads, 1 to 1024; the same number gives the same result; 0 for all cores.",
        low=0,
        high=1024,
    )
    deterministic: bool = option(
        False, "Only operations that repeat to the bit, on a GPU too; slower there."
    )
    strict: bool = option(False, "Stop when a file cannot be used, rather than leave it out.")
    # devices
    strategy: str = option(
        "auto",
        "Devices that share each batch: one, all of this machine, or those of all machines in "
        "TF_CONFIG; auto takes all there are.",
        choices=("auto", "none", "mirrored", "multi_worker"),
    )
    sync_bn: bool = option(
        False,
        "Take the statistics of batch normalisation over the whole batch, not a device's part.",
    )
    worker_timeout: int = option(
        30,
        "Seconds of silence after which another worker counts as gone and this one stops, 5 to 3600.",
        low=5,
        high=3600,
    )
    dry_run: bool = option(
        False,
        "Time at most 20 steps, say how long the training would take and what room it needs, and stop.",
    )
    # output
    tensorboard: bool = option(False, "Also write TensorBoard events to <run_dir>/tensorboard.")
    show: bool = option(False, "Open a window with the live curves where there is a display.")

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        for name in (*PATHS, "run_dir", "weights", "resume"):
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        for name, value in RECIPES.get(self.recipe, {}).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in NUMBER_OR_AUTO:
            object.__setattr__(self, name, number_or_auto(name, getattr(self, name)))
        check_ranges(self)
        for name in ("run_dir", "cache_dir"):
            if is_url(getattr(self, name)):
                raise UserError(
                    f"--{name}={getattr(self, name)}: must be on a disk of this machine; pass a local "
                    "folder"
                )
        for message, holds in self._contradictions().items():
            if holds:
                raise UserError(message)

    def _contradictions(self) -> dict[str, bool]:
        """What flags may say together that cannot be done, and whether these do."""
        return {
            "--data_dir is missing; pass a folder of images, or 'sample'": (
                not self.data_dir and not self.resume
            ),
            "--cache=ram: the workers of --data_service cannot read this machine's memory; pass "
            "--cache=disk or off": bool(self.data_service) and self.cache == "ram",
            "--augment_strength=auto: the workers of --data_service cannot follow it; pass a "
            "number": bool(self.data_service) and self.augment_strength == AUTO,
            "--ema_horizon and --optimizer=swa both average the weights; leave one of them out": (
                self.ema_horizon > 0 and self.optimizer == "swa"
            ),
            f"--snapshots: --schedule={self.schedule} has no cycles; pass --schedule=cyclic": (
                self.snapshots and self.schedule != "cyclic"
            ),
            f"--snapshots: no cycle of --cycle_epochs={self.cycle_epochs:g} ends within "
            f"--epochs={self.epochs}; pass shorter cycles": (
                self.snapshots and self.cycle_epochs > self.epochs
            ),
            f"--dry_run: times a new training, not --resume={self.resume}; leave one of them "
            "out": self.dry_run and bool(self.resume),
            "--val_dir and --split_csv exclude each other; pass one": bool(
                self.val_dir and self.split_csv
            ),
            f"--min_lr={self.min_lr:g} exceeds --lr={self.lr or 0:g}; lower it": (
                self.lr is not None and self.min_lr > self.lr
            ),
            f"--freeze_epochs={self.freeze_epochs} leaves no epoch for the whole network; pass less "
            f"than --epochs={self.epochs}": self.freeze_epochs >= self.epochs,
        }

    @property
    def highest_rate(self) -> float:
        """``lr``, or what fits the optimizer and the first weights."""
        return self.lr or default_rate(self.optimizer, self.weights)

    @property
    def decay(self) -> float:
        """``weight_decay``, or what fits the optimizer, if that is Keras's own."""
        given = self.weight_decay
        return default_decay(self.optimizer) if isinstance(given, str) else given

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    def with_absolute_paths(self) -> TrainConfig:
        """The same with every path of data and weights absolute, so that it holds in any folder."""
        given = {name: getattr(self, name) for name in PATHS}
        if self.weights not in ("none", "imagenet"):
            given["weights"] = self.weights
        local = {k: v for k, v in given.items() if v and v != SAMPLE and not is_url(v)}
        absolute = {name: os.path.abspath(path) for name, path in local.items()}
        return dataclasses.replace(self, **absolute)

    def flagfile(self) -> str:
        """The run as an absl flagfile: ``seedtf train --flagfile=…`` repeats it in a new run folder.

        Paths are absolute, so that it works from any folder; ``run_dir`` is left out, because that
        folder is taken.
        """
        lines = []
        for name, value in self.with_absolute_paths().as_dict().items():
            if name in ("run_dir", "resume") or value is None or value == "":
                continue
            if isinstance(value, bool):
                lines.append(f"--{'' if value else 'no'}{name}")
                continue
            lines.append(f"--{name}={value}")
        return "\n".join(lines) + "\n"


def number_or_auto(name: str, value: Any) -> Any:
    """``value`` as a field of ``TrainConfig`` has it, also where a command line gave it as text.

    Raises:
        UserError: the field takes a number or ``auto``, and this is neither.
    """
    if name not in NUMBER_OR_AUTO or value == AUTO:
        return value
    try:
        return float(value)
    except ValueError:
        limits = {each.name: each.metadata for each in dataclasses.fields(TrainConfig)}[name]
        raise UserError(
            f"--{name}={value}: pass a number from {limits['low']:g} to {limits['high']:g}, or auto"
        ) from None


NUMBER_OR_AUTO = tuple(
    each.name for each in dataclasses.fields(TrainConfig) if each.type == "float | str"
)
"""Fields that hold a float, or ``auto``."""
