"""The update rule that ``--optimizer`` names: Keras's own, or those of TensorFlow Addons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from seedtf.compat.keras import KERAS_2
from seedtf.compat.tensorflow import import_addons
from seedtf.errors import UserError
from seedtf.training.optim.param_groups import is_decayed

__all__ = [
    "AVERAGED",
    "check_optimizer",
    "check_strategy",
    "describe_optimizer",
    "first_averaged",
    "make_optimizer",
    "needs_addons",
]

AVERAGED = "swa"
"""The choice that averages the weights (stochastic weight averaging, Izmailov et al. 2018)."""

Rates = Mapping[str, float] | Callable[[Any], float]
"""Learning rates relative to the optimizer's: by the path of a variable, or a function of it."""

# they change weights from within another optimizer's step, which fails where several devices share it
_WRAPPERS = ("lookahead", "ranger", AVERAGED)
_OF_ADDONS = ("radam", *_WRAPPERS)
# the share of training before the average begins, as Izmailov et al. have it
_AVERAGED_FROM = 0.75


def check_optimizer(
    name: str, *, weight_decay: float = 0.0, clip_norm: float = 0.0, body_lr_factor: float = 1.0
) -> None:
    """Raises UserError where ``name`` cannot be had here, or cannot do what the flags ask.

    That is where it needs TensorFlow Addons, which is not installed, or is asked for what only Keras's
    own optimizers do; ``body_lr_factor`` other than 1 needs Keras 3.
    """
    if needs_addons(name):
        import_addons(f"--optimizer={name}")
        wanted = {"weight_decay": (weight_decay, 0.0), "clip_norm": (clip_norm, 0.0)}
        for flag, (value, off) in {**wanted, "body_lr_factor": (body_lr_factor, 1.0)}.items():
            if value != off:
                raise UserError(
                    f"--{flag}={value:g}: --optimizer={name} of TensorFlow Addons has none; pass "
                    f"--{flag}={off:g}, or adam, adamw, sgd or rmsprop"
                )
    if KERAS_2 and body_lr_factor != 1.0:
        raise UserError(
            f"--body_lr_factor={body_lr_factor:g}: needs Keras 3, here is Keras 2.15; pass "
            "--body_lr_factor=1"
        )


def check_strategy(name: str, strategy: str) -> None:
    """Raises UserError where ``name`` cannot train with ``strategy`` (a ``Devices.kind``)."""
    if name in _WRAPPERS and strategy != "none":
        raise UserError(
            f"--optimizer={name}: trains on one device only, and --strategy is {strategy} here; "
            "pass --strategy=none or another optimizer"
        )


def describe_optimizer(name: str, epochs: int) -> str:
    """What ``name`` means here, for the first lines of a run of so many ``epochs``."""
    wrapped = {
        "lookahead": "lookahead around adam",
        "ranger": "ranger (lookahead around radam)",
        AVERAGED: f"swa (adam, weights averaged at the end of epoch {first_averaged(epochs) + 1} "
        "and of each after it)",
    }
    text = wrapped.get(name, name)
    return f"{text} of TensorFlow Addons" if needs_addons(name) else text


def first_averaged(epochs: int) -> int:
    """The epoch, counted from 0, at whose end weights are first averaged in a run of ``epochs``."""
    return int(_AVERAGED_FROM * epochs)


