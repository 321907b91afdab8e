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
"""The optimizers that need TensorFlow Addons. They do not support weight decay."""
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "lamb", *ADDONS_OPTIMIZERS)

DEFAULT_BATCH_SIZE = 32
"""The default of ``--batch_size``, unless there are fewer training images."""


@dataclass(frozen=True)
class OptimFlags(RecipeFlags):
    """Optimizer, learning rate, regularization and length of training."""

    HEADING: ClassVar[str] = "Training"

    epochs: int = by_recipe("epochs", "Passes over the training images, 1 or more.", low=1)
    batch_size: int = option(
        None,  # until the number of training images is known
        "Images per step on all devices together, 1 or more.",
        low=1,
        default_text=f"{DEFAULT_BATCH_SIZE}, or the number of training images if it is smaller",
    )
    optimizer: str = by_recipe(
        "optimizer",
        "Optimizer. sgd uses Nesterov momentum 0.9; ranger is lookahead with radam; swa averages the "
        "weights of the last quarter of training. radam, lookahead, ranger and swa need "
        "seedtf[addons].",
        choices=OPTIMIZERS,
    )
    lr: float | None = option(
        None,
        "Highest learning rate, above 0. For random weights, the default is 5e-2 for sgd, 5e-3 for "
        "lamb and 1e-3 for other optimizers; for pretrained weights, it is a tenth of that. With "
        "--recipe=finetune, it is 2.5e-3 for pretrained EfficientNets with adam or adamw.",
        low=1e-12,
        high=100.0,
    )
    min_lr: float = option(
        1e-6,
        "Lowest learning rate of a schedule, 0 to --lr; above 0 for --schedule=smooth.",
        low=0.0,
        high=100.0,
    )
    schedule: str = by_recipe(
        "schedule",
        "Learning-rate schedule: cosine cycles with decaying peaks (cyclic), exponential decay "
        "(smooth), one rise and one fall (one_cycle), one fall along half a cosine (cosine), or "
        "constant.",
        choices=SCHEDULES,
    )
    schedule_per_step: bool = by_recipe(
        "schedule_per_step",
        "Change the learning rate at every step, not only at every epoch; --warmup_epochs turns it on.",
    )
    warmup_epochs: float = option(
        0.0, "Epochs over which the learning rate rises from near 0, 0 or more.", low=0.0
    )
    cycle_epochs: float = option(
        10.0, "Length in epochs of a cycle of --schedule=cyclic, 0.1 or more.", low=0.1
    )
    cycle_decay: float = option(
        0.8, "Peak of a cycle relative to the previous peak, 0.01 to 1.", low=0.01, high=1.0
    )
    weight_decay: float | str = by_recipe(
        "weight_decay",
        "Decoupled weight decay d, 0 to 1: each step subtracts learning rate × d × weight, except from "
        "biases, normalization scales, tokens and position embeddings; auto is 0.05 for adamw, 0.05 "
        "for lamb with Keras 3, 5e-4 for sgd and 0 for others.",
        low=0.0,
        high=1.0,
    )
    teacher: str = option(
        "",
        "Folder of seedtf folds for distillation: the label of each training image is mixed with the "
        "probabilities that this folder has for the image, from the run that did not train on it.",
    )
    teacher_weight: float = option(
        0.5, "Weight of the teacher's probabilities in a label, 0 to 1.", low=0.0, high=1.0
    )
    teacher_temperature: float = option(
        2.0,
        "Divisor of the teacher's logits, 0.1 to 20; above 1 it makes the probabilities softer.",
        low=0.1,
        high=20.0,
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
        "name:weight,… with weight 1 for all other classes.",
    )
    freeze_epochs: int = option(
        0, "Number of epochs at the start in which only the head is trained, 0 or more.", low=0
    )
    body_lr_factor: float = option(
        1.0,
        "Learning rate of the first layers relative to that of the head, 0.0001 to 1; the rates of "
        "the layers between them are interpolated.",
        low=1e-4,
        high=1.0,
    )
    clip_norm: float = option(
        0.0, "Clip the global norm of the gradients to this value, 0 or more; 0 is off.", low=0.0
    )
    ema_horizon: float = option(
        0.0,
        "Validate and save a moving average of the weights and batch statistics over this fraction "
        "of all steps, 0 to 0.5; 0 is off.",
        low=0.0,
        high=0.5,
    )
    snapshots: bool = option(
        False, "Also save the model at the end of every cycle of --schedule=cyclic."
    )
    progressive_sizes: str = option(
        "off",
        "Smaller image sizes to train on first, such as 32,40. Each of these sizes, and then "
        "--image_size, gets the same number of epochs. auto means one size, two thirds of --image_size "
        "rounded down to a multiple of 16; off means no smaller size.",
    )
    patience: int = option(
        0, "Stop after this many epochs without a new lowest validation loss; 0 is off.", low=0
    )
    time_limit: float = option(
        0.0,
        "Stop after this many minutes of training, but not within the first epoch; 0 is off.",
        low=0.0,
    )

    @property
    def weight_decay_in_use(self) -> float:
        """The value of ``weight_decay``; for ``auto``, the usual value for the optimizer."""
        given = self.weight_decay
        return default_decay(self.optimizer) if isinstance(given, str) else given

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid or contradict each other."""
        super().check_together()
        if self.lr is not None and self.min_lr > self.lr:
            raise UserError(f"--min_lr={self.min_lr:g} exceeds --lr={self.lr:g}; lower --min_lr")
        if self.freeze_epochs >= self.epochs:
            raise UserError(
                f"--freeze_epochs={self.freeze_epochs} leaves no epoch for the whole network; pass "
                f"fewer than --epochs={self.epochs}"
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
