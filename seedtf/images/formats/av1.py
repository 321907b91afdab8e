"""Reads the frame size from AV1 data (AV1 bitstream specification, sections 5.3 to 5.5)."""

from __future__ import annotations

from seedtf.images.formats.base import RefusedError

__all__ = ["largest_frame"]

_SEQUENCE_HEADER = 1
_MAX_LEB128_BYTES = 8
# At most this many bytes of a sequence header are parsed; the fields up to the frame size take fewer.
_MAX_HEADER_BYTES = 1024


def largest_frame(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Width and height of the largest frame that the sequence headers between two positions declare.

    Raises:
        RefusedError: the length of a part (open bitstream unit, OBU) is damaged.
        IndexError: the file ends inside the data.
    """
    largest = (0, 0)
    while start < end:
        header = data[start]
        start += 2 if header & 4 else 1  # The flag 4 announces a second byte of the header.
        length = end - start
        if header & 2:  # The part has a length; a part without a length reaches to `end`.
            length, start = _read_leb128(data, start)
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            size = _sequence_size(_Bits(data[start : start + min(length, _MAX_HEADER_BYTES)]))
            largest = max(largest, size, key=lambda size: size[0] * size[1])
        start += length
    return largest


class _Bits:
    """Reads unsigned integers of any number of bits; after the end of the data, the bits are 0."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & (1 << count) - 1


def _read_leb128(data: bytes, start: int) -> tuple[int, int]:
    """A number that is stored in groups of seven bits (LEB128), and the position after it."""
    value = 0
    for place in range(_MAX_LEB128_BYTES):
        byte = data[start + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, start + place + 1
    raise RefusedError("corrupt", "AV1 data with a length of over 8 bytes")


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    """The largest width and height that a sequence header allows."""
    bits.read(4)  # profile, and whether it is a still image
    if bits.read(1):  # a still image has a short header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    """Skips the fields that describe timing and operating points."""
    delay_bits = 0
    if bits.read(1):  # timing
        bits.read(64)
        if bits.read(1):
            _skip_uvlc(bits)
        if bits.read(1):  # model of the decoder
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_delay and bits.read(1):
            bits.read(4)


def _skip_uvlc(bits: _Bits) -> None:
    """Skips a number of variable length (uvlc): n zeros, a one, and n more bits."""
    num_zeros = 0
    while not bits.read(1) and num_zeros < 32:
        num_zeros += 1
    bits.read(num_zeros)
