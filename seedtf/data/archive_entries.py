"""Lists the entries of a ZIP or tar archive, and says which must not be unpacked and why.

This module does not import TensorFlow.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

__all__ = ["DAMAGED", "ArchiveEntry", "archive_kind", "tar_entries", "zip_entries"]

# Headers of a tar archive with more bytes than this are refused. They contain file names, none of which
# is as long.
_MAX_TAR_READ = 4 << 20
_BLOCK_BYTES = 512  # size of a block of a tar archive

_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZIP, _EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError),
    # These are raised for an unknown compression, a name that is not UTF-8, or a number out of range:
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
"""The errors that the standard library raises for damaged archives and unknown compressions."""


@dataclass(frozen=True)
class ArchiveEntry:
    """A file or folder of an archive.

    Attributes:
        name: the path in the archive.
        parts: the folders and the name of which the path consists; empty for the root.
        size: the unpacked size in bytes.
        is_folder: whether the entry is a folder.
        refusal: why the entry must not be unpacked, such as ``is a link``; empty if it may be.
        open: opens the file for reading.
    """

    name: str
    parts: tuple[str, ...]
    size: int
    is_folder: bool
    refusal: str
    open: Callable[[], IO[bytes]]


def archive_kind(head: bytes) -> str:
    """The kind of a file with these first 512 bytes: ``zip``, ``tar``, or empty if it is no archive.

    Example:
        >>> archive_kind(b"PK\\x03\\x04"), archive_kind(b"\\x1f\\x8b"), archive_kind(b"\\xff\\xd8")
        ('zip', 'tar', '')
    """
    if head.startswith((_ZIP, _EMPTY_ZIP)):
        return "zip"
    is_tar = head[257:262] == b"ustar" or head.startswith(tuple(_COMPRESSED))
    return "tar" if is_tar else ""


def zip_entries(file: BinaryIO) -> Iterator[ArchiveEntry]:
    """Yields the entries of a ZIP archive. Raises the errors in ``DAMAGED``."""
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        name = _zip_name(info)
        kind = stat.S_IFMT(info.external_attr >> 16)
        refusal = _name_refusal(name)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refusal = "is a link" if kind == stat.S_IFLNK else "is no file"
        elif info.flag_bits & 1:
            refusal = "is encrypted"
        is_folder = name.endswith("/") or kind == stat.S_IFDIR
        opener = functools.partial(archive.open, info)
        yield ArchiveEntry(name, _parts(name), info.file_size, is_folder, refusal, opener)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The path of an entry, with slashes.

    A name without a declared encoding is read as UTF-8 (as macOS writes it). If it is not valid UTF-8,
    it is read in code page 437 (DOS).
    """
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def tar_entries(file: BinaryIO) -> Iterator[ArchiveEntry]:
    """Yields the entries of a tar archive, in their order. Raises the errors in ``DAMAGED``.

    The file of an entry must be read before the next entry is requested, because the archive is read
    only once.
    """
    head = file.read(8)
    file.seek(0)
    openers = (opener for magic, opener in _COMPRESSED.items() if head.startswith(magic))
    stream = next(openers, lambda plain: plain)(file)
    bounded: Any = _ForwardStream(stream)
    archive: Any
    with tarfile.open(
        fileobj=bounded, mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # Otherwise tarfile would keep all members in memory.
            refusal = _name_refusal(member.name)
            if member.issym() or member.islnk():
                refusal = "is a link"
            elif not (member.isfile() or member.isdir()):
                refusal = "is no file"
            opener = functools.partial(_open_member, archive, member)
            parts = _parts(member.name)
            yield ArchiveEntry(member.name, parts, member.size, member.isdir(), refusal, opener)


def _open_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    return file


class _ForwardStream:
    """A stream for tarfile that limits the size of a read, and seeks back by at most one block.

    To seek further back, the archive would have to be decompressed again from its beginning. Reads are
    limited because tarfile reads a whole header at once, and a hostile archive can claim that a header
    has any size.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._end = 0  # How many bytes of the stream have been read.
        self._kept = b""  # The last bytes that were read, for seeking back.
        self._position = 0

    def tell(self) -> int:
        """The position of the next byte to read."""
        return self._position

    def seek(self, position: int) -> int:
        """Moves to a position. Raises TarError if it is too far back or after the end of the data."""
        if position < self._end - len(self._kept):
            raise tarfile.ReadError("entries are out of order")
        self._position = min(position, self._end)
        while self._position < position:
            if not self.read(min(position - self._position, _MAX_TAR_READ)):
                raise tarfile.ReadError("unexpected end of data")
        return position

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``. Raises TarError if no header can have ``size`` bytes."""
        if not 0 <= size <= _MAX_TAR_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        start = len(self._kept) - (self._end - self._position)
        kept = self._kept[start : start + size]
        new = self._stream.read(size - len(kept)) if len(kept) < size else b""
        self._end += len(new)
        self._position += len(kept) + len(new)
        self._kept = (self._kept + new)[-_BLOCK_BYTES:]
        return kept + new


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _name_refusal(name: str) -> str:
    """Why an entry with this name must not be unpacked; empty if it may be."""
    parts = name.split("/")
    if "\0" in name:
        return "has a name with a zero byte"
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in parts:
        return "lies outside the archive"
    if len(name) > 1000 or any(
        len(part.encode("utf-8", "surrogateescape")) > 250 for part in parts
    ):
        return "has too long a name"
    return ""
