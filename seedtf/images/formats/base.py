"""``Header``, which every format's parser returns, and ``RefusedError``, which it may raise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Edit", "Header", "RefusedError", "apply_edits"]

Edit = tuple[int, int, bytes]
"""``(start, stop, replacement)``: the bytes ``[start, stop)`` of a file are replaced."""


class RefusedError(Exception):
    """The file cannot be used.

    Attributes:
        fault: a short fixed name of the reason, such as ``truncated``.
        detail: one line that describes what the file contains.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What a decoder needs to know about a file before it decodes it.

    Attributes:
        format: the kind of the file according to its first bytes, a key of ``images.kinds.SUFFIXES``.
        width, height: size in pixels as stored, before the orientation is applied.
        orientation: the EXIF orientation, 1 to 8; 1 is upright.
        has_alpha: whether TensorFlow decodes the file with an alpha channel, which seedtf uses to blend
            the image over white.
        edits: sorted replacements after which a decoder (TensorFlow, or Pillow for AVIF) returns what
            image viewers show. They leave one still image of an animation, make a GIF's transparent
            colour white, cut off bytes after the pixels, remove texts of a PNG, and mark a CMYK JPEG as
            inverted. The orientation is read before the edits are applied.
        needs_pillow: whether Pillow has to decode the file, because TensorFlow cannot.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    has_alpha: bool = False
    edits: tuple[Edit, ...] = field(default=(), repr=False)
    needs_pillow: bool = field(default=False, repr=False)

    @property
    def pixels(self) -> int:
        """Width × height."""
        return self.width * self.height

    @property
    def for_decoder(self) -> tuple[int, int, int, int]:
        """What ``images.decode`` needs: width, height, orientation and has_alpha."""
        return self.width, self.height, self.orientation, int(self.has_alpha)


def apply_edits(data: bytes, edits: tuple[Edit, ...]) -> bytes:
    """``data`` with the replacements of ``Header.edits``.

    Example:
        >>> apply_edits(b"abcdef", ((1, 2, b"XY"), (4, 6, b"")))
        b'aXYcd'
    """
    return b"".join(_parts(data, edits)) if edits else data


def _parts(data: bytes, edits: tuple[Edit, ...]) -> Iterator[bytes | memoryview]:
    view, position = memoryview(data), 0
    for start, stop, replacement in edits:
        yield view[position:start]
        yield replacement
        position = stop
    yield view[position:]
