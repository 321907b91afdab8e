"""Recipes: named sets of default values for flags. A flag on the command line overrides its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from seedtf.config.flags import AUTO, Flags, option

__all__ = [
    "BEFORE_FLAG",
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
    "lacks_zoom_out",
    "recipe_changes",
]

ORIGINAL, FAST, FINETUNE = "original", "fast", "finetune"
DEFAULT_WEIGHTS, RANDOM_WEIGHTS = "imagenet", "none"

# The usual highest learning rates for random weights.
_RATES = {"sgd": 5e-2, "lamb": 5e-3}
_DEFAULT_RATE = 1e-3
# Pretrained weights are trained with a tenth of these rates, because larger steps would destroy what
# the weights have learned.
_PRETRAINED_FACTOR = 0.1
# With this rate, EfficientNet-Lite0 and AdamW reached a higher accuracy in the same number of epochs.
# All EfficientNets use the rate, also with Adam. Other networks do not use the rate, because it was not
# measured with them.
_FINETUNE_RATES = {"adam": 2.5e-3, "adamw": 2.5e-3}
_WEIGHT_DECAYS = {"adamw": 0.05, "lamb": 0.05, "sgd": 5e-4}

RECIPES: dict[str, dict[str, Any]] = {
    # The published settings of the Kaggle solution on which seedtf is based.
    ORIGINAL: {
        "epochs": 200,
        "optimizer": "adam",
        "schedule": "cyclic",
        "schedule_per_step": False,
        "bn_momentum": 0.99,  # the default of Keras
        "zero_init_residual": False,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "augment_strength": 1.0,
        "crop": 0.2,
        "zoom_out": 0.0,
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
        # From random weights, 0.5 gave a lower validation loss than 1, see scripts/measured/recipe.md.
        "augment_strength": 0.5,
        # With equal values, objects have on average the same size in training as in evaluation. With
        # 0.2 and 0, they are larger in training, and the mean validation loss was higher.
        "crop": 0.1,
        "zoom_out": 0.1,
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
        "augment_strength": 1.0,
        "crop": 0.1,  # as in fast
        "zoom_out": 0.1,
        "rotate": AUTO,  # from --flip
    },
}
"""The default values of flags, by recipe. All recipes set the same flags."""

BEFORE_FLAG: dict[str, Any] = {"twins": "ignore", "zoom_out": 0.0}
"""The values of flags that a run of an earlier release lacks, where they differ from today's defaults.

Such a run was split without a search for near duplicates, and its images were never shrunk.
"""


@dataclass(frozen=True)
class RecipeFlags(Flags):
    """The flag ``recipe``, which sets the default values of other flags.

    A group of flags inherits from this class if it declares flags with ``by_recipe``.
    """

    HEADING: ClassVar[str] = "Recipe"

    recipe: str = option(
        AUTO,
        "Named set of defaults for the flags whose help lists a default of each recipe. Flags on the "
        "command line override these defaults. auto means fast for random initial weights "
        "(--weights=none), and finetune for all other weights.",
        choices=(AUTO, *RECIPES),
    )

    def __post_init__(self) -> None:
        """Sets the flags that are not given to the recipe's defaults, then checks every field."""
        for name, value in RECIPES.get(self.recipe_in_use, {}).items():
            if getattr(self, name, value) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()

    @property
    def recipe_in_use(self) -> str:
        """The value of ``recipe``; for ``auto``, the recipe that suits the initial weights."""
        # A single group other than NetworkFlags has no field ``weights``.
        return choose_recipe(self.recipe, getattr(self, "weights", DEFAULT_WEIGHTS))


def by_recipe(name: str, help_text: str, **limits: Any) -> Any:
    """An ``option`` whose default comes from the recipe. Its help lists the default of each recipe."""
    defaults = (f"{recipe} {str(values[name]).lower()}" for recipe, values in RECIPES.items())
    return option(None, help_text, default_text=", ".join(defaults), **limits)


def choose_recipe(recipe: str, weights: str) -> str:
    """The recipe in use: ``recipe`` itself; for ``auto``, the recipe that suits the initial weights.

    Args:
        recipe: a value of ``--recipe``.
        weights: a value of ``--weights``; every value except ``none`` means pretrained weights.

    Example:
        >>> choose_recipe("auto", "imagenet"), choose_recipe("auto", "none")
        ('finetune', 'fast')
    """
    if recipe != AUTO:
        return recipe
    return FAST if weights == RANDOM_WEIGHTS else FINETUNE


def default_rate(
    optimizer: str, weights: str, *, recipe: str = FAST, is_efficientnet: bool = False
) -> float:
    """The default of ``--lr``, the highest learning rate.

    For pretrained weights, the default is a tenth of the default for random weights. The recipe
    ``finetune`` makes an exception for pretrained EfficientNets that are trained by Adam or AdamW.

    Args:
        optimizer: a value of ``--optimizer``.
        weights: a value of ``--weights``; every value except ``none`` means pretrained weights.
        recipe: a key of ``RECIPES``.
        is_efficientnet: whether the network is an EfficientNet.

    Example:
        >>> default_rate("adam", "none"), default_rate("adam", "imagenet")
        (0.001, 0.0001)
        >>> default_rate("adam", "imagenet", recipe="finetune", is_efficientnet=True)
        0.0025
    """
    rate = _RATES.get(optimizer, _DEFAULT_RATE)
    if weights == RANDOM_WEIGHTS:
        return rate
    lowered = rate * _PRETRAINED_FACTOR
    if recipe == FINETUNE and is_efficientnet:
        return _FINETUNE_RATES.get(optimizer, lowered)
    return lowered


def default_decay(optimizer: str) -> float:
    """The weight decay that ``--weight_decay=auto`` means; 0 for optimizers without a usual value.

    With Keras 2.15, ``lamb`` is the optimizer of TensorFlow Addons, and ``training.resolve`` uses 0.

    Example:
        >>> default_decay("adamw"), default_decay("adam")
        (0.05, 0.0)
    """
    return _WEIGHT_DECAYS.get(optimizer, 0.0)


def lacks_zoom_out(given: dict[str, Any]) -> bool:
    """Whether ``given`` comes from a flagfile that a release without ``--zoom_out`` wrote.

    Such a file, for example the flags.txt of a run, has all flags that a recipe sets but this one.

    Example:
        >>> lacks_zoom_out({**RECIPES["fast"]}), lacks_zoom_out({"crop": 0.2})
        (False, False)
        >>> lacks_zoom_out({name: 0 for name in RECIPES["fast"] if name != "zoom_out"})
        True
    """
    return RECIPES[ORIGINAL].keys() - given.keys() == {"zoom_out"}


def recipe_changes(recipe: str, values: dict[str, Any]) -> dict[str, Any]:
    """The part of ``values`` that differs from the defaults of ``recipe``.

    Flags that recipes do not set are left out.

    Args:
        recipe: a key of ``RECIPES``.
        values: all flags of a run, such as ``TrainConfig.as_dict()``.
    """
    return {
        name: values[name] for name, default in RECIPES[recipe].items() if values[name] != default
    }
