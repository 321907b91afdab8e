"""The controller of ``--augment_strength=auto``: how strongly to augment in the next epoch.

The author of the Kaggle solution on which seedtf is based adjusted the augmentation by hand until
there was "just enough that train accuracy goes to almost 1.0 while validation does not degrade".
The controller replaces this by a rule. Train accuracy is measured on augmented images, and validation
accuracy on images without augmentation. A train accuracy above the validation accuracy means that the
network memorizes its images, so the augmentation becomes stronger. A train accuracy below the
validation accuracy means that the augmented images are harder than necessary, so the augmentation
becomes weaker.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

__all__ = ["INITIAL_STRENGTH", "MAX_STRENGTH", "MIN_STRENGTH", "next_strength"]

INITIAL_STRENGTH, MIN_STRENGTH, MAX_STRENGTH = 1.0, 0.1, 3.0

# Train accuracy is compared with the best of the last three validations, so that a single bad
# validation has no effect.
_BEST_OF_VALIDATIONS = 3
# The median of the last five gaps (see ``next_strength``) decides whether train accuracy is behind. A
# single bad validation changes only two of the gaps, so the median changes little.
_MEDIAN_OF_GAPS = 5
# The noise of validation accuracy is estimated from the last six epochs. The number is small, so that
# the steep rise at the start of a run does not count as noise for long.
_NOISE_EPOCHS = 6
_NOISE_BEFORE_ESTIMATE = 0.05
# Differences of accuracy within the dead zone are ignored. It is two standard errors wide, within
# limits.
_DEAD_ZONE_STANDARD_ERRORS = 2.0
_DEAD_ZONE_MIN, _DEAD_ZONE_MAX = 0.02, 0.1
# How far outside the dead zone the difference of the accuracies has to be for a full step.
_AHEAD_FOR_FULL_STEP = 0.15
# To lower the strength, a smaller difference is enough. It is a median of five gaps, which is less
# noisy than a single difference, and which only a lasting gap changes.
_BEHIND_DEAD_ZONE_FACTOR, _BEHIND_FOR_FULL_STEP = 0.25, 0.04
# The smallest push (see ``_push``) if the validation loss rises while the train loss falls, and train
# accuracy is not below validation accuracy.
_PUSH_OF_DIVERGING_LOSSES = 0.5
# A full step multiplies the strength by exp(3.3 / epochs), within limits. All steps of a run of 10 to
# 110 epochs together allow a factor of exp(3.3) = 27, a little less than MAX_STRENGTH / MIN_STRENGTH.
_LOG_RANGE_PER_RUN, _LOG_STEP_MIN, _LOG_STEP_MAX = 3.3, 0.03, 0.35
# The standard deviation of a normal distribution is 1.4826 times its median absolute deviation (MAD).
_MAD_TO_DEVIATION = 1.4826


def next_strength(
    rows: Sequence[Mapping[str, float]], epochs: int, *, mixed: bool = False
) -> float:
    """The factor on every augmentation range in the epoch after ``rows``.

    The rule is a heuristic of this project; no number in it is learned from data. In the formulas, a is
    the train accuracy, v the validation accuracy, s the strength, and t the last epoch::

        gap[t]   = a[t] - (v[t-1] + v[t]) / 2     a is the mean over the epoch, v is from its end
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

    The rule has to tell memorization, which lasts for many epochs, from a single validation that is bad
    or good by chance, for example because of a high learning rate or inaccurate batch statistics. Such
    a validation affects only one epoch and two gaps. So the rule uses the best of three validations and
    the median of five gaps. The strength can rise after 3 epochs and fall after 6.

    ``noise`` estimates the standard deviation σ of a validation accuracy. If values scatter by σ around
    a line, their second differences have the standard deviation sqrt(6) σ, and 1.4826 turns the median
    of absolute values into a standard deviation. The mean of two validations scatters by σ / sqrt(2).
    In the first 3 epochs, σ is assumed to be 0.05.

    An epoch changes the strength by a factor of at most exp(0.35) = 1.42. The largest factor is 1.32 in
    a run of 12 epochs, and 1.03 in a run of 200 epochs. The strength is 1 in the first 3 epochs. It
    does not change after an epoch whose accuracies are unknown (NaN); later, this epoch is left out.

    The rule uses only whether the losses rise or fall, because label smoothing and mixed labels change
    their values. The losses have no effect while train accuracy is below validation accuracy.

    Args:
        rows: the epochs so far, as in history.csv, with the keys loss, accuracy, val_loss and
            val_accuracy. The current strength is ``augment_strength`` of the last row; it is 1 if this
            value is missing, infinite or not above 0.
        epochs: the planned number of epochs of the run.
        mixed: whether MixUp or CutMix is on. Train accuracy is then measured on mixed images, for which
            the class of the larger part counts, so it is usually below validation accuracy. Therefore
            the strength can rise, but never falls.

    Returns:
        A number from ``MIN_STRENGTH`` to ``MAX_STRENGTH``.

    Example:
        >>> row = {"loss": 0.1, "accuracy": 0.99, "val_loss": 0.9, "val_accuracy": 0.7}
        >>> next_strength([row] * 2, epochs=12)
        1.0
        >>> next_strength([row] * 3, epochs=12)
        1.3165
    """
    strength = _last_strength(rows)
    known = [row for row in rows if _has_accuracies(row)]
    if len(known) < _BEST_OF_VALIDATIONS or known[-1] is not rows[-1]:
        return strength
    push = _push(known)
    if mixed:
        push = max(push, 0.0)
    log_step = min(max(_LOG_RANGE_PER_RUN / max(epochs, 1), _LOG_STEP_MIN), _LOG_STEP_MAX)
    return _clip(strength * math.exp(log_step * push))


def _push(rows: Sequence[Mapping[str, float]]) -> float:
    """The change of the strength in full steps, from -1 (weaker) to 1 (stronger)."""
    validation = [row["val_accuracy"] for row in rows]
    dead_zone = _dead_zone(validation)
    ahead = rows[-1]["accuracy"] - max(validation[-_BEST_OF_VALIDATIONS:])
    behind, behind_dead_zone = _behind(rows), _BEHIND_DEAD_ZONE_FACTOR * dead_zone
    push = 0.0
    if ahead > dead_zone:
        push = min((ahead - dead_zone) / _AHEAD_FOR_FULL_STEP, 1.0)
    elif behind > behind_dead_zone:
        push = -min((behind - behind_dead_zone) / _BEHIND_FOR_FULL_STEP, 1.0)
    if push >= 0 and ahead >= 0 and _losses_diverge(rows[-_BEST_OF_VALIDATIONS:]):
        return max(push, _PUSH_OF_DIVERGING_LOSSES)
    return push


def _behind(rows: Sequence[Mapping[str, float]]) -> float:
    """By how much train accuracy is below validation accuracy (a median); 0 before 6 epochs."""
    gaps = [
        row["accuracy"] - (previous["val_accuracy"] + row["val_accuracy"]) / 2
        for previous, row in list(pairwise(rows))[-_MEDIAN_OF_GAPS:]
    ]
    return -statistics.median(gaps) if len(gaps) == _MEDIAN_OF_GAPS else 0.0


def _dead_zone(accuracies: Sequence[float]) -> float:
    """The largest difference of the accuracies that is ignored, because it may be due to chance."""
    last = accuracies[-_NOISE_EPOCHS:]
    second_differences = [
        abs(c - 2 * b + a) for a, b, c in zip(last, last[1:], last[2:], strict=False)
    ]
    noise = _NOISE_BEFORE_ESTIMATE
    if len(second_differences) > 1:
        noise = _MAD_TO_DEVIATION / math.sqrt(6) * statistics.median(second_differences)
    dead_zone = _DEAD_ZONE_STANDARD_ERRORS * noise / math.sqrt(2)
    return min(max(dead_zone, _DEAD_ZONE_MIN), _DEAD_ZONE_MAX)


def _losses_diverge(rows: Sequence[Mapping[str, float]]) -> bool:
    """Whether, from each epoch to the next, the train loss fell and the validation loss rose."""
    return all(
        row["loss"] < previous["loss"] and row["val_loss"] > previous["val_loss"]
        for previous, row in pairwise(rows)
    )


def _has_accuracies(row: Mapping[str, float]) -> bool:
    return math.isfinite(row["accuracy"]) and math.isfinite(row["val_accuracy"])


def _last_strength(rows: Sequence[Mapping[str, float]]) -> float:
    last = rows[-1].get("augment_strength", INITIAL_STRENGTH) if rows else INITIAL_STRENGTH
    return _clip(last) if math.isfinite(last) and last > 0 else INITIAL_STRENGTH


def _clip(strength: float) -> float:
    # Round, so that machines whose exp() differs in the last bit compute the same strength.
    return min(max(round(strength, 4), MIN_STRENGTH), MAX_STRENGTH)
