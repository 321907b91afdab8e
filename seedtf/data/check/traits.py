"""What is unusual about a file that decodes: worth a line in a report, no reason to leave it out."""

from __future__ import annotations

import struct
import unicodedata
from pathlib import PurePosixPath

from seedtf.images.header import Header, gif_frames, jpeg_segments

__all__ = ["image_traits", "looks_like", "name_traits"]

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe"),
    "png": (".png",),
    "gif": (".gif",),
    "bmp": (".bmp",),
    "webp": (".webp",),
}
_TINY_SIDE = 32
_MOST_ASPECT = 4
_LONG_NAME_BYTES = 200
# magic bytes and what they mean; the third is where they stand
_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer: run git lfs pull", 0),
    (b"ftyp", "HEIF or AVIF: save it as JPEG or PNG", 4),
    (b"II*\0", "TIFF: save it as PNG", 0),
    (b"MM\0*", "TIFF: save it as PNG", 0),
    (b"%PDF", "PDF", 0),
    (b"PK\x03\x04", "a ZIP archive", 0),
    (b"<svg", "SVG: save it as PNG", 0),
    (b"\0\x05\x16\x07", "macOS metadata without the image", 0),
)


def image_traits(path: str, data: bytes, header: Header) -> list[tuple[str, str]]:
    """Short fixed names and details, for a file that ``read_header`` accepts."""
    traits = {"jpeg": _jpeg, "png": _png, "gif": _gif}.get(header.format, _other)(data)
    if header.format not in ("jpeg", "png"):
        traits.append((header.format, "decoded; only JPEG and PNG are common"))
    if header.has_alpha:
        traits.append(("alpha", "laid over white"))
    if header.orientation != 1:
        traits.append(("EXIF orientation", f"{header.orientation}; turned upright"))
    if PurePosixPath(path).suffix.lower() not in _SUFFIXES[header.format]:
        traits.append(("wrong suffix", f"holds {header.format}"))
    size = f"{header.width}×{header.height} pixels"
    if min(header.width, header.height) < _TINY_SIDE:
        traits.append(("tiny", size))
    if max(header.width, header.height) > _MOST_ASPECT * min(header.width, header.height):
        traits.append(("extreme aspect", size))
    return traits


def name_traits(name: str) -> list[tuple[str, str]]:
    """What may trouble other tools in the name of one file or folder."""
    traits = []
    if len(name.encode("utf-8", "surrogateescape")) > _LONG_NAME_BYTES:
        traits.append(("long name", f"more than {_LONG_NAME_BYTES} bytes"))
    if not name.isprintable() or name != name.strip():
        traits.append(("odd name", f"{name!r} has spaces at an end or invisible characters"))
    elif name != unicodedata.normalize("NFC", name):
        traits.append(("odd name", "accents as separate characters: other systems spell it anew"))
    elif not name.isascii():
        traits.append(("unicode name", "used as it is"))
    return traits


def looks_like(data: bytes) -> str:
    """What a file that is no image seems to be; empty when that cannot be said."""
    for magic, kind, position in _OTHER_KINDS:
        if data.startswith(magic, position):
            return kind
    start = data[:1024].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    try:
        words = data[:1024].decode("ascii").split()
    except UnicodeDecodeError:
        return ""
    return "text" if words and "".join(words).isprintable() else ""


def _jpeg(data: bytes) -> list[tuple[str, str]]:
    components, transform = 3, -1
    try:
        for marker, position, _ in jpeg_segments(data):
            if marker == 0xEE and data[position + 2 : position + 7] == b"Adobe":
                transform = data[position + 13]
            if 0xC0 <= marker <= 0xC2:
                components = data[position + 7]
    except (IndexError, struct.error):
        pass
    if components == 4:
        return [("YCCK" if transform == 2 else "CMYK", "converted to RGB")]
    return [("grey", "the three channels are equal")] if components == 1 else []


def _png(data: bytes) -> list[tuple[str, str]]:
    depth, color_type = data[24], data[25]
    traits = []
    if depth == 16:
        traits.append(("16-bit", "the high byte of each sample is used"))
    if color_type == 3:
        traits.append(("palette", "colours looked up"))
    if color_type in (0, 4):
        traits.append(("grey", "the three channels are equal"))
    return traits


def _gif(data: bytes) -> list[tuple[str, str]]:
    frames = sum(1 for _ in gif_frames(data))
    return [("animated", f"the first of {frames} frames is used")] if frames > 1 else []


def _other(data: bytes) -> list[tuple[str, str]]:
    return []
