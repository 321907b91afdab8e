"""Finds unusual properties (*traits*) of file names, and of images that training can use.

The module also guesses the kind of files that are not images.
"""

from __future__ import annotations

import io
import unicodedata
from pathlib import PurePosixPath

from PIL.JpegImagePlugin import JpegImageFile

from seedtf.images.formats.gif import gif_frames
from seedtf.images.header import Header
from seedtf.images.kinds import SUFFIXES

__all__ = ["image_traits", "looks_like", "name_traits"]

_MIN_SIDE = 32
_MAX_ASPECT = 4
_MAX_NAME_BYTES = 200
# Magic bytes, the kind of file that has them, and their offset in bytes. HEIC and AVIF files also have
# ``ftyp``, but are not looked up here, because ``images.kinds.sniff`` recognises them as images.
_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer: run git lfs pull", 0),
    (b"ftyp", "a video (MP4, MOV) or a similar file", 4),
    (b"%PDF", "PDF", 0),
    (b"PK\x03\x04", "a ZIP archive", 0),
    (b"<svg", "SVG: save it as PNG", 0),
    (b"\0\x05\x16\x07", "macOS metadata without the image", 0),
)


def image_traits(path: str, data: bytes, header: Header) -> list[tuple[str, str]]:
    """Unusual properties of a file that ``read_header`` accepts.

    Args:
        path: the path of the file, whose suffix is compared with its format.
        data: the whole file.
        header: the result of ``read_header``.

    Returns:
        A short fixed name and a detail for each property.
    """
    traits: list[tuple[str, str]] = []
    if header.format in _TRAITS_OF_FORMAT:
        traits = _TRAITS_OF_FORMAT[header.format](data)
    if header.format not in ("jpeg", "png"):
        traits.append((header.format, "decoded; only JPEG and PNG are common"))
    if header.has_alpha:
        traits.append(("alpha", "blended over white"))
    if header.orientation != 1:
        traits.append(("EXIF orientation", f"{header.orientation}; turned upright"))
    if PurePosixPath(path).suffix.lower() not in SUFFIXES[header.format]:
        traits.append(("wrong suffix", f"holds {header.format}"))
    size = f"{header.width}×{header.height} pixels"
    if min(header.width, header.height) < _MIN_SIDE:
        traits.append(("tiny", size))
    if max(header.width, header.height) > _MAX_ASPECT * min(header.width, header.height):
        traits.append(("extreme aspect", size))
    return traits


def name_traits(name: str) -> list[tuple[str, str]]:
    """Unusual properties of the name of a file or folder that may be a problem for other programs.

    Returns:
        A short fixed name and a detail for each property.

    Example:
        >>> name_traits(" oak.jpg")
        [('odd name', "' oak.jpg' has spaces at an end or invisible characters")]
    """
    traits = []
    if len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES:
        traits.append(("long name", f"more than {_MAX_NAME_BYTES} bytes"))
    if not name.isprintable() or name != name.strip():
        traits.append(("odd name", f"{name!r} has spaces at an end or invisible characters"))
    elif name != unicodedata.normalize("NFC", name):
        traits.append(
            ("odd name", "accents as separate characters: other systems may normalize the name")
        )
    elif not name.isascii():
        traits.append(("unicode name", "used as it is"))
    return traits


def looks_like(data: bytes) -> str:
    """The probable kind of a file that is not an image; empty if the kind is unknown.

    Example:
        >>> looks_like(b"%PDF-1.7")
        'PDF'
    """
    for magic, kind, offset in _OTHER_KINDS:
        if data.startswith(magic, offset):
            return kind
    start = data[:1024].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    try:
        words = data[:1024].decode("ascii").split()
    except UnicodeDecodeError:
        return ""
    return "text" if words and "".join(words).isprintable() else ""


def _jpeg_traits(data: bytes) -> list[tuple[str, str]]:
    try:
        # This reads only the header. Image.open would refuse an image with more pixels than Pillow's
        # limit.
        image = JpegImageFile(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError):  # Pillow rejects some files that TensorFlow decodes.
        return []
    if image.mode == "CMYK":
        is_ycck = image.info.get("adobe_transform") == 2
        return [("YCCK" if is_ycck else "CMYK", "converted to RGB")]
    return [("grey", "the three channels are equal")] if image.mode == "L" else []


def _png_traits(data: bytes) -> list[tuple[str, str]]:
    # The bytes of the header are read, because Pillow's mode is RGB for both 8 and 16 bits.
    depth, color_type = data[24], data[25]
    traits = []
    if depth == 16:
        traits.append(("16-bit", "the high byte of each sample is used"))
    if color_type == 3:
        traits.append(("palette", "colours looked up"))
    if color_type in (0, 4):
        traits.append(("grey", "the three channels are equal"))
    return traits


def _gif_traits(data: bytes) -> list[tuple[str, str]]:
    frames = sum(1 for _ in gif_frames(data))
    return [("animated", f"the first of {frames} frames is used")] if frames > 1 else []


_TRAITS_OF_FORMAT = {"jpeg": _jpeg_traits, "png": _png_traits, "gif": _gif_traits}
