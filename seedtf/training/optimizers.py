"""The update rule that ``--optimizer`` names: Keras's own, or those of TensorFlow Addons."""

from __future__ import annotations

from typing import Any

import keras

from seedtf.compat import import_addons
from seedtf.errors import UserError

__all__ = [
    "AVERAGED",
    "check_optimizer",
    "check_strategy",
    "describe_optimizer",
    "first_averaged",
    "make_optimizer",
]

AVERAGED = "swa"
"""The choice that averages the weights (stochastic weight averaging, Izmailov et al. 2018)."""

# they change weights from within another optimizer's step, which fails where several devices share it
_WRAPPERS = ("lookahead", "ranger", AVERAGED)
_OF_ADDONS = ("radam", *_WRAPPERS)
# the share of training before the average begins, as Izmailov et al. have it
_AVERAGED_FROM = 0.75


def check_optimizer(name: str) -> None:
    """Raises UserError where ``name`` needs TensorFlow Addons and that is not installed."""
    if _needs_addons(name):
        import_addons(f"--optimizer={name}")


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
    return f"{text} of TensorFlow Addons" if _needs_addons(name) else text


def first_averaged(epochs: int) -> int:
    """The epoch, counted from 0, at whose end weights are first averaged in a run of ``epochs``."""
    return int(_AVERAGED_FROM * epochs)


def make_optimizer(
    name: str, lr: float, *, averaged_from: int = 0, steps_per_epoch: int = 1
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

    Raises:
        UserError: ``name`` needs TensorFlow Addons and that is not installed.
    """
    if _needs_addons(name):
        first = averaged_from * steps_per_epoch + steps_per_epoch - 1
        return _of_addons(name, lr, first, steps_per_epoch)
    if name == "sgd":
        return keras.optimizers.SGD(lr, momentum=0.9, nesterov=True)
    kinds = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "lamb": "Lamb"}
    return getattr(keras.optimizers, kinds[name])(lr)


def _needs_addons(name: str) -> bool:
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
