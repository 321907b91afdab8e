"""Finds the image that a cell of a table names, by a path in any form or by an id without suffix.

This module decodes no image and does not import TensorFlow.
"""

from __future__ import annotations

import os
import posixpath
import re
from urllib.parse import unquote

from seedtf.data.paths import Folder, RemotePath, is_file
from seedtf.data.walk import image_paths
from seedtf.errors import UserError
from seedtf.images.kinds import IMAGE_SUFFIXES

__all__ = ["FileFinder"]

_AMBIGUOUS = ""
_MAX_LEADING_FOLDERS = 64
_UPLOADED = re.compile(r"/upload/\d+/[0-9a-f]{8}-([^/]+)$")


class FileFinder:
    """Turns the cells of one table into paths below a folder.

    The first of these forms of a cell that names an existing file is used:

    1. the cell unchanged, or with the suffix of an image;
    2. the cell without its leading folders, which must be the same in all rows, unchanged or with the
       suffix of an image;
    3. if the cell has no folders, the only file below the folder with this name or stem;
    4. the cell without the prefix that Label Studio adds to names.

    At a URL, where each attempt would take a request, the cell is only normalized.

    Attributes:
        suffix: the suffix that was last appended to a cell; empty if none was.
        leading: the leading folders that were removed from the cells; empty if none.
        by_name: whether a file in a sub-folder was found by its name only.
        by_label_studio: whether a file was found by removing the prefix of Label Studio.

    Example:
        >>> from pathlib import Path
        >>> Path("photos").mkdir()
        >>> Path("photos/7.png").touch()
        >>> finder = FileFinder(Path("photos"))
        >>> finder.find("7"), finder.find("C:\\\\Users\\\\me\\\\photos\\\\7.png"), finder.describe()
        ('7.png', '7.png', ' + `.png` without the leading `C:/Users/me/photos/`')
    """

    def __init__(self, root: Folder, *, search: bool = True) -> None:
        """Reads nothing yet.

        Args:
            root: the folder of the images.
            search: whether to search all sub-folders for the name of a file.
        """
        self.suffix, self.leading, self.by_name, self.by_label_studio = "", "", False, False
        self._root = root
        self._index: dict[str, str] | None = None if search else {}
        self._absolute = "" if isinstance(root, RemotePath) else os.path.abspath(root) + "/"

    def describe(self) -> str:
        """How cells become paths, as a text to append to the name of the column of files."""
        text = f" + `{self.suffix}`" if self.suffix else ""
        text += f" without the leading `{self.leading}`" if self.leading else ""
        text += ", without the prefix of Label Studio" if self.by_label_studio else ""
        return text + (", found in sub-folders" if self.by_name else "")

    def is_file(self, cell: str) -> bool:
        """Whether ``cell`` names a file that exists, without a search of sub-folders.

        The attributes of this finder do not change. At a URL, the result is always False.
        """
        if isinstance(self._root, RemotePath) or not cell.strip():
            return False
        attempt = FileFinder(self._root, search=False)
        return self._exists(attempt.find(cell.strip()))

    def find(self, cell: str) -> str:
        """The path of the image relative to the folder, or the normalized cell if no image is found.

        Raises:
            UserError: several files have the name in the cell.
        """
        path = posixpath.normpath(cell)
        if isinstance(self._root, RemotePath):
            return path
        if path.startswith(self._absolute):
            path = path[len(self._absolute) :]
        if not os.path.isabs(path) and self._exists(path):
            return path
        slashed = posixpath.normpath(path.replace("\\", "/"))
        return (
            self._with_suffix(slashed)
            or self._without_leading(slashed)
            or self._by_file_name(slashed)
            or self._of_label_studio(slashed)
            or slashed
        )

    def _exists(self, path: str) -> bool:
        return is_file(os.path.join(self._root, path))

    def _with_suffix(self, path: str) -> str:
        """``path`` or, if it is no file, ``path`` with an image suffix; empty if neither is a file."""
        if _is_absolute(path):
            return ""
        if self._exists(path):
            return path
        for suffix in dict.fromkeys(
            (self.suffix, *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))
        ):
            if suffix and self._exists(path + suffix):
                self.suffix = suffix
                return path + suffix
        return ""

    def _without_leading(self, path: str) -> str:
        """``path`` without its leading folders, if this is a file; otherwise empty.

        The same folders are removed in all rows, because removing others might lead to a wrong file.
        """
        if self.leading:
            shorter = path.removeprefix(self.leading)
            return self._with_suffix(shorter) if shorter != path else ""
        start = 0
        for _ in range(_MAX_LEADING_FOLDERS):
            start = path.find("/", start) + 1
            if not start:
                break
            if result := self._with_suffix(path[start:]):
                self.leading = path[:start]
                return result
        return ""

    def _of_label_studio(self, path: str) -> str:
        """The file that a path in an export of Label Studio names; empty if there is none.

        Such a path is ``/data/upload/<project>/<8 hexadecimal digits>-<name>`` for an uploaded file,
        and ``/data/local-files/?d=<path>``, URL-encoded, for a file on the server's disk.
        """
        result = ""
        if "/local-files/?d=" in path:
            local = unquote(path.partition("/local-files/?d=")[2])
            result = self._with_suffix(local) or self._without_leading(local)
        elif match := _UPLOADED.search(path):
            name = unquote(match[1])
            result = self._with_suffix(name) or self._by_file_name(name)
        self.by_label_studio = self.by_label_studio or bool(result)
        return result

    def _by_file_name(self, path: str) -> str:
        """The path of the only file below the folder with this name or stem; empty if there is none."""
        if "/" in path or _is_absolute(path):
            return ""
        if self._index is None:
            self._index = self._index_names()
        result = self._index.get(path)
        if result == _AMBIGUOUS:
            raise UserError(
                f"several files below {self._root} are called {path!r}; give their paths in the table"
            )
        if result:
            self.by_name = True
        return result or ""

    def _index_names(self) -> dict[str, str]:
        """Maps the name and the stem of each image below the folder to its path.

        A name or stem of several images is mapped to ``_AMBIGUOUS``.
        """
        index: dict[str, str] = {}
        for path in image_paths(self._root):
            name = path.rpartition("/")[2]
            for key in {name, os.path.splitext(name)[0]}:  # one key for a name without suffix
                index[key] = _AMBIGUOUS if key in index else path
        return index


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or re.match("[A-Za-z]:/", path) is not None
