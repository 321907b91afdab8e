"""What ``seedtf tune`` may search: flags with their ranges, and the arithmetic of those ranges.

Nothing here imports TensorFlow or Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from seedtf.augment import FLIPS
from seedtf.config.optim_flags import ADDONS_OPTIMIZERS
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError

__all__ = ["BY_DEFAULT", "SEARCHABLE", "Dimension", "choose_space", "first_values", "short"]

# how far from its default the rate is searched, either way
_RATE_FACTOR = 10.0


@dataclass(frozen=True)
class Dimension:
    """One flag and the values it may take: ``choices``, or an inclusive range.

    Attributes:
        name: the flag.
        low, high: the range of a number; 0 and 0 with ``choices``.
        step: distance of neighbouring values from ``low`` on; 0 is a logarithmic range, where ``low``
            is above 0.
        choices: the values, where they are not a range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    choices: tuple[Any, ...] = ()

    def written(self, value: Any) -> Any:
        """``value`` as the flag gets it: without the noise of the last digits.

        A logarithmic value has three significant digits, any other number ten decimals.
        """
        if self.choices:
            return value
        if not self.step:
            return min(max(float(f"{value:.3g}"), self.low), self.high)
        return round(float(value), 10)

    def nearest(self, value: Any) -> Any:
        """The value of this dimension that lies nearest to ``value``.

        Where ``choices`` are no numbers, one that is not among them gives the first.
        """
        if self.choices:
            if value in self.choices or not isinstance(value, (int, float)):
                return value if value in self.choices else self.choices[0]
            return min(self.choices, key=lambda choice: abs(choice - value))
        clipped = min(max(float(value), self.low), self.high)
        if not self.step:
            return clipped
        return self.written(self.low + round((clipped - self.low) / self.step) * self.step)

    def ends(self) -> tuple[Any, ...]:
        """The outermost values, or all choices: what a flag has to allow."""
        return self.choices or (self.low, self.high)

    def __str__(self) -> str:
        """Such as ``crop 0 to 0.6`` or ``lr 0.0001 to 0.01 (log)``."""
        if self.choices:
            return f"{self.name} {'|'.join(map(short, self.choices))}"
        return f"{self.name} {self.low:g} to {self.high:g}{'' if self.step else ' (log)'}"


# the rate's range follows the optimizer, so its ends here are only a place
_ALL = (
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
    # from here on only what --search names
    Dimension("shear", high=20.0, step=2.5),
    Dimension("flip", choices=FLIPS),
    Dimension("clip_norm", choices=(0.0, 1.0, 5.0)),
    Dimension("body_lr_factor", low=0.01, high=1.0),
    Dimension("ema_horizon", high=0.5, step=0.05),
    Dimension("batch_size", choices=(16, 32, 64, 128)),
)
_MORE = ("shear", "flip", "clip_norm", "body_lr_factor", "ema_horizon", "batch_size")

SEARCHABLE: Mapping[str, Dimension] = {each.name: each for each in _ALL}
"""Every flag that can be searched."""

BY_DEFAULT = tuple(name for name in SEARCHABLE if name not in _MORE)
"""The flags that are searched where ``--search`` is not given."""


def choose_space(search: str, given: Collection[str], config: TrainConfig) -> list[Dimension]:
    """The dimensions of a search, in the order of ``SEARCHABLE``.

    Args:
        search: names separated by commas; empty for ``BY_DEFAULT``.
        given: the flags that the user named; they are fixed.
        config: the fixed values; the rate's range lies around what it would take.

    Raises:
        UserError: a name that cannot be searched or is fixed, or a range that the other flags forbid,
            or nothing is left.
    """
    names = [name.strip().lstrip("-") for name in search.split(",") if name.strip()]
    for name in names:
        if name not in SEARCHABLE:
            raise UserError(
                f"--search={search}: {name!r} cannot be searched; choose from {', '.join(SEARCHABLE)}"
            )
        if name in given:
            raise UserError(
                f"--{name}={getattr(config, name)}: is fixed and in --search; leave it out of one"
            )
    wanted = set(names or BY_DEFAULT) - set(given)
    if not names and config.optimizer in ADDONS_OPTIMIZERS:
        wanted.discard("weight_decay")
    space = [_around_default(each, config) for name, each in SEARCHABLE.items() if name in wanted]
    if not space:
        raise UserError(
            f"--search: nothing is left to search, because all of {', '.join(BY_DEFAULT)} are given; "
            "leave some of them out"
        )
    _check_ends(space, config)
    return space


def first_values(space: Iterable[Dimension], config: TrainConfig) -> dict[str, Any]:
    """What ``seedtf train`` takes of itself, as near as the ranges allow: the first trial."""
    defaults = {
        **config.as_dict(),
        "lr": config.highest_rate,
        "weight_decay": config.decay,
    }
    return {each.name: each.nearest(defaults[each.name]) for each in space}


def short(value: Any) -> str:
    """A value of a dimension as people read it, such as ``15`` for 15.0."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _around_default(dimension: Dimension, config: TrainConfig) -> Dimension:
    if dimension.name != "lr":
        return dimension
    middle = math.log10(config.highest_rate)
    reach = math.log10(_RATE_FACTOR)
    low, high = (float(f"{10**end:.3g}") for end in (middle - reach, middle + reach))
    return replace(dimension, low=low, high=high)


def _check_ends(space: Iterable[Dimension], config: TrainConfig) -> None:
    """Raises UserError now rather than in the trial that gets there."""
    for each in space:
        for value in each.ends():
            try:
                replace(config, **{each.name: value})
            except UserError as error:
                raise UserError(f"--search: {each}: {error}") from None
