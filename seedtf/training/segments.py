"""Splits a run into ``fit`` calls: a new one where image size, trained layers or batches change.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seedtf.errors import UserError

__all__ = ["Segment", "SizeStage", "parse_size_stages", "plan_segments"]

_OFF, _AUTO = "off", "auto"
# ResNet-like networks can halve a multiple of 16 four times without a remainder.
_MULTIPLE = 16


@dataclass(frozen=True)
class SizeStage:
    """Epochs ``[first, end)``, counted from 0, that train on images of ``size``² pixels."""

    size: int
    first: int
    end: int


@dataclass(frozen=True)
class Segment:
    """One call of ``fit``.

    Attributes:
        first_epoch, end_epoch: epochs ``[first, end)``, counted from 0.
        start_step: steps of the first epoch that are already done.
        image_size: side of the training images in pixels.
        train_body: whether all layers train, or the head alone.
        phase_start: first epoch of the phase (head alone, or everything). Each phase has its own
            optimizer, created when its first segment starts.
        restore: what a resumed run restores first: ``optimizer``, ``metrics`` or both.
    """

    first_epoch: int
    end_epoch: int
    start_step: int
    image_size: int
    train_body: bool
    phase_start: int
    restore: tuple[str, ...] = ()


def parse_size_stages(text: str, image_size: int, epochs: int, smallest: int) -> list[SizeStage]:
    """The stages that ``--progressive_sizes=text`` describes; the last one is at ``image_size``.

    With n sizes named, each takes ``epochs / (n + 1)`` epochs, rounded. ``auto`` is one
    smaller stage at two thirds of ``image_size``, rounded down to a multiple of 16, or none if that is
    below ``smallest``. A stage that would have no epoch is left out; the stages cover all epochs.

    Args:
        text: ``off``, ``auto``, or sizes in rising order, separated by commas.
        image_size: side of the full images, pixels.
        epochs: length of the whole training.
        smallest: the least side that the network accepts.

    Raises:
        UserError: ``text`` is none of these.

    Example:
        >>> parse_size_stages("32,40", 48, 12, smallest=32)[0]
        SizeStage(size=32, first=0, end=4)
    """
    sizes = [*_parse(text, image_size, smallest), image_size]
    # The last epoch always has the full size, however few epochs there are.
    edges = [min(round(epochs * n / len(sizes)), epochs - 1) for n in range(len(sizes))]
    stages = zip(sizes, edges, [*edges[1:], epochs], strict=True)
    return [SizeStage(*stage) for stage in stages if stage[1] < stage[2]]


def plan_segments(
    stages: Sequence[SizeStage],
    *,
    epochs: int,
    freeze_epochs: int = 0,
    every_epoch: bool = False,
    epoch: int = 0,
    step: int = 0,
) -> list[Segment]:
    """The ``fit`` calls that remain of a run, in order.

    A segment ends where the image size changes, where the body starts to train, after the rest of an
    interrupted epoch, and, with ``every_epoch``, after each epoch.

    Args:
        stages: from ``parse_size_stages``.
        epochs: length of the whole training.
        freeze_epochs: epochs at the start that train the head alone.
        every_epoch: whether to end a segment after every epoch, because batches prepared ahead would
            have the augmentation strength of the epoch before.
        epoch: epochs that a restored state has completed; 0 for a new run.
        step: steps that it has completed of the next epoch.

    Example:
        >>> whole, = plan_segments([SizeStage(64, 0, 5)], epochs=5)
        >>> whole.first_epoch, whole.end_epoch, whole.train_body
        (0, 5, True)
    """
    segments: list[Segment] = []
    for start, end, train_body in ((0, freeze_epochs, False), (freeze_epochs, epochs, True)):
        if start >= end or epoch >= end:
            continue
        # A state from the very start of a phase has the optimizer of the previous phase: do not
        # restore it.
        inside = (epoch, step) > (start, 0)
        cuts = _cuts(max(start, epoch), end, step if inside else 0, stages, every_epoch)
        for first, stop, start_step, size in cuts:
            restore = _what_to_restore(inside and (first, start_step) == (epoch, step), start_step)
            segments.append(Segment(first, stop, start_step, size, train_body, start, restore))
    return segments


def _cuts(
    start: int, end: int, step: int, stages: Sequence[SizeStage], every_epoch: bool
) -> Iterator[tuple[int, int, int, int]]:
    """First epoch, end epoch, first step and image size of each segment of one phase."""
    if step:
        size = next(stage.size for stage in stages if stage.first <= start < stage.end)
        yield start, start + 1, step, size
        start += 1
    for stage in stages:
        first, stop = max(start, stage.first), min(end, stage.end)
        length = 1 if every_epoch else max(stop - first, 1)
        for begin in range(first, stop, length):
            yield begin, begin + length, 0, stage.size


def _what_to_restore(resumed: bool, start_step: int) -> tuple[str, ...]:
    if not resumed:
        return ()
    return ("optimizer", "metrics") if start_step else ("optimizer",)


def _parse(text: str, image_size: int, smallest: int) -> list[int]:
    if text == _OFF:
        return []
    if text == _AUTO:
        size = image_size * 2 // 3 // _MULTIPLE * _MULTIPLE
        return [size] if size >= smallest else []
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--progressive_sizes={text}: pass sizes such as 32,40, or auto, or off"
        ) from None
    if sizes != sorted(set(sizes)) or sizes[-1] >= image_size or sizes[0] < smallest:
        raise UserError(
            f"--progressive_sizes={text}: pass rising sizes from {smallest} to below "
            f"--image_size={image_size}"
        )
    return sizes
