"""The search space of ``seedtf tune``: the flags that can be searched, with their ranges.

Nothing here imports TensorFlow or Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from seedtf.augment import FLIPS
from seedtf.config.optim_flags import DEFAULT_BATCH_SIZE
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.training.optim.choice import needs_addons

__all__ = ["SEARCHABLE", "SEARCHED_BY_DEFAULT", "Dimension", "choose_space", "first_values"]

# The learning rate is searched between its default divided by this factor and multiplied by it.
_LR_FACTOR = 10.0


@dataclass(frozen=True)
class Dimension:
    """A searched flag and its possible values.

    The possible values are either ``choices`` or an inclusive range.

    Attributes:
        name: the name of the flag.
        low: the smallest value of the range, above 0 in a logarithmic range; 0 with ``choices``.
        high: the largest value of the range; 0 with ``choices``.
        step: the distance between neighbouring values, of which ``low`` is the first. 0 means a
            logarithmic range without steps.
        choices: the possible values; empty for a range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    choices: tuple[Any, ...] = ()

    def round_for_flag(self, value: Any) -> Any:
        """``value``, rounded as it is passed to the flag.

        In a logarithmic range, it is rounded to three significant digits, but not outside the range. In
        a range with steps, it is rounded to ten decimals. A choice is not rounded.

        Example:
            >>> Dimension("lr", low=1e-4, high=1e-2).round_for_flag(0.00123456)
            0.00123
        """
        if self.choices:
            return value
        if not self.step:
            return min(max(float(f"{value:.3g}"), self.low), self.high)
        return round(float(value), 10)

    def nearest(self, value: Any) -> Any:
        """The possible value that is nearest to ``value``.

        With ``choices``, it is the first choice if ``value`` is neither a number nor a choice.

        Example:
            >>> Dimension("crop", high=0.6, step=0.05).nearest(0.23)
            0.25
        """
        if self.choices:
            if value in self.choices or not isinstance(value, (int, float)):
                return value if value in self.choices else self.choices[0]
            return min(self.choices, key=lambda choice: abs(choice - value))
        clipped = min(max(float(value), self.low), self.high)
        if not self.step:
            return clipped
        return self.round_for_flag(self.low + round((clipped - self.low) / self.step) * self.step)

    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value of the range; with ``choices``, all choices."""
        return self.choices or (self.low, self.high)

    def choice_labels(self) -> tuple[str, ...]:
        """The choices as text, such as ``15`` for 15.0."""
        return tuple(
            f"{choice:g}" if isinstance(choice, (int, float)) else str(choice)
            for choice in self.choices
        )

    def __str__(self) -> str:
        """A description such as ``crop 0 to 0.6`` or ``lr 0.0001 to 0.01 (log)``."""
        if self.choices:
            return f"{self.name} {'|'.join(self.choice_labels())}"
        return f"{self.name} {self.low:g} to {self.high:g}{'' if self.step else ' (log)'}"


# `choose_space` replaces the range of lr, because the usual rates depend on the optimizer.
_DIMENSIONS = (
    Dimension("lr", low=1e-4, high=1e-2),
    Dimension("weight_decay", low=1e-4, high=0.5),
    Dimension("label_smoothing", high=0.3, step=0.02),
    Dimension("augment_strength", high=2.0, step=0.1),
    Dimension("crop", high=0.6, step=0.05),
    Dimension("stretch", high=0.4, step=0.05),
    Dimension("rotate", choices=(0.0, 15.0, 45.0, 90.0, 180.0)),
    Dimension("brightness", high=0.5, step=0.05),
    Dimension("contrast", high=0.5, step=0.05),
    Dimension("saturation", high=0.5, step=0.05),
    Dimension("hue", high=30.0, step=2.5),
    Dimension("mixup", high=1.0, step=0.1),
    Dimension("cutmix", high=1.0, step=0.1),
    Dimension("random_erasing", high=0.5, step=0.05),
    # The flags from here on are searched only if --search names them.
    Dimension("zoom_out", high=0.2, step=0.05),
    Dimension("shear", high=20.0, step=2.5),
    Dimension("flip", choices=FLIPS),
    Dimension("clip_norm", choices=(0.0, 1.0, 5.0)),
    Dimension("body_lr_factor", low=0.01, high=1.0),
    Dimension("ema_horizon", high=0.5, step=0.05),
    Dimension("batch_size", choices=(16, 32, 64, 128)),
)
_ONLY_ON_REQUEST = (
    "zoom_out",
    "shear",
    "flip",
    "clip_norm",
    "body_lr_factor",
    "ema_horizon",
    "batch_size",
)

SEARCHABLE: Mapping[str, Dimension] = {dimension.name: dimension for dimension in _DIMENSIONS}
"""The dimension of every flag that can be searched."""

SEARCHED_BY_DEFAULT = tuple(name for name in SEARCHABLE if name not in _ONLY_ON_REQUEST)
"""The flags that are searched if ``--search`` is not given. Flags that the user sets are left out."""


def choose_space(
    search: str, given: Collection[str], config: TrainConfig, *, keras_2: bool = False
) -> list[Dimension]:
    """The dimensions of a search, in the order of ``SEARCHABLE``.

    Args:
        search: the names of the flags to search, separated by commas. If it is empty, the flags in
            ``SEARCHED_BY_DEFAULT`` are searched; weight_decay only if the optimizer supports it.
        given: the flags that the user has set; they keep their values and are not searched.
        config: all flags. The learning rate of ``config`` is the middle of the range of lr.
        keras_2: whether this is the Keras 2.15 environment, in which fewer optimizers support
            weight_decay.

    Raises:
        UserError: ``search`` names a flag that cannot be searched or is in ``given``; the other flags
            do not allow an end of a range; or no flag is left to search.
    """
    names = [name.strip().lstrip("-") for name in search.split(",") if name.strip()]
    for name in names:
        if name not in SEARCHABLE:
            raise UserError(
                f"--search={search}: {name!r} cannot be searched; choose from {', '.join(SEARCHABLE)}"
            )
        if name in given:
            raise UserError(
                f"--{name}={getattr(config, name)}: is both fixed and in --search; remove one of them"
            )
    searched = set(names or SEARCHED_BY_DEFAULT) - set(given)
    if not names and needs_addons(config.optimizer, keras_2):
        searched.discard("weight_decay")
    space = [
        _center_lr_range(dimension, config)
        for name, dimension in SEARCHABLE.items()
        if name in searched
    ]
    if not space:
        raise UserError(
            f"--search: nothing is left to search, because all of {', '.join(SEARCHED_BY_DEFAULT)} "
            "are set; remove some of them"
        )
    _check_range_ends(space, config)
    return space


def first_values(space: Iterable[Dimension], config: TrainConfig) -> dict[str, Any]:
    """The values of the first trial: the possible values that are nearest to ``config``."""
    values = {
        **config.as_dict(),
        "batch_size": config.batch_size or DEFAULT_BATCH_SIZE,
        "lr": config.highest_rate,
        "rotate": config.rotation,
        "weight_decay": config.weight_decay_in_use,
    }
    return {dimension.name: dimension.nearest(values[dimension.name]) for dimension in space}


def _center_lr_range(dimension: Dimension, config: TrainConfig) -> Dimension:
    """For lr, a range around the rate of ``config``; any other dimension is returned unchanged."""
    if dimension.name != "lr":
        return dimension
    middle = math.log10(config.highest_rate)
    half_width = math.log10(_LR_FACTOR)
    low, high = (float(f"{10**end:.3g}") for end in (middle - half_width, middle + half_width))
    return replace(dimension, low=low, high=high)


def _check_range_ends(space: Iterable[Dimension], config: TrainConfig) -> None:
    """Raises UserError if the other flags do not allow an end of a range, so that trials would fail."""
    for dimension in space:
        for value in dimension.ends():
            try:
                replace(config, **{dimension.name: value})
            except UserError as error:
                raise UserError(f"--search: {dimension}: {error}") from None
