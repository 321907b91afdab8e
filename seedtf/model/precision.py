"""Chooses the dtype policy, and whether XLA compiles the train step, for the devices of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seedtf.errors import UserError

__all__ = [
    "Compilation",
    "Precision",
    "choose_jit",
    "choose_precision",
]

# The lowest compute capability of NVIDIA GPUs whose tensor cores support a number format (CUDA C
# Programming Guide, "Compute Capabilities"). 8.0 is Ampere, 7.0 is Volta.
_BFLOAT16_SINCE = (8, 0)
_FLOAT16_SINCE = (7, 0)
# TensorFlow by default multiplies float32 numbers as TF32 where the GPU supports it.
_TF32_SINCE = (8, 0)


@dataclass(frozen=True)
class Precision:
    """A Keras dtype policy and why it was chosen.

    Attributes:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``. ``"mixed_float16"`` needs
            loss scaling, which Keras adds when a model is compiled.
        reason: one sentence for the console.
    """

    policy: str
    reason: str


@dataclass(frozen=True)
class Compilation:
    """Whether the train step is compiled with XLA, and why.

    Attributes:
        enabled: whether the whole step is compiled.
        reason: one sentence for the console.
        halves: whether two halves of each replica's step are compiled: the part before the gradients
            of all replicas are summed, and the part after the sum.
    """

    enabled: bool
    reason: str
    halves: bool = False


def choose_precision(requested: str, compute_capabilities: Sequence[tuple[int, int]]) -> Precision:
    """Returns the precision for ``--precision=requested`` on GPUs of these compute capabilities.

    Args:
        requested: ``auto``, ``float32``, ``mixed_bfloat16`` or ``mixed_float16``. A 16-bit format is
            used as requested; ``reason`` warns if the device computes slowly with it.
        compute_capabilities: (major, minor) of every GPU in use; empty if there is none.

    Raises:
        UserError: ``requested`` is another value.
    """
    if requested == "auto":
        return _automatic_precision(compute_capabilities)
    if requested == "float32":
        lowest = min(compute_capabilities, default=(0, 0))
        uses_tf32 = lowest >= _TF32_SINCE
        note = "; the GPU multiplies with 10 bits of mantissa (TF32)" if uses_tf32 else ""
        return Precision("float32", f"float32 was requested{note}.")
    since = {"mixed_bfloat16": _BFLOAT16_SINCE, "mixed_float16": _FLOAT16_SINCE}.get(requested)
    if since is None:
        choices = "auto, float32, mixed_bfloat16 or mixed_float16"
        raise UserError(f"--precision={requested} is not a precision; pass {choices}")
    return Precision(
        requested, f"{requested} was requested{_slowness_warning(compute_capabilities, since)}"
    )


def choose_jit(
    requested: str,
    num_gpus: int,
    replicas: int = 1,
    *,
    deterministic: bool = False,
    can_split_step: bool = True,
) -> Compilation:
    """Chooses whether XLA compiles the train step for ``--jit_compile=requested``.

    ``auto`` compiles if there is a GPU. On a CPU, ResNet-50 at 96 px trained at 21 images per second
    with XLA and at 30 without.

    XLA cannot compile a step that spans several devices. So with several replicas on GPUs, two halves
    of each replica's step are compiled: the part before the gradients are summed, and the part after
    the sum. With ``--deterministic`` nothing is compiled, because XLA does not have a deterministic
    form of every operation.

    Args:
        requested: ``auto``, ``on`` or ``off``.
        num_gpus: number of GPUs of this process.
        replicas: number of devices that share a batch.
        deterministic: whether ``--deterministic`` is set.
        can_split_step: whether a step can be compiled in two halves, which needs Keras 3.

    Raises:
        UserError: ``requested`` is another value, or ``on`` where it is impossible.
    """
    if requested == "off":
        return Compilation(False, "XLA was switched off.")
    if requested not in ("auto", "on"):
        raise UserError(f"--jit_compile={requested} is not a choice; pass auto, on or off")
    if requested == "on" and deterministic:
        raise UserError(
            "--jit_compile=on: XLA does not have a deterministic form of every operation, which "
            "--deterministic needs; leave one of the two flags out"
        )
    if num_gpus and deterministic:
        return Compilation(False, "XLA is off because of --deterministic.")
    if replicas > 1:
        return _choose_halves(requested, num_gpus, replicas, can_split_step)
    if requested == "on":
        slow = "" if num_gpus else "; without a GPU this is usually slower than not compiling"
        return Compilation(True, f"XLA was requested{slow}.")
    if num_gpus:
        return Compilation(True, f"XLA is on because there is a GPU ({num_gpus} in use).")
    return Compilation(False, "XLA is off because there is no GPU: on a CPU it is slower.")


def _choose_halves(
    requested: str, num_gpus: int, replicas: int, can_split_step: bool
) -> Compilation:
    if num_gpus and can_split_step:
        return Compilation(
            False,
            f"XLA compiles the step of each of {replicas} replicas in two halves, with one all-reduce "
            "between them; with --sync_bn, with loss scaling or with layers that draw random numbers, "
            "nothing is compiled.",
            halves=True,
        )
    if requested == "on":
        raise UserError(
            f"--jit_compile=on: {replicas} replicas share a step, which XLA cannot compile as one; "
            "pass auto, or --strategy=none"
        )
    reason = "Keras compiles no step that spans devices"
    return Compilation(False, f"XLA is off because {replicas} replicas share a step: {reason}.")


def _automatic_precision(capabilities: Sequence[tuple[int, int]]) -> Precision:
    if not capabilities:
        return Precision("float32", "float32 because there is no GPU: 16-bit is slower on a CPU.")
    lowest = min(tuple(capability) for capability in capabilities)
    lowest_text = f"the lowest GPU compute capability is {_dotted(lowest)}"
    if lowest >= _BFLOAT16_SINCE:
        return Precision("mixed_bfloat16", f"mixed_bfloat16 because {lowest_text} (8.0 or more).")
    if lowest >= _FLOAT16_SINCE:
        return Precision(
            "mixed_float16", f"mixed_float16 because {lowest_text} (7.0 or more, below 8.0)."
        )
    return Precision("float32", f"float32 because {lowest_text} (below 7.0: no tensor cores).")


def _slowness_warning(capabilities: Sequence[tuple[int, int]], since: tuple[int, int]) -> str:
    """The end of the sentence about a requested 16-bit format: a warning if it is slow, or only "."."""
    if not capabilities:
        return "; without a GPU this is slower than float32."
    lowest = min(tuple(capability) for capability in capabilities)
    if lowest < since:
        return (
            f"; a GPU of compute capability {_dotted(lowest)} is slow at it "
            f"({_dotted(since)} or more is fast)."
        )
    return "."


def _dotted(capability: tuple[int, ...]) -> str:
    return ".".join(map(str, capability))
