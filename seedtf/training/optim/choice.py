"""Checks and describes ``--optimizer``, without importing Keras."""

from __future__ import annotations

from seedtf.config.optim_flags import ADDONS_OPTIMIZERS, SWA
from seedtf.errors import UserError, missing_addons
from seedtf.training.machine import Machine

__all__ = [
    "check_optimizer",
    "check_strategy",
    "describe_optimizer",
    "first_averaged_epoch",
    "needs_addons",
]

# Each of these wraps another optimizer and itself assigns weights in the train step, which fails on
# several devices.
_WRAPPERS = ("lookahead", "ranger", SWA)
# Stochastic weight averaging (SWA) starts after this fraction of the epochs (Izmailov et al. 2018).
_SWA_START_FRACTION = 0.75


def needs_addons(name: str, keras_2: bool) -> bool:
    """Whether the optimizer comes from TensorFlow Addons; with Keras 2.15, LAMB does too."""
    return name in ADDONS_OPTIMIZERS or (name == "lamb" and keras_2)


def check_optimizer(
    name: str,
    machine: Machine,
    *,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    body_lr_factor: float = 1.0,
) -> None:
    """Checks that the optimizer ``name`` is installed on ``machine`` and supports the given values.

    Raises:
        UserError: in one of three cases:

            * ``body_lr_factor`` is not 1 in the Keras 2.15 environment.
            * The optimizer comes from TensorFlow Addons, which is not installed.
            * The optimizer comes from TensorFlow Addons, whose optimizers support neither weight decay
              nor clipping, and ``weight_decay`` or ``clip_norm`` is not 0.
    """
    if machine.keras_2 and body_lr_factor != 1.0:
        raise UserError(
            f"--body_lr_factor={body_lr_factor:g}: needs Keras 3, this is Keras 2.15; pass "
            "--body_lr_factor=1"
        )
    if needs_addons(name, machine.keras_2):
        if not machine.addons:
            raise missing_addons(f"--optimizer={name}")
        for flag, value in {"weight_decay": weight_decay, "clip_norm": clip_norm}.items():
            if value:
                raise UserError(
                    f"--{flag}={value:g}: not supported by --optimizer={name} of TensorFlow Addons; "
                    f"pass --{flag}=0, or --optimizer=adam, adamw, sgd or rmsprop"
                )


def check_strategy(name: str, kind: str) -> None:
    """Raises UserError if the optimizer ``name`` cannot train with the strategy ``kind``."""
    if name in _WRAPPERS and kind != "none":
        raise UserError(
            f"--optimizer={name}: trains on one device only, and --strategy is {kind} here; "
            "pass --strategy=none or another optimizer"
        )


def describe_optimizer(name: str, epochs: int, keras_2: bool = False) -> str:
    """The text that names the optimizer on the console, for a run of ``epochs`` epochs.

    Example:
        >>> describe_optimizer("ranger", 10)
        'ranger (lookahead around radam) of TensorFlow Addons'
    """
    wrapped = {
        "lookahead": "lookahead around adam",
        "ranger": "ranger (lookahead around radam)",
        SWA: "swa (adam, weights averaged at the end of every epoch from epoch "
        f"{first_averaged_epoch(epochs) + 1} on)",
    }
    text = wrapped.get(name, name)
    return f"{text} of TensorFlow Addons" if needs_addons(name, keras_2) else text


def first_averaged_epoch(epochs: int) -> int:
    """The number of the first epoch, counted from 0, at whose end SWA averages the weights."""
    return int(_SWA_START_FRACTION * epochs)
