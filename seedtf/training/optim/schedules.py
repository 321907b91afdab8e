"""Learning rate as a pure function of the epoch, without TensorFlow.

The epoch is a float: 0.0 is the start of training, 1.5 the middle of the second epoch. Every
function takes ``lr`` above 0 and ``min_lr`` in ``[0, lr]`` and returns a value within
``[min_lr, lr]``; only warm-up goes below ``min_lr``. An epoch before 0 counts as 0, one past the end
as the end. ``make_schedule`` checks what the user gave; the functions themselves do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from seedtf.errors import UserError

__all__ = [
    "SCHEDULES",
    "Schedule",
    "constant",
    "cosine",
    "cyclic_decay",
    "make_schedule",
    "one_cycle",
    "smooth_decay",
    "with_warmup",
]

Schedule = Callable[[float], float]

SCHEDULES = ("cyclic", "smooth", "one_cycle", "cosine", "constant")

ONE_CYCLE_PEAK = 0.3  # the share of training spent on the way up
ONE_CYCLE_START = 1 / 25  # the first rate, as a share of the peak
WARMUP_START = 0.01  # the first rate, as a share of the rate that warm-up leads to


def cyclic_decay(
    epoch: float, *, lr: float, min_lr: float, cycle_epochs: float, cycle_decay: float
) -> float:
    """Cosine cycles whose peak decays: the rate falls to ``min_lr``, jumps back up, a little lower.

    With ``i = floor(epoch / cycle_epochs)`` and ``t = epoch / cycle_epochs - i``::

        peak = max(min_lr, lr * cycle_decay**i)
        rate = min_lr + (peak - min_lr) * (1 + cos(pi * t)) / 2

    This is SGDR (Loshchilov & Hutter, 2017, arXiv 1608.03983, equation 5) with ``T_mult = 1`` and
    decaying peaks. It has no end: cycle follows cycle.

    Args:
        epoch: float; below 0 counts as 0.
        lr: the first peak.
        min_lr: the lowest rate.
        cycle_epochs: the length of a cycle in epochs, above 0; need not be whole.
        cycle_decay: the factor from one peak to the next, in (0, 1].
    """
    cycles = max(epoch, 0.0) / cycle_epochs
    peak = max(min_lr, lr * cycle_decay ** math.floor(cycles))
    return _cosine(peak, min_lr, cycles - math.floor(cycles))


def smooth_decay(epoch: float, *, lr: float, min_lr: float, epochs: float) -> float:
    """One exponential decay, ``lr * (min_lr / lr) ** (epoch / epochs)``: ``min_lr`` at the end.

    ``min_lr`` must be above 0. The rate falls by the same factor in every epoch.
    """
    value = lr * (min_lr / lr) ** _share(epoch, epochs)
    return min(max(value, min_lr), lr)


def one_cycle(epoch: float, *, lr: float, min_lr: float, epochs: float) -> float:
    """One rise and one fall: linear up to ``lr`` during the first 30 %, then a cosine to ``min_lr``.

    It starts from ``max(min_lr, lr / 25)``. The policy is Smith & Topin's (2018, arXiv 1708.07120);
    the cosine on the way down is the common variant of their straight line.
    """
    share = _share(epoch, epochs)
    if share >= ONE_CYCLE_PEAK:
        return _cosine(lr, min_lr, (share - ONE_CYCLE_PEAK) / (1 - ONE_CYCLE_PEAK))
    start = max(min_lr, lr * ONE_CYCLE_START)
    return min(start + (lr - start) * share / ONE_CYCLE_PEAK, lr)


def cosine(epoch: float, *, lr: float, min_lr: float, epochs: float) -> float:
    """Half a cosine from ``lr`` to ``min_lr``: SGDR (arXiv 1608.03983) without a restart."""
    return _cosine(lr, min_lr, _share(epoch, epochs))


def constant(epoch: float, *, lr: float) -> float:
    """``lr`` at every epoch."""
    return lr


def with_warmup(schedule: Schedule, warmup_epochs: float) -> Schedule:
    """``schedule`` behind a straight ramp that reaches it at ``warmup_epochs``, without a step.

    With ``target = schedule(warmup_epochs)`` the ramp is
    ``target * (0.01 + 0.99 * epoch / warmup_epochs)``. It starts at 1 % of the target: that may be
    below ``min_lr``, but is never exactly 0, so the first step counts. Set the rate per step rather
    than per epoch, or the whole first epoch runs at that 1 %. With ``warmup_epochs`` 0 the schedule is
    returned as it is. Gradual warm-up is from Goyal et al. (2017, arXiv 1706.02677, section 2.2).
    """
    if warmup_epochs <= 0:
        return schedule
    target = schedule(warmup_epochs)

    def warmed(epoch: float) -> float:
        if epoch >= warmup_epochs:
            return schedule(epoch)
        return target * (WARMUP_START + (1 - WARMUP_START) * max(epoch, 0.0) / warmup_epochs)

    return warmed


def make_schedule(
    name: str,
    *,
    lr: float,
    min_lr: float,
    epochs: float,
    warmup_epochs: float = 0.0,
    cycle_epochs: float = 10.0,
    cycle_decay: float = 1.0,
) -> Schedule:
    """The named schedule as a function from epoch (float) to learning rate (float).

    At ``epochs`` and past it the value is that at the very end; a cyclic schedule does not restart
    there.

    Args:
        name: one of ``SCHEDULES``.
        lr: the highest rate, above 0.
        min_lr: the lowest rate apart from warm-up, in [0, lr]; above 0 for ``smooth``.
        epochs: the length of training, above 0.
        warmup_epochs: the length of the linear ramp at the start, in [0, epochs); 0 for none.
        cycle_epochs: for ``cyclic``, the length of a cycle, above 0.
        cycle_decay: for ``cyclic``, the factor from one peak to the next, in (0, 1].

    Raises:
        UserError: a value outside these ranges.
    """
    _check_rates(name, lr, min_lr)
    _check_lengths(epochs, warmup_epochs, cycle_epochs, cycle_decay)
    end = math.nextafter(epochs, 0.0)
    schedules: dict[str, Schedule] = {
        "cyclic": lambda epoch: cyclic_decay(
            min(epoch, end),
            lr=lr,
            min_lr=min_lr,
            cycle_epochs=cycle_epochs,
            cycle_decay=cycle_decay,
        ),
        "smooth": lambda epoch: smooth_decay(epoch, lr=lr, min_lr=min_lr, epochs=epochs),
        "one_cycle": lambda epoch: one_cycle(epoch, lr=lr, min_lr=min_lr, epochs=epochs),
        "cosine": lambda epoch: cosine(epoch, lr=lr, min_lr=min_lr, epochs=epochs),
        "constant": lambda epoch: constant(epoch, lr=lr),
    }
    return with_warmup(schedules[name], warmup_epochs)


def _share(epoch: float, epochs: float) -> float:
    return min(max(epoch / epochs, 0.0), 1.0)


def _cosine(high: float, low: float, share: float) -> float:
    value = low + (high - low) * (1 + math.cos(math.pi * share)) / 2
    return min(max(value, low), high)  # rounding may leave the range by one bit


def _check_rates(name: str, lr: float, min_lr: float) -> None:
    if name not in SCHEDULES:
        raise UserError(f"--schedule={name}: unknown; choose one of {', '.join(SCHEDULES)}")
    if not (math.isfinite(lr) and lr > 0):
        raise UserError(f"--lr={lr}: must be a number above 0, such as 0.001")
    if not 0 <= min_lr <= lr:
        raise UserError(f"--min_lr={min_lr}: must lie between 0 and --lr={lr}")
    if name == "smooth" and min_lr == 0:
        raise UserError(
            "--min_lr=0: an exponential decay never reaches 0; give a rate above 0,"
            " or choose --schedule=cosine"
        )


def _check_lengths(
    epochs: float, warmup_epochs: float, cycle_epochs: float, cycle_decay: float
) -> None:
    if not epochs > 0:
        raise UserError(f"--epochs={epochs}: must be above 0")
    if not 0 <= warmup_epochs < epochs:
        raise UserError(
            f"--warmup_epochs={warmup_epochs}: must be at least 0 and below --epochs={epochs}"
        )
    if not cycle_epochs > 0:
        raise UserError(f"--cycle_epochs={cycle_epochs}: must be above 0")
    if not 0 < cycle_decay <= 1:
        raise UserError(f"--cycle_decay={cycle_decay}: must be above 0 and at most 1")
