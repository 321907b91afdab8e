"""Learning-rate schedules: pure functions of the epoch, without TensorFlow.

The epoch is a float: 0.0 is the start of training, 1.5 is the middle of the second epoch. A schedule
takes ``lr`` above 0 and ``min_lr`` in ``[0, lr]`` and returns a rate within ``[min_lr, lr]``; only the
rates of a warm-up may be below ``min_lr``. For a negative epoch, a schedule returns its first rate. For
an epoch after the end of training, it returns its last rate; only ``cyclic_decay`` goes on.

``make_schedule`` checks that its arguments fit together. The other functions check nothing, because
``TrainConfig`` checks the range of each value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from seedtf.errors import UserError

__all__ = [
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
"""A function from the epoch to the learning rate."""

ONE_CYCLE_PEAK = 0.3  # the rate is highest after this fraction of training
ONE_CYCLE_START = 1 / 25  # the first rate divided by the highest rate
WARMUP_START = 0.01  # the first rate divided by the rate at the end of warm-up


def cyclic_decay(
    epoch: float, *, lr: float, min_lr: float, cycle_epochs: float, cycle_decay: float
) -> float:
    """Cosine cycles: from each peak the rate falls to ``min_lr``, then it jumps to the next peak.

    With ``i = floor(epoch / cycle_epochs)`` and ``t = epoch / cycle_epochs - i``::

        peak = max(min_lr, lr * cycle_decay**i)
        rate = min_lr + (peak - min_lr) * (1 + cos(pi * t)) / 2

    This is SGDR, stochastic gradient descent with warm restarts (Loshchilov & Hutter, 2017, arXiv
    1608.03983, equation 5), with cycles of equal length (``T_mult = 1``) and with decaying peaks. The
    cycles continue without end.

    Args:
        epoch: a float; a negative one is treated as 0.
        lr: the first peak.
        min_lr: the lowest rate.
        cycle_epochs: the length of a cycle in epochs, above 0; need not be an integer.
        cycle_decay: the factor from one peak to the next, in (0, 1].

    Example:
        >>> [cyclic_decay(e, lr=1.0, min_lr=0.0, cycle_epochs=4, cycle_decay=0.5) for e in (0, 2, 4)]
        [1.0, 0.5, 0.5]
    """
    cycles = max(epoch, 0.0) / cycle_epochs
    peak = max(min_lr, lr * cycle_decay ** math.floor(cycles))
    return _cosine(peak, min_lr, cycles - math.floor(cycles))


def smooth_decay(epoch: float, *, lr: float, min_lr: float, epochs: float) -> float:
    """Exponential decay from ``lr`` to ``min_lr``: ``lr * (min_lr / lr) ** (epoch / epochs)``.

    ``min_lr`` must be above 0. The rate falls by the same factor in every epoch.
    """
    value = lr * (min_lr / lr) ** _progress(epoch, epochs)
    return min(max(value, min_lr), lr)


def one_cycle(epoch: float, *, lr: float, min_lr: float, epochs: float) -> float:
    """One rise and one fall: linear up to ``lr`` during the first 30 %, then a cosine to ``min_lr``.

    The first rate is ``max(min_lr, lr / 25)``. The policy is from Smith & Topin (2018, arXiv
    1708.07120), who let the rate fall linearly; the cosine is the common variant.
    """
    progress = _progress(epoch, epochs)
    if progress >= ONE_CYCLE_PEAK:
        return _cosine(lr, min_lr, (progress - ONE_CYCLE_PEAK) / (1 - ONE_CYCLE_PEAK))
    start = max(min_lr, lr * ONE_CYCLE_START)
    return min(start + (lr - start) * progress / ONE_CYCLE_PEAK, lr)


def cosine(epoch: float, *, lr: float, min_lr: float, epochs: float) -> float:
    """Half a cosine from ``lr`` to ``min_lr``: SGDR (arXiv 1608.03983) without a restart."""
    return _cosine(lr, min_lr, _progress(epoch, epochs))


def constant(epoch: float, *, lr: float) -> float:
    """Returns ``lr`` for every epoch."""
    return lr


def with_warmup(schedule: Schedule, warmup_epochs: float) -> Schedule:
    """Returns ``schedule`` with a linear ramp in place of its first ``warmup_epochs`` epochs.

    With ``target = schedule(warmup_epochs)`` the ramp is
    ``target * (0.01 + 0.99 * epoch / warmup_epochs)``. Its first rate is 1 % of the target. This rate
    may be below ``min_lr`` but is not 0, so the first step already trains. Set the rate at every step,
    because a rate that is set once per epoch would stay at 1 % of the target for the whole first epoch.
    If ``warmup_epochs`` is 0, ``schedule`` itself is returned. Gradual warm-up is from Goyal et al.
    (2017, arXiv 1706.02677, section 2.2).

    Example:
        >>> rate = with_warmup(lambda epoch: 1.0, 2)
        >>> rate(0.0), rate(1.0), rate(2.0)
        (0.01, 0.505, 1.0)
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
    """Returns the named schedule as a function from epoch (float) to learning rate (float).

    From the end of training on, the rate keeps its last value. Without this limit, ``cyclic`` would
    jump to a new peak if a cycle ends with the training.

    Args:
        name: a value of ``--schedule``.
        lr: the highest rate, above 0.
        min_lr: the lowest rate except during warm-up, in [0, lr]; above 0 for ``smooth``.
        epochs: the length of training, above 0.
        warmup_epochs: the length of the linear ramp at the start, in [0, epochs); 0 for no ramp.
        cycle_epochs: the length of a cycle of ``cyclic``, above 0.
        cycle_decay: the factor from one peak of ``cyclic`` to the next, in (0, 1].

    Raises:
        UserError: ``min_lr`` is above ``lr``, or is 0 for ``smooth``, or warm-up takes the whole
            training.

    Example:
        >>> rate = make_schedule("cosine", lr=0.1, min_lr=0.0, epochs=10)
        >>> [round(rate(epoch), 4) for epoch in (0, 2.5, 5, 10)]
        [0.1, 0.0854, 0.05, 0.0]
    """
    _check_combination(name, lr, min_lr, epochs, warmup_epochs)
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


def _progress(epoch: float, epochs: float) -> float:
    return min(max(epoch / epochs, 0.0), 1.0)


def _cosine(high: float, low: float, progress: float) -> float:
    value = low + (high - low) * (1 + math.cos(math.pi * progress)) / 2
    return min(max(value, low), high)  # Rounding can push the value just outside the range.


def _check_combination(
    name: str, lr: float, min_lr: float, epochs: float, warmup_epochs: float
) -> None:
    if min_lr > lr:
        raise UserError(f"--min_lr={min_lr:g}: exceeds the learning rate of {lr:g}; pass less")
    if name == "smooth" and min_lr == 0:
        raise UserError(
            "--min_lr=0: an exponential decay never reaches 0; pass a rate above 0,"
            " or choose --schedule=cosine"
        )
    if warmup_epochs >= epochs:
        raise UserError(
            f"--warmup_epochs={warmup_epochs:g}: leaves no epoch after the warm-up; pass less than "
            f"--epochs={epochs:g}"
        )
