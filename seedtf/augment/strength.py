"""How strongly to augment: the rule of ``--augment_strength=auto``.

The original's author turned his augmentation by hand until there was "just enough that train accuracy
goes to almost 1.0 while validation does not degrade". Train accuracy is measured on augmented
images and validation accuracy on plain ones, so the difference of the two says which way to turn:
ahead of validation, the network learns its images by heart; behind it, they are harder than needed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

__all__ = ["HIGHEST", "LOWEST", "START", "next_strength"]

START, LOWEST, HIGHEST = 1.0, 0.1, 3.0

_LAST = 3  # epochs that count for raising: one bad validation among them moves nothing
_GAPS = 5  # gaps that count for lowering: one bad validation moves two of them, not the median
_NOISE_ROWS = 6  # epochs the noise is taken from: the steep start is soon forgotten
_UNKNOWN_NOISE = 0.05  # while there are fewer than two second differences
_STANDARD_ERRORS = 2.0
_NARROW, _WIDE = 0.02, 0.1  # the dead zone's limits, as differences of accuracy
_FULL = 0.15  # this far beyond the dead zone the push is whole
# the median of five is quieter than one difference, and what it shows has lasted
_BEHIND_ZONE, _BEHIND_FULL = 0.25, 0.04
_LOSS_PUSH = 0.5
_RUN_SPAN, _SLOW, _QUICK = 3.3, 0.03, 0.35  # exp(3.3) = 27, a little less than HIGHEST / LOWEST


def next_strength(
    rows: Sequence[Mapping[str, float]], epochs: int, *, mixed: bool = False
) -> float:
    """The factor on every augmentation range in the epoch after ``rows``.

    With a the train accuracy, v the validation accuracy, s the strength used and t the last epoch
    (all of this is a heuristic of ours; nothing in it is learnt from data)::

        gap[t]   = a[t] - (v[t-1] + v[t]) / 2     a is the mean over the epoch: half an epoch behind v
        behind   = -median(gap[t-4], …, gap[t])
        ahead    = a[t] - max(v[t-2], v[t-1], v[t])
        noise    = 1.4826 / sqrt(6) * median |v[i] - 2 v[i-1] + v[i-2]|     over the last 6 epochs
        dead     = min(max(2 noise / sqrt(2), 0.02), 0.1)
        push     = min((ahead - dead) / 0.15, 1)        if ahead > dead
                   -min((behind - dead / 4) / 0.04, 1)  else if behind > dead / 4
                   0                                    else
        push     = max(push, 0.5)   if push >= 0, ahead >= 0 and in both last epochs val_loss rose
                                    and loss fell
        rate     = min(max(3.3 / epochs, 0.03), 0.35)
        s[t+1]   = min(max(s[t] exp(rate push), 0.1), 3), to 4 decimals

    Learning by heart does not undo itself, whereas one bad validation (a high rate, batch statistics
    not settled) is over in the next epoch, and a chance high one as well: each moves two gaps at
    most. Hence the best of three validations and the median of five gaps. Strength rises after 3
    epochs at the earliest and falls after 6.

    The second difference of values with standard deviation σ about a line has the deviation
    sqrt(6) σ, and 1.4826 turns a median of absolute values into a deviation; the mean of two
    validations has σ / sqrt(2). Below 4 epochs σ counts as 0.05. An epoch changes the strength by no
    more than the factor exp(0.35) = 1.42; in a run of 12 epochs 1.32, of 200 epochs 1.03. It starts at
    1 and stays there for 3 epochs; it stays where it is while the last epoch has no accuracies.
    Earlier epochs without are left out.

    Losses count by their direction only, since label smoothing and mixed labels shift them, and only
    while train accuracy does not contradict.

    Args:
        rows: the epochs so far, as in history.csv. Read are loss, accuracy, val_loss, val_accuracy and
            the last ``augment_strength``; where that is missing or no number above 0, 1 is assumed.
        epochs: the planned length of the run.
        mixed: whether MixUp or CutMix is on. Train accuracy is then the share of images whose larger
            part was recognised and lies below validation whatever the strength is; so it never lowers
            the strength, and raises it where train accuracy is ahead even so.

    Returns:
        A number from ``LOWEST`` to ``HIGHEST``; the same for the same arguments.
    """
    strength = _last_strength(rows)
    known = [row for row in rows if _is_known(row)]
    if len(known) < _LAST or known[-1] is not rows[-1]:
        return strength
    push = _push(known)
    if mixed:
        push = max(push, 0.0)
    rate = min(max(_RUN_SPAN / max(epochs, 1), _SLOW), _QUICK)
    return _within(strength * math.exp(rate * push))


def _push(rows: Sequence[Mapping[str, float]]) -> float:
    """From -1 (weaker) to 1 (stronger)."""
    validation = [row["val_accuracy"] for row in rows]
    dead = _dead_zone(validation)
    ahead = rows[-1]["accuracy"] - max(validation[-_LAST:])
    with_prefix, zone = _behind(rows), _BEHIND_ZONE * dead
    push = 0.0
    if ahead > dead:
        push = min((ahead - dead) / _FULL, 1.0)
    elif with_prefix > zone:
        push = -min((with_prefix - zone) / _BEHIND_FULL, 1.0)
    if push >= 0 and ahead >= 0 and _losses_part(rows[-_LAST:]):
        return max(push, _LOSS_PUSH)
    return push


def _behind(rows: Sequence[Mapping[str, float]]) -> float:
    """How far training lies behind validation; 0 while there are too few epochs to say."""
    gaps = [
        now["accuracy"] - (before["val_accuracy"] + now["val_accuracy"]) / 2
        for before, now in list(pairwise(rows))[-_GAPS:]
    ]
    return -statistics.median(gaps) if len(gaps) == _GAPS else 0.0


def _dead_zone(accuracies: Sequence[float]) -> float:
    """Half the width of the range about 0 within which a difference may be chance."""
    last = accuracies[-_NOISE_ROWS:]
    bends = [abs(c - 2 * b + a) for a, b, c in zip(last, last[1:], last[2:], strict=False)]
    noise = 1.4826 / math.sqrt(6) * statistics.median(bends) if len(bends) > 1 else _UNKNOWN_NOISE
    return min(max(_STANDARD_ERRORS * noise / math.sqrt(2), _NARROW), _WIDE)


def _losses_part(rows: Sequence[Mapping[str, float]]) -> bool:
    return all(
        now["loss"] < before["loss"] and now["val_loss"] > before["val_loss"]
        for before, now in pairwise(rows)
    )


def _is_known(row: Mapping[str, float]) -> bool:
    return math.isfinite(row["accuracy"]) and math.isfinite(row["val_accuracy"])


def _last_strength(rows: Sequence[Mapping[str, float]]) -> float:
    last = rows[-1].get("augment_strength", START) if rows else START
    return _within(last) if math.isfinite(last) and last > 0 else START


def _within(strength: float) -> float:
    # rounded, so that the last bit of exp, another one on another machine, changes no run
    return min(max(round(strength, 4), LOWEST), HIGHEST)
