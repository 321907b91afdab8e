"""The optimizer that ``--optimizer`` names: one of Keras or one of TensorFlow Addons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from seedtf.compat.keras import KERAS_2, LRScales, layerwise_lr_class
from seedtf.compat.tensorflow import import_addons
from seedtf.config.optim_flags import ADDONS_OPTIMIZERS
from seedtf.errors import UserError

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

# They change weights outside the step of the optimizer that they wrap, which fails under a strategy
# with several replicas.
_WRAPPERS = ("lookahead", "ranger", AVERAGED)
_KERAS_CLASSES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "lamb": "Lamb",
}
# Averaging starts after this fraction of the training, as in Izmailov et al.
_AVERAGED_FROM = 0.75


def check_optimizer(
    name: str, *, weight_decay: float = 0.0, clip_norm: float = 0.0, body_lr_factor: float = 1.0
) -> None:
    """Checks that ``name`` is available here and supports what the flags request.

    Raises:
        UserError: ``name`` needs TensorFlow Addons, which is not installed; or it is an optimizer of
            Addons, and weight decay, clipping or layer-wise rates are requested, which only those of
            Keras support; or ``body_lr_factor`` is not 1 under Keras 2.15.
    """
    if needs_addons(name):
        import_addons(f"--optimizer={name}")
        requested = {
            "weight_decay": (weight_decay, 0.0),
            "clip_norm": (clip_norm, 0.0),
            "body_lr_factor": (body_lr_factor, 1.0),
        }
        for flag, (value, off) in requested.items():
            if value != off:
                raise UserError(
                    f"--{flag}={value:g}: not supported by --optimizer={name} of TensorFlow Addons; "
                    f"pass --{flag}={off:g}, or adam, adamw, sgd or rmsprop"
                )
    if KERAS_2 and body_lr_factor != 1.0:
        raise UserError(
            f"--body_lr_factor={body_lr_factor:g}: needs Keras 3, here is Keras 2.15; pass "
            "--body_lr_factor=1"
        )


def check_strategy(name: str, strategy: str) -> None:
    """Checks that ``name`` can train under ``strategy``, a ``Devices.kind``.

    Raises:
        UserError: ``name`` wraps another optimizer and trains on one device only.
    """
    if name in _WRAPPERS and strategy != "none":
        raise UserError(
            f"--optimizer={name}: trains on one device only, and --strategy is {strategy} here; "
            "pass --strategy=none or another optimizer"
        )


def describe_optimizer(name: str, epochs: int) -> str:
    """Returns a description of ``name`` in a run of ``epochs``, for the first lines of its output."""
    wrapped = {
        "lookahead": "lookahead around adam",
        "ranger": "ranger (lookahead around radam)",
        AVERAGED: f"swa (adam, weights averaged at the end of epoch {first_averaged(epochs) + 1} "
        "and of each after it)",
    }
    text = wrapped.get(name, name)
    return f"{text} of TensorFlow Addons" if needs_addons(name) else text


def first_averaged(epochs: int) -> int:
    """Returns the 0-based epoch at whose end weights first enter the average of a run of ``epochs``.

    Example:
        >>> first_averaged(200)
        150
    """
    return int(_AVERAGED_FROM * epochs)


def make_optimizer(
    name: str,
    lr: float,
    *,
    averaged_from: int = 0,
    steps_per_epoch: int = 1,
    weight_decay: float = 0.0,
    no_decay: Iterable[Any] = (),
    clip_norm: float = 0.0,
    lr_scales: LRScales | None = None,
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer with the usual settings.

    ``sgd`` has Nesterov momentum 0.9; ``lookahead`` and ``swa`` wrap Adam, ``ranger`` wraps
    RectifiedAdam (``radam``); ``lamb`` is Keras's own where Keras has it, else that of Addons.

    Args:
        name: a value of ``--optimizer``.
        lr: the initial learning rate.
        averaged_from: for ``swa``, the epoch of this optimizer, counted from 0, at whose end weights
            first enter the average; later ones enter at the end of each epoch.
        steps_per_epoch: for ``swa``, the optimizer's steps in one epoch.
        weight_decay: before its update a step subtracts ``lr * weight_decay * w`` from each weight w
            (decoupled: Loshchilov and Hutter, arXiv 1711.05101); 0 for none.
        no_decay: the variables that weight decay leaves alone, see ``no_decay_variables``.
        clip_norm: the largest norm of the gradient over all variables; 0 for no clipping.
        lr_scales: factors on the whole change of a variable in a step, weight decay included, by the
            variable's path or as a function of the variable; None for 1 everywhere.

    Raises:
        UserError: as ``check_optimizer``.

    Example:
        >>> optimizer = make_optimizer("adamw", 1e-3, weight_decay=0.05)
        >>> type(optimizer).__name__, optimizer.weight_decay
        ('AdamW', 0.05)
    """
    check_optimizer(name, weight_decay=weight_decay, clip_norm=clip_norm)
    if lr_scales is not None and (KERAS_2 or needs_addons(name)):
        raise UserError(
            f"--body_lr_factor: --optimizer={name} supports no layer-wise rates here; leave it at 1"
        )
    if needs_addons(name):
        first = averaged_from * steps_per_epoch + steps_per_epoch - 1
        return _make_addons_optimizer(name, lr, first, steps_per_epoch)
    optimizer_class = getattr(keras.optimizers, _KERAS_CLASSES[name])
    if lr_scales is not None:
        optimizer_class = layerwise_lr_class(optimizer_class, lr_scales)
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    if clip_norm:
        options["global_clipnorm"] = clip_norm
    optimizer = optimizer_class(lr, **options)
    # Keras's AdamW defaults to 0.004. None removes the decay op; 0 would still run it.
    optimizer.weight_decay = weight_decay or None
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_list=list(no_decay))
    return optimizer


def needs_addons(name: str) -> bool:
    """Whether ``name`` is an optimizer of TensorFlow Addons in this environment."""
    # Keras 2.15 has no LAMB of its own.
    return name in ADDONS_OPTIMIZERS or (name == "lamb" and not hasattr(keras.optimizers, "Lamb"))


def _make_addons_optimizer(name: str, lr: float, first: int, period: int) -> Any:
    addons = import_addons(f"--optimizer={name}").optimizers
    # The wrappers of Addons accept only the optimizers that Keras 2.11 replaced and calls legacy.
    adam = keras.optimizers.legacy.Adam
    if name == "lamb":
        return addons.LAMB(lr)
    if name == "radam":
        return addons.RectifiedAdam(lr)
    if name == AVERAGED:
        return addons.SWA(adam(lr), start_averaging=first, average_period=period)
    return addons.Lookahead(adam(lr) if name == "lookahead" else addons.RectifiedAdam(lr))
