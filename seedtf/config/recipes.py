"""Recipes: named sets of flag defaults; a flag on the command line overrides its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from seedtf.config.flags import AUTO, Flags, option

__all__ = [
    "FAST",
    "ORIGINAL",
    "RECIPES",
    "RecipeFlags",
    "by_recipe",
    "default_decay",
    "default_rate",
    "recipe_changes",
]

ORIGINAL, FAST = "original", "fast"

# the usual highest learning rates for random weights
_RATES = {"sgd": 5e-2, "lamb": 5e-3}
_OTHER_RATE = 1e-3
# pretrained weights take a tenth of these rates, because larger steps would destroy their features
_PRETRAINED_FACTOR = 0.1
_DECAYS = {"adamw": 0.05, "lamb": 0.05, "sgd": 5e-4}

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
    },
}
"""Flag defaults by recipe; every recipe sets the same flags."""


@dataclass(frozen=True)
class RecipeFlags(Flags):
    """The recipe, which fills in the flags that are not given.

    A group that declares flags with ``by_recipe`` inherits from this class.
    """

    HEADING: ClassVar[str] = "Recipe"

    recipe: str = option(
        FAST,
        "Named set of defaults for the flags whose help lists a default for each recipe; flags on the "
        "command line override it.",
        choices=tuple(RECIPES),
    )

    def __post_init__(self) -> None:
        """Fills in the recipe's defaults, then checks every field."""
        for name, value in RECIPES.get(self.recipe, {}).items():
            if getattr(self, name, value) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()


def by_recipe(name: str, help_text: str, **limits: Any) -> Any:
    """Returns an ``option`` whose default comes from the recipe; its help lists all recipes."""
    defaults = (f"{recipe} {str(values[name]).lower()}" for recipe, values in RECIPES.items())
    return option(None, help_text, default_text=", ".join(defaults), **limits)


def default_rate(optimizer: str, weights: str) -> float:
    """The highest learning rate if ``--lr`` is not given.

    Args:
        optimizer: a value of ``--optimizer``.
        weights: a value of ``--weights``; all but ``none`` are pretrained and take a tenth of the rate.

    Example:
        >>> default_rate("adam", "none"), default_rate("adam", "imagenet")
        (0.001, 0.0001)
    """
    rate = _RATES.get(optimizer, _OTHER_RATE)
    return rate if weights == "none" else rate * _PRETRAINED_FACTOR


def default_decay(optimizer: str) -> float:
    """The weight decay of ``--weight_decay=auto``; 0 for the optimizers without a usual value.

    Example:
        >>> default_decay("adamw"), default_decay("adam")
        (0.05, 0.0)
    """
    return _DECAYS.get(optimizer, 0.0)


def recipe_changes(recipe: str, values: dict[str, Any]) -> dict[str, Any]:
    """The flags whose values in ``values`` differ from the defaults of ``recipe``, with their values.

    Args:
        recipe: a key of ``RECIPES``.
        values: all flags of a run, such as ``TrainConfig.as_dict()``.
    """
    return {
        name: values[name] for name, default in RECIPES[recipe].items() if values[name] != default
    }
