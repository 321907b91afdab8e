"""Recipes: named sets of flag defaults; a flag that is given overrides its recipe.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

from typing import Any

from seedtf.config.flags import option

__all__ = [
    "AUTO",
    "FAST",
    "ORIGINAL",
    "RECIPES",
    "by_recipe",
    "default_decay",
    "default_rate",
    "recipe_changes",
]

ORIGINAL, FAST = "original", "fast"

AUTO = "auto"
"""The value of a flag that leaves the choice to the plan, or ``augment_strength`` to its controller."""

# usual rates from random weights
_RATES = {"sgd": 5e-2, "lamb": 5e-3}
_OTHER_RATE = 1e-3
# gentle enough to keep what trained weights know
_FROM_TRAINED = 0.1
_DECAYS = {"adamw": 0.05, "lamb": 0.05, "sgd": 5e-4}

RECIPES: dict[str, dict[str, Any]] = {
    # the Kaggle solution that seedtf grew from, as its description gives it
    ORIGINAL: {
        "epochs": 200,
        "optimizer": "adam",
        "schedule": "cyclic",
        "schedule_per_step": False,
        "bn_momentum": 0.99,  # Keras's own
        "zero_init_residual": False,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
    },
    FAST: {
        "epochs": 20,
        "optimizer": "adamw",
        "schedule": "one_cycle",
        "schedule_per_step": True,
        "bn_momentum": AUTO,  # from the steps in an epoch
        "zero_init_residual": True,
        "weight_decay": AUTO,  # by optimizer
        "label_smoothing": 0.1,
    },
}
"""Flag defaults by recipe; every recipe names the same flags."""


def by_recipe(name: str, help_text: str, **limits: Any) -> Any:
    """An ``option`` whose default is the recipe's; its help names them all."""
    defaults = (f"{recipe} {str(values[name]).lower()}" for recipe, values in RECIPES.items())
    return option(None, help_text, default_text=", ".join(defaults), **limits)


def default_rate(optimizer: str, weights: str) -> float:
    """The highest learning rate where ``--lr`` is not given; ``weights`` as the flag has them."""
    rate = _RATES.get(optimizer, _OTHER_RATE)
    return rate if weights == "none" else rate * _FROM_TRAINED


def default_decay(optimizer: str) -> float:
    """The weight decay where neither a flag nor the recipe says one."""
    return _DECAYS.get(optimizer, 0.0)


def recipe_changes(recipe: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that are not what ``recipe`` has for them."""
    return {
        name: values[name] for name, default in RECIPES[recipe].items() if values[name] != default
    }
