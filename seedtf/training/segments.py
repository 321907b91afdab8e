"""Divides the epochs of a run into stages of one image size, and the run into segments (``fit`` calls).

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
    """The epochs ``first`` to ``end - 1``, counted from 0, which train on ``size``² pixels."""

    size: int
    first: int
    end: int


@dataclass(frozen=True)
class Segment:
    """One call of ``fit``.

    Attributes:
        first_epoch: the first epoch, counted from 0.
        end_epoch: the last epoch plus 1.
        start_step: the number of steps of the first epoch that an earlier process has trained.
        image_size: side of the training images in pixels.
        train_body: whether all layers are trained; otherwise the head alone.
        phase_start: the first epoch of the phase to which this segment belongs. A run has at most two
            phases: first the head alone is trained, then all layers. Each phase has an optimizer of its
            own, created when its first segment starts.
        restore: what this ``fit`` restores from a saved state: nothing, ``optimizer``, or ``optimizer``
            and ``metrics`` if this ``fit`` continues an interrupted epoch.
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

    If ``text`` has n sizes, each of them, and ``image_size`` after them, gets ``epochs / (n + 1)``
    epochs, rounded. ``auto`` stands for one size: two thirds of ``image_size``, rounded down to a
    multiple of 16. If this size is below ``smallest``, ``auto`` means ``off``. A stage without an epoch
    is left out.

    Args:
        text: ``off``, ``auto``, or sizes in rising order, separated by commas.
        image_size: side of the full images in pixels.
        epochs: number of epochs of the whole training.
        smallest: the smallest allowed side in pixels.

    Raises:
        UserError: ``text`` has another form, or its sizes do not rise or are too small or too large.

    Example:
        >>> parse_size_stages("32,40", 48, 12, smallest=32)[0]
        SizeStage(size=32, first=0, end=4)
    """
    sizes = [*_parse_sizes(text, image_size, smallest), image_size]
    # `epochs - 1`, because the last epoch has the full size even if there are few epochs.
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
        epochs: number of epochs of the whole training.
        freeze_epochs: number of epochs at the start that train the head alone.
        every_epoch: whether a segment ends after every epoch; see ``Plan.restarts_every_epoch``.
        epoch: number of completed epochs in the state of a resumed run; 0 for a new run.
        step: number of completed steps in the epoch after these, in the same state; 0 for a new run.

    Example:
        >>> whole, = plan_segments([SizeStage(64, 0, 5)], epochs=5)
        >>> whole.first_epoch, whole.end_epoch, whole.train_body
        (0, 5, True)
    """
    segments: list[Segment] = []
    for start, end, train_body in ((0, freeze_epochs, False), (freeze_epochs, epochs, True)):
        if start >= end or epoch >= end:
            continue
        # A state between two phases holds the optimizer of the first phase. The second phase has a new
        # optimizer, so nothing is restored then.
        is_resumed = (epoch, step) > (start, 0)
        parts = _split_phase(max(start, epoch), end, step if is_resumed else 0, stages, every_epoch)
        for first, stop, start_step, size in parts:
            is_first = is_resumed and (first, start_step) == (epoch, step)
            restore = _what_to_restore(is_first, start_step)
            segments.append(Segment(first, stop, start_step, size, train_body, start, restore))
    return segments


def _split_phase(
    start: int, end: int, step: int, stages: Sequence[SizeStage], every_epoch: bool
) -> Iterator[tuple[int, int, int, int]]:
    """The first epoch, end epoch, start step and image size of each segment from ``start`` on."""
    if step:
        size = next(stage.size for stage in stages if stage.first <= start < stage.end)
        yield start, start + 1, step, size
        start += 1
    for stage in stages:
        first, stop = max(start, stage.first), min(end, stage.end)
        length = 1 if every_epoch else max(stop - first, 1)
        for begin in range(first, stop, length):
            yield begin, begin + length, 0, stage.size


def _what_to_restore(is_resumed: bool, start_step: int) -> tuple[str, ...]:
    if not is_resumed:
        return ()
    return ("optimizer", "metrics") if start_step else ("optimizer",)


def _parse_sizes(text: str, image_size: int, smallest: int) -> list[int]:
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
