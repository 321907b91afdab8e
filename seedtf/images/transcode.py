"""Converts an image file into bytes that TensorFlow decodes to the pixels that image viewers show.

A file that TensorFlow cannot decode is decoded by Pillow and becomes an uncompressed BMP: upright,
blended over white, 8 bits. Training, ``seedtf predict RUN`` and ``seedtf predict EXPORT`` all decode
these bytes, so they see the same pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from seedtf.compat.pillow import MissingDecoderError, open_image
from seedtf.images.formats.base import apply_edits
from seedtf.images.header import MAX_PIXELS, Header, RefusedError, check_size

__all__ = ["to_decodable"]

_STRIP_PIXELS = 1 << 20
_BMP_HEADER_BYTES = 54
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes for grey of 16 bits
_BITS_PER_SAMPLE = 258  # the number of a TIFF tag


def to_decodable(
    data: bytes, header: Header, max_pixels: int = MAX_PIXELS
) -> tuple[bytes, tuple[int, int, int, int]]:
    """Returns bytes that TensorFlow decodes instead of the file, and their ``Header.for_decoder``.

    Args:
        data: the whole file.
        header: the result of ``read_header`` for the file.
        max_pixels: the largest width × height that is decoded.

    Returns:
        The bytes of the file with ``Header.edits`` applied; most files have no edits. If
        ``header.needs_pillow``, the bytes of a BMP of the image instead. In the BMP, samples of 16 bits
        are reduced to their high byte, and floating-point numbers from 0 to 1 become 0 to 255.

    Raises:
        RefusedError: Pillow cannot decode the file, a decoder is not installed, the decoded image is
            too large, or the range of its samples is unknown.

    Example:
        >>> import io
        >>> from seedtf.images.header import read_header
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (640, 480)).save(file, "TIFF")
        >>> data, for_decoder = to_decodable(file.getvalue(), read_header(file.getvalue()))
        >>> data[:2], for_decoder
        (b'BM', (640, 480, 1, 0))
    """
    if not header.needs_pillow:
        return apply_edits(data, header.edits), header.for_decoder
    try:
        image = open_image(apply_edits(data, header.edits), header.format)
        check_size(*image.size, max_pixels)
        # In place, because a copy would lack the format and the tags that `_to_8_bits` reads.
        ImageOps.exif_transpose(image, in_place=True)
        image = _to_8_bits(image)
        width, height = image.size
        row_bytes = -(-3 * width // 4) * 4  # A row of a BMP is padded to a multiple of 4 bytes.
        size = _BMP_HEADER_BYTES + row_bytes * height
        file_header = struct.pack("<2sIHHI", b"BM", size & 0xFFFFFFFF, 0, 0, _BMP_HEADER_BYTES)
        # The negative height says that the top row comes first.
        bitmap_header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
        strips = list(_bgr_strips(image, row_bytes))
    except RefusedError:
        raise
    except MissingDecoderError as error:
        raise RefusedError("unsupported variant", str(error)) from None
    except MemoryError:
        raise RefusedError("too large", "out of memory") from None
    except Exception as error:  # Pillow raises many types of errors for damaged files.
        message = " ".join(str(error).split())[:100] or type(error).__name__
        raise RefusedError("corrupt", f"{header.format}: {message}") from None
    del image  # Free its memory before the strips are joined.
    return b"".join([file_header, bitmap_header, *strips]), (width, height, 1, 0)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Decodes ``image`` and reduces its samples to 8 bits."""
    if image.mode in _GREY_16:
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 16)
        shift = max((bits[0] if isinstance(bits, tuple) else bits) - 8, 0)
        return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8))
    if image.mode == "I" and image.format == "PPM":  # samples of 16 bits, stored in 32
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:
            raise RefusedError(
                "unsupported variant",
                f"floating-point numbers from {low:g} to {high:g}; scale them to the range 0 to 1, "
                "or save 16 bits",
            )
        return Image.fromarray(np.round(255 * values).astype(np.uint8))
    if image.mode == "I":
        detail = "integers of 32 bits, or with a sign; save them as 8 or 16 bits without a sign"
        raise RefusedError("unsupported variant", detail)
    image.load()
    return image


def _bgr_strips(image: Image.Image, row_bytes: int) -> Iterator[bytes]:
    """Yields the rows of a BMP, blended over white, in strips of about a million pixels."""
    width, height = image.size
    is_transparent = (
        image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    )
    rows = max(_STRIP_PIXELS // width, 1)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        if is_transparent:
            strip = _over_white(strip.convert("RGBA"))
        elif strip.mode != "RGB":
            strip = strip.convert("RGB")
        yield strip.tobytes("raw", "BGR", row_bytes, 1)


def _over_white(image: Image.Image) -> Image.Image:
    """Blends RGBA over white, with the same rounding as ``images.decode``."""
    pixels = np.asarray(image).astype(np.uint16)
    darkening = pixels[..., 3:] * (255 - pixels[..., :3]) + 128
    darkening += darkening >> 8
    return Image.fromarray((255 - (darkening >> 8)).astype(np.uint8))
