"""``--progressive_sizes``: the image sizes of a training, one stage after the other."""

from __future__ import annotations

from dataclasses import dataclass

from seedtf.errors import UserError

__all__ = ["Stage", "make_stages"]

_OFF, _AUTO = "off", "auto"
# sizes that ResNet-like networks halve without a remainder more often
_MULTIPLE = 16


@dataclass(frozen=True)
class Stage:
    """Epochs ``[first, last)``, counted from 0, that train on images of ``size``² pixels."""

    size: int
    first: int
    last: int


def make_stages(text: str, image_size: int, epochs: int, smallest: int) -> list[Stage]:
    """The stages that the flag means; together they cover all epochs, the last at ``image_size``.

    With n sizes named, each takes ``epochs / (n + 1)`` epochs, rounded. ``auto`` is two thirds of
    ``image_size``, rounded down to a multiple of 16, where that is no less than ``smallest``. A stage
    without an epoch is left out.

    Args:
        text: ``off``, ``auto``, or sizes in rising order with commas between.
        image_size: side of the full images, pixels.
        epochs: of the whole training.
        smallest: the least side that the network takes.

    Raises:
        UserError: no such list.
    """
    sizes = [*_parse(text, image_size, smallest), image_size]
    edges = [round(epochs * number / len(sizes)) for number in range(len(sizes) + 1)]
    stages = zip(sizes, edges, edges[1:], strict=False)
    return [Stage(*each) for each in stages if each[1] < each[2]]


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
