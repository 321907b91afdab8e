"""Recipes: named sets of defaults for flags; a flag on the command line overrides its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from seedtf.config.flags import AUTO, Flags, option

__all__ = [
    "DEFAULT_WEIGHTS",
    "FAST",
    "FINETUNE",
    "ORIGINAL",
    "RANDOM_WEIGHTS",
    "RECIPES",
    "RecipeFlags",
    "by_recipe",
    "choose_recipe",
    "default_decay",
    "default_rate",
    "recipe_changes",
]

ORIGINAL, FAST, FINETUNE = "original", "fast", "finetune"
DEFAULT_WEIGHTS, RANDOM_WEIGHTS = "imagenet", "none"

# The usual highest learning rates for random weights.
_RATES = {"sgd": 5e-2, "lamb": 5e-3}
_DEFAULT_RATE = 1e-3
# Pretrained weights take a tenth of these rates, because larger steps would destroy their features.
_PRETRAINED_FACTOR = 0.1
# At this rate, EfficientNet-Lite0 with AdamW reached a higher accuracy in the same number of epochs.
# All EfficientNets use it, also with Adam. Other networks do not, because none of them was measured.
_FINETUNE_RATES = {"adam": 2.5e-3, "adamw": 2.5e-3}
_WEIGHT_DECAYS = {"adamw": 0.05, "lamb": 0.05, "sgd": 5e-4}

RECIPES: dict[str, dict[str, Any]] = {
    # the published settings of the Kaggle solution that seedtf is based on
    ORIGINAL: {
        "epochs": 200,
        "optimizer": "adam",
        "schedule": "cyclic",
        "schedule_per_step": False,
        "bn_momentum": 0.99,  # the default of Keras
        "zero_init_residual": False,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "rotate": 0.0,
    },
    FAST: {
        "epochs": 20,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "schedule_per_step": True,
        "bn_momentum": AUTO,  # from the number of steps in an epoch
        "zero_init_residual": True,
        "weight_decay": AUTO,  # from the optimizer
        "label_smoothing": 0.1,
        "rotate": 0.0,
    },
    FINETUNE: {
        "epochs": 12,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "schedule_per_step": True,
        "bn_momentum": AUTO,
        "zero_init_residual": True,
        "weight_decay": AUTO,
        "label_smoothing": 0.1,
        "rotate": AUTO,  # from --flip
    },
}
"""Flag defaults by recipe; every recipe sets the same flags."""


@dataclass(frozen=True)
class RecipeFlags(Flags):
    """The flag ``recipe``, which gives default values to other flags.

    A group that declares such flags, with ``by_recipe``, inherits from this class.
    """

    HEADING: ClassVar[str] = "Recipe"

    recipe: str = option(
        AUTO,
        "Named set of defaults for the flags whose help lists a default of each recipe. Flags on the "
        "command line override it. auto is fast if the initial weights are random (--weights=none), "
        "and finetune otherwise.",
        choices=(AUTO, *RECIPES),
    )

    def __post_init__(self) -> None:
        """Fills in the recipe's defaults, then checks every field."""
        for name, value in RECIPES.get(self.recipe_in_use, {}).items():
            if getattr(self, name, value) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()

    @property
    def recipe_in_use(self) -> str:
        """The value of ``recipe``; with ``auto`` the recipe that suits the initial weights."""
        # An instance of a single group may lack ``weights``, which is in NetworkFlags.
        return choose_recipe(self.recipe, getattr(self, "weights", DEFAULT_WEIGHTS))


def by_recipe(name: str, help_text: str, **limits: Any) -> Any:
    """Returns an ``option`` whose default comes from the recipe; its help lists every default."""
    defaults = (f"{recipe} {str(values[name]).lower()}" for recipe, values in RECIPES.items())
    return option(None, help_text, default_text=", ".join(defaults), **limits)


def choose_recipe(recipe: str, weights: str) -> str:
    """Returns ``recipe``, or if it is ``auto`` the recipe that suits the initial weights.

    Args:
        recipe: a value of ``--recipe``.
        weights: a value of ``--weights``; all but ``none`` are pretrained.

    Example:
        >>> choose_recipe("auto", "imagenet"), choose_recipe("auto", "none")
        ('finetune', 'fast')
    """
    if recipe != AUTO:
        return recipe
    return FAST if weights == RANDOM_WEIGHTS else FINETUNE


def default_rate(
    optimizer: str, weights: str, *, recipe: str = FAST, efficientnet: bool = False
) -> float:
    """The highest learning rate if ``--lr`` is not given.

    Args:
        optimizer: a value of ``--optimizer``.
        weights: a value of ``--weights``; all but ``none`` are pretrained, and take a tenth of the
            rate for random weights.
        recipe: a key of ``RECIPES``. With ``finetune``, pretrained EfficientNets that are trained by
            Adam or AdamW take a rate of their own instead of the tenth.
        efficientnet: whether the network is an EfficientNet.

    Example:
        >>> default_rate("adam", "none"), default_rate("adam", "imagenet")
        (0.001, 0.0001)
        >>> default_rate("adam", "imagenet", recipe="finetune", efficientnet=True)
        0.0025
    """
    rate = _RATES.get(optimizer, _DEFAULT_RATE)
    if weights == RANDOM_WEIGHTS:
        return rate
    lowered = rate * _PRETRAINED_FACTOR
    return (
        _FINETUNE_RATES.get(optimizer, lowered) if recipe == FINETUNE and efficientnet else lowered
    )


def default_decay(optimizer: str) -> float:
    """The weight decay of ``--weight_decay=auto``; 0 for the optimizers without a usual value.

    With Keras 2.15, ``lamb`` comes from TensorFlow Addons, and ``training.resolve`` uses 0 for it.

    Example:
        >>> default_decay("adamw"), default_decay("adam")
        (0.05, 0.0)
    """
    return _WEIGHT_DECAYS.get(optimizer, 0.0)


def recipe_changes(recipe: str, values: dict[str, Any]) -> dict[str, Any]:
    """The flags whose values in ``values`` differ from the defaults of ``recipe``, with their values.

    Args:
        recipe: a key of ``RECIPES``.
        values: all flags of a run, such as ``TrainConfig.as_dict()``.
    """
    return {
        name: values[name] for name, default in RECIPES[recipe].items() if values[name] != default
    }