def make_optimizer(
    name: str,
    lr: float,
    *,
    averaged_from: int = 0,
    steps_per_epoch: int = 1,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    rates: Rates | None = None,
) -> keras.optimizers.Optimizer:
    """A new optimizer at its usual settings.

    ``sgd`` has Nesterov momentum 0.9; ``lookahead`` and ``swa`` go around Adam, ``ranger`` around
    RectifiedAdam (``radam``); ``lamb`` is Keras's own where it has one, else Addons'.

    Args:
        name: a value of ``--optimizer``.
        lr: the learning rate at first.
        averaged_from: for ``swa``, the epoch of this optimizer, counted from 0, at whose end the first
            weights enter the average; later ones enter at the end of each epoch.
        steps_per_epoch: for ``swa``, its steps in one epoch.
        weight_decay: before the update a step takes rate × this × w off each weight w that
            ``is_decayed`` (decoupled: Loshchilov and Hutter, arXiv 1711.05101); with 0 nothing.
        clip_norm: the largest norm of the gradient over all variables; 0 for any.
        rates: factors on the whole change of a variable by a step, the decay's part too; None for 1.

    Raises:
        UserError: as ``check_optimizer``.
    """
    if rates is not None and (KERAS_2 or needs_addons(name)):
        raise UserError(
            f"--body_lr_factor: --optimizer={name} has no rates by layer here; leave it at 1"
        )
    if needs_addons(name):
        check_optimizer(name, weight_decay=weight_decay, clip_norm=clip_norm)
        first = averaged_from * steps_per_epoch + steps_per_epoch - 1
        return _of_addons(name, lr, first, steps_per_epoch)
    kinds = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "lamb": "Lamb"}
    kind = getattr(keras.optimizers, kinds[name])
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    if clip_norm:
        options["global_clipnorm"] = clip_norm
    if not weight_decay and rates is None:
        optimizer = kind(lr, **options)
        optimizer.weight_decay = None  # of itself AdamW has 0.004; 0 would cost as much as any
        return optimizer
    bases: tuple[type, ...] = (_NoDecayOnNormAndBias, kind)
    members = {}
    if rates is not None:
        bases, members = (_LayerwiseLR, *bases), {"rates": staticmethod(_by_path(rates))}
    optimizer = type(f"Finer{kind.__name__}", bases, members)(lr, **options)
    optimizer.weight_decay = weight_decay or None
    return optimizer


class _NoDecayOnNormAndBias:
    """For a Keras optimizer: its weight decay spares what is not ``is_decayed``."""

    def build(self, variables: list[Any]) -> None:
        """Creates the slots; Keras wants to be told before what to spare."""
        if not _is_built(self):
            spared = [each for each in variables if not is_decayed(each)]
            self.exclude_from_weight_decay(var_list=spared)  # type: ignore[attr-defined]
        super().build(variables)  # type: ignore[misc]


class _LayerwiseLR:
    """For an optimizer of Keras 3: each variable's change times its own factor, nothing stored.

    Every rule of Keras changes a variable in proportion to the rate that ``update_step`` is given, or
    keeps a velocity in proportion to it, so the factor goes on the rate. On the gradient it would do
    nothing to Adam.
    """

    rates: Callable[[Any], float]

    def build(self, variables: list[Any]) -> None:
        """Creates the slots and looks the factors up, in the order of ``variables``."""
        if not _is_built(self):
            self._factors = tuple(float(self.rates(each)) for each in variables)
        super().build(variables)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The decay, then the update, at the variable's own rate."""
        factor = self._factors[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        rate = learning_rate * factor
        if self.weight_decay and self._use_weight_decay(variable):  # type: ignore[attr-defined]
            self.assign_sub(variable, variable * self.weight_decay * rate)  # type: ignore[attr-defined]
        super().update_step(gradient, variable, rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Nothing: Keras's own would take from all variables at one rate."""


def _is_built(optimizer: Any) -> bool:
    # in Keras 3 and in Keras 2.15
    return getattr(optimizer, "built", False) or getattr(optimizer, "_built", False)


def _by_path(rates: Rates) -> Callable[[Any], float]:
    return rates if callable(rates) else lambda variable: rates[variable.path]


def needs_addons(name: str) -> bool:
    """Whether ``name`` is a rule of TensorFlow Addons here."""
    # Keras 2.15 has no LAMB of its own
    return name in _OF_ADDONS or (name == "lamb" and not hasattr(keras.optimizers, "Lamb"))


def _of_addons(name: str, lr: float, first: int, period: int) -> Any:
    rules = import_addons(f"--optimizer={name}").optimizers
    # Addons wraps only the kind of optimizer that Keras 2.11 replaced
    adam = keras.optimizers.legacy.Adam
    if name == "lamb":
        return rules.LAMB(lr)
    if name == "radam":
        return rules.RectifiedAdam(lr)
    if name == AVERAGED:
        return rules.SWA(adam(lr), start_averaging=first, average_period=period)
    return rules.Lookahead(adam(lr) if name == "lookahead" else rules.RectifiedAdam(lr))
