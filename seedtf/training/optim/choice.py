"""What ``--optimizer`` means and needs, known before Keras is imported."""

from __future__ import annotations

from seedtf.config.optim_flags import ADDONS_OPTIMIZERS, SWA
from seedtf.errors import UserError, missing_addons
from seedtf.training.machine import Machine

__all__ = [
    "check_optimizer",
    "check_strategy",
    "describe_optimizer",
    "first_averaged",
    "needs_addons",
]

# They change weights inside the step of another optimizer, which fails if several devices share it.
_WRAPPERS = ("lookahead", "ranger", SWA)
# Fraction of training after which averaging starts, as in Izmailov et al.
_AVERAGED_FROM = 0.75


def needs_addons(name: str, keras_2: bool) -> bool:
    """Whether the optimizer comes from TensorFlow Addons; Keras 2.15 has no LAMB either."""
    return name in ADDONS_OPTIMIZERS or (name == "lamb" and keras_2)


def check_optimizer(
    name: str,
    machine: Machine,
    *,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    body_lr_factor: float = 1.0,
) -> None:
    """Checks that ``name`` is available on ``machine`` and supports the other flags.

    Raises:
        UserError: TensorFlow Addons is needed and not installed; its optimizers have no weight decay,
            clipping or learning rates by layer; ``body_lr_factor`` other than 1 needs Keras 3.
    """
    if needs_addons(name, machine.keras_2):
        if not machine.addons:
            raise missing_addons(f"--optimizer={name}")
        wanted = {"weight_decay": (weight_decay, 0.0), "clip_norm": (clip_norm, 0.0)}
        for flag, (value, off) in {**wanted, "body_lr_factor": (body_lr_factor, 1.0)}.items():
            if value != off:
                raise UserError(
                    f"--{flag}={value:g}: not supported by --optimizer={name} of TensorFlow Addons; "
                    f"pass --{flag}={off:g}, or adam, adamw, sgd or rmsprop"
                )
    if machine.keras_2 and body_lr_factor != 1.0:
        raise UserError(
            f"--body_lr_factor={body_lr_factor:g}: needs Keras 3, this is Keras 2.15; pass "
            "--body_lr_factor=1"
        )


def check_strategy(name: str, kind: str) -> None:
    """Raises UserError where ``name`` cannot train with a strategy of this ``kind``."""
    if name in _WRAPPERS and kind != "none":
        raise UserError(
            f"--optimizer={name}: trains on one device only, and --strategy is {kind} here; "
            "pass --strategy=none or another optimizer"
        )


def describe_optimizer(name: str, epochs: int, keras_2: bool = False) -> str:
    """The optimizer in words, for the first lines of a run of ``epochs`` epochs.

    Example:
        >>> describe_optimizer("ranger", 10)
        'ranger (lookahead around radam) of TensorFlow Addons'
    """
    wrapped = {
        "lookahead": "lookahead around adam",
        "ranger": "ranger (lookahead around radam)",
        SWA: f"swa (adam, weights averaged at the end of epoch {first_averaged(epochs) + 1} "
        "and of each after it)",
    }
    text = wrapped.get(name, name)
    return f"{text} of TensorFlow Addons" if needs_addons(name, keras_2) else text


def first_averaged(epochs: int) -> int:
    """The epoch, counted from 0, after which weights are first averaged in a run of ``epochs``."""
    return int(_AVERAGED_FROM * epochs)
