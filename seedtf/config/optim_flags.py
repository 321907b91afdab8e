"""``OptimFlags``: optimizer, learning-rate schedule, loss and length of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedtf.config.flags import option
from seedtf.config.recipes import RecipeFlags, by_recipe, default_decay
from seedtf.errors import UserError

__all__ = ["ADDONS_OPTIMIZERS", "CYCLIC", "OPTIMIZERS", "SCHEDULES", "SWA", "OptimFlags"]

CYCLIC = "cyclic"
SCHEDULES = (CYCLIC, "smooth", "one_cycle", "cosine", "constant")
SWA = "swa"
ADDONS_OPTIMIZERS = ("radam", "lookahead", "ranger", SWA)
"""The optimizers that only TensorFlow Addons has; they know no weight decay."""
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "lamb", *ADDONS_OPTIMIZERS)


@dataclass(frozen=True)
class OptimFlags(RecipeFlags):
    """Everything that decides how the weights change from step to step, except the images."""

    HEADING: ClassVar[str] = "Training"

    epochs: int = by_recipe("epochs", "Passes over the training images, 1 or more.", low=1)
    batch_size: int = option(32, "Images in a step, over all devices together, 1 or more.", low=1)
    optimizer: str = by_recipe(
        "optimizer",
        "Update rule; sgd has Nesterov momentum 0.9; ranger is lookahead around radam, swa averages "
        "the weights of the last quarter; radam and those after it need seedtf[addons].",
        choices=OPTIMIZERS,
    )
    lr: float | None = option(
        None,
        "Highest learning rate, above 0; default by optimizer (sgd 5e-2, lamb 5e-3, others "
        "1e-3) for random weights, a tenth of it for pretrained ones.",
        low=1e-12,
        high=100.0,
    )
    min_lr: float = option(
        1e-6, "Lowest learning rate of a schedule, 0 to --lr.", low=0.0, high=100.0
    )
    schedule: str = by_recipe(
        "schedule",
        "Learning-rate schedule: cosine cycles with decaying peaks (cyclic), exponential decay "
        "(smooth), one rise and fall, half a cosine, or none.",
        choices=SCHEDULES,
    )
    schedule_per_step: bool = by_recipe(
        "schedule_per_step",
        "Set the learning rate at every step, not every epoch; a warm-up implies it.",
    )
    warmup_epochs: float = option(
        0.0, "Epochs over which the learning rate rises from near 0, 0 or more.", low=0.0
    )
    cycle_epochs: float = option(
        10.0, "Length of a cycle of --schedule=cyclic in epochs, 0.1 or more.", low=0.1
    )
    cycle_decay: float = option(
        0.8, "Peak of a cycle relative to the previous one, 0.01 to 1.", low=0.01, high=1.0
    )
    weight_decay: float | str = by_recipe(
        "weight_decay",
        "Decoupled weight decay, 0 to 1: a step subtracts learning rate × this × weight, except from "
        "biases and the scales of normalizations; auto: 0.05 for adamw and lamb, 5e-4 for sgd, 0 for "
        "others.",
        low=0.0,
        high=1.0,
    )
    label_smoothing: float = by_recipe(
        "label_smoothing",
        "Fraction of each training label that is spread over all classes, 0 to 0.5.",
        low=0.0,
        high=0.5,
    )
    class_weights: str = option(
        "",
        "Weight of each class in the training loss: auto (inverse to its number of images), or "
        "name:weight,… with 1 for the others.",
    )
    freeze_epochs: int = option(
        0, "Epochs at the start that train the head alone, 0 or more.", low=0
    )
    body_lr_factor: float = option(
        1.0,
        "Learning rate of the body's first layers relative to the head's, 0.0001 to 1; the rates of "
        "the layers between are interpolated.",
        low=1e-4,
        high=1.0,
    )
    clip_norm: float = option(
        0.0, "Clip the gradient's global norm to this value, 0 or more; 0 is off.", low=0.0
    )
    ema_horizon: float = option(
        0.0,
        "Validate and keep a moving average of the weights and batch statistics over this fraction "
        "of all steps, 0 to 0.5; 0 is off.",
        low=0.0,
        high=0.5,
    )
    snapshots: bool = option(
        False, "Keep a model at the end of every cycle of --schedule=cyclic as well."
    )
    progressive_sizes: str = option(
        "off",
        "Smaller image sizes to begin with, such as 32,40, each for an equal part of the epochs, "
        "before --image_size; auto: two thirds of it for the first half; or off.",
    )
    patience: int = option(
        0, "Stop after this many epochs without a new lowest validation loss; 0 is off.", low=0
    )
    time_limit: float = option(0.0, "Stop after this many minutes of training; 0 is off.", low=0.0)

    @property
    def decay(self) -> float:
        """``weight_decay``, or with ``auto`` the usual value of the optimizer."""
        given = self.weight_decay
        return default_decay(self.optimizer) if isinstance(given, str) else given

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        if self.lr is not None and self.min_lr > self.lr:
            raise UserError(f"--min_lr={self.min_lr:g} exceeds --lr={self.lr:g}; lower it")
        if self.freeze_epochs >= self.epochs:
            raise UserError(
                f"--freeze_epochs={self.freeze_epochs} leaves no epoch for the whole network; pass "
                f"less than --epochs={self.epochs}"
            )
        if self.ema_horizon > 0 and self.optimizer == SWA:
            raise UserError(
                "--ema_horizon and --optimizer=swa both average the weights; leave one of them out"
            )
        if self.snapshots and self.schedule != CYCLIC:
            raise UserError(
                f"--snapshots: --schedule={self.schedule} has no cycles; pass --schedule=cyclic"
            )
        if self.snapshots and self.cycle_epochs > self.epochs:
            raise UserError(
                f"--snapshots: no cycle of --cycle_epochs={self.cycle_epochs:g} ends within "
                f"--epochs={self.epochs}; pass shorter cycles"
            )
