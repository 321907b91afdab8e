"""Paths of packed folders and of the images in them, by which ``data/paths.py`` opens the images.

``seedtf pack`` writes packed folders. This module does not import TensorFlow.
"""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from seedtf.data.pack.reader import META, Pack

__all__ = ["PackedPath", "find_packed", "is_pack", "open_pack"]


@dataclass(frozen=True)
class PackedPath(os.PathLike):
    """A packed folder, or an image in one, with the methods of ``pathlib.Path`` that seedtf uses.

    Attributes:
        pack: the opened packed folder.
        root: the path of the packed folder, as the user named it; absolute after ``resolve``.
        name: the name of an image in the packed folder; empty for the folder itself.
    """

    pack: Pack
    root: str
    name: str = ""

    def __str__(self) -> str:
        return os.path.join(self.root, self.name) if self.name else self.root

    def __fspath__(self) -> str:
        return str(self)

    def __truediv__(self, name: str) -> PackedPath:
        return PackedPath(self.pack, self.root, f"{self.name}/{name}" if self.name else name)

    @property
    def parent(self) -> Path:
        """The folder that contains this image or folder."""
        return Path(self).parent

    def resolve(self) -> PackedPath:
        """The same image or folder with an absolute path."""
        return PackedPath(self.pack, self.pack.folder, self.name)

    def is_dir(self) -> bool:
        """Whether this is the packed folder itself."""
        return not self.name

    def exists(self) -> bool:
        """Whether this is the packed folder, or an image that is in it."""
        return not self.name or self._found_index >= 0

    def size(self) -> int:
        """The size of the image file in bytes. Raises FileNotFoundError."""
        return int(self.pack.sizes[self._index()])

    def read_bytes(self) -> bytes:
        """The bytes of the image file.

        Raises:
            FileNotFoundError: there is no such image in the packed folder.
            UserError: the packed folder is damaged.
        """
        return self.pack.read(self._index())

    @functools.cached_property
    def _found_index(self) -> int:
        """The index of the image in the pack, or -1."""
        return self.pack.find(self.name)

    def _index(self) -> int:
        if self._found_index < 0:
            raise FileNotFoundError(2, "no such image in the pack", str(self))
        return self._found_index


# The opened packs. The keys, which end with a slash, are the given path and the real path of a folder.
_opened: dict[str, Pack] = {}
_opened_lock = threading.Lock()


def is_pack(folder: str) -> bool:
    """Whether ``folder`` is a local folder that ``seedtf pack`` wrote."""
    return os.path.isfile(os.path.join(folder, META))


def open_pack(folder: str) -> Pack:
    """The pack in ``folder``, which a process reads only once unless the pack is replaced.

    Raises:
        UserError: for the reasons of ``Pack``.
    """
    real = os.path.realpath(folder)
    with _opened_lock:
        pack = _opened.get(os.path.join(real, ""))
        if pack is None or pack.mtime_ns != os.stat(os.path.join(real, META)).st_mtime_ns:
            pack = Pack(real)
        _opened[os.path.join(real, "")] = _opened[os.path.join(folder, "")] = pack
    return pack


def find_packed(path: str) -> PackedPath | None:
    """The image of a packed folder that ``path`` names; None if there is no such image.

    Raises:
        UserError: for the reasons of ``Pack``.
    """
    for prefix, pack in list(_opened.items()):
        if path.startswith(prefix):
            found = PackedPath(pack, prefix[:-1], path[len(prefix) :])
            return found if found.exists() else None
    folder = os.path.dirname(path)
    while folder and not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    if not folder or not is_pack(folder):
        return None
    found = PackedPath(open_pack(folder), folder, os.path.relpath(path, folder))
    return found if found.exists() else None
