"""Reads the images of a packed folder: ArrayRecord shards, with an index of names, labels and sizes.

``seedtf pack`` writes such a folder. This module does not import TensorFlow.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import importlib
import itertools
import json
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from seedtf.data.string_array import NameFinder, StringArray
from seedtf.errors import UserError, first_line

__all__ = ["FORMAT", "INDEX", "INDEX_COLUMNS", "LEFT_OUT", "META", "Pack", "import_array_record"]

FORMAT = 1
"""Version of the format; ``Pack`` reads only this version."""
META, INDEX, LEFT_OUT = "pack.json", "index.csv", "left_out.csv"
INDEX_COLUMNS = ["path", "label", "split", "bytes"]
_MAX_OPEN_SHARDS = 128
# These options are for reading single records; array-record's defaults are for reading all in order.
_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"


class Pack:
    """The images of a packed folder.

    No pixels are kept in memory: each image takes the length of its name plus about 40 bytes.

    Attributes:
        folder: the absolute path of the folder.
        class_names: the names of the K classes, in the order of the labels.
        names: the names of the N images, in the order of the source.
        labels: int32 ``[N]``, indices into ``class_names``.
        sides: the side of each image, ``train``, ``val`` or ``test``; None if the source has no split.
        sizes: int64 ``[N]``, the size of each image file in bytes.
        left_out: path, fault and detail of each file of the source that is not in the pack.
        mtime_ns: the modification time of pack.json, in ns.
    """

    def __init__(self, folder: str) -> None:
        """Reads the tables and checks their checksums and the sizes of the shards; reads no image.

        Raises:
            UserError: a file is missing, damaged or of another format; two images have the same name,
                as in some packs of earlier versions; or array-record is not installed.
        """
        self.folder = folder
        meta_path = os.path.join(folder, META)
        self.mtime_ns = os.stat(meta_path).st_mtime_ns
        meta = _read_meta(meta_path)
        try:
            self.class_names = tuple(map(str, meta["classes"]))
            self._shards = [str(shard["file"]) for shard in meta["shards"]]
            counts = [int(shard["images"]) for shard in meta["shards"]]
            sizes = [int(shard["bytes"]) for shard in meta["shards"]]
            index_digest, left_out_digest = meta["index_sha256"], meta["left_out_sha256"]
        except KeyError as error:
            raise _damaged(meta_path, f"there is no {error}") from None
        except (TypeError, ValueError) as error:
            raise _damaged(meta_path, first_line(error)) from None
        # The index of the first image of each shard and, at the end, the number of all images.
        self._starts = list(itertools.accumulate(counts, initial=0))
        for file, size in zip(self._shards, sizes, strict=True):
            if os.path.basename(file) != file:
                # Without this check, a hostile pack could make seedtf read any file of the machine as
                # an image.
                raise _damaged(meta_path, f"{file!r} lies outside the pack")
            _check_size(os.path.join(folder, file), size)
        self.names, self.labels, self.sides, self.sizes = _read_index(
            os.path.join(folder, INDEX), index_digest, self.class_names
        )
        if len(self.names) != self._starts[-1]:
            raise _damaged(
                meta_path, f"{self._starts[-1]} images, but {INDEX} has {len(self.names)}"
            )
        rows = _checked_rows(os.path.join(folder, LEFT_OUT), left_out_digest)
        self.left_out = [
            (path, fault, detail) for path, fault, detail in itertools.islice(rows, 1, None)
        ]
        self._finder = NameFinder(self.names)
        # Images are read by name. If two had the same name, one would get the pixels of the other.
        if (repeated := self._finder.find_repeated()) >= 0:
            raise _damaged(
                os.path.join(folder, INDEX), f"two images are called {self.names[repeated]!r}"
            )
        self._module = import_array_record(folder)
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, name: str) -> int:
        """The index of the image called ``name``, or -1."""
        return self._finder.find(name)

    def read(self, index: int) -> bytes:
        """Reads an image file, as it was in the source; may be called from many threads.

        Raises:
            UserError: the shard is damaged.
        """
        shard = bisect.bisect_right(self._starts, index) - 1
        path = os.path.join(self.folder, self._shards[shard])
        try:
            [data] = self._reader(shard, path).read([index - self._starts[shard]])
        except (RuntimeError, ValueError, IndexError) as error:
            raise _damaged(path, first_line(error, 80)) from None
        if len(data) != self.sizes[index]:
            raise _damaged(path, f"{self.names[index]} has {len(data)} bytes")
        return bytes(data)

    def _reader(self, shard: int, path: str) -> Any:
        """The reader of a shard, which is opened if needed.

        If too many readers are then open, the least recently used reader is closed.
        """
        with self._lock:
            reader = self._readers.get(shard)
            if reader is None:
                reader = self._module.ArrayRecordReader(path, _RANDOM_ACCESS)
                self._readers[shard] = reader
                if len(self._readers) > _MAX_OPEN_SHARDS:
                    # The removed reader is closed as soon as no thread uses it.
                    self._readers.popitem(last=False)
            self._readers.move_to_end(shard)
            return reader


def import_array_record(needed_by: str) -> Any:
    """Imports the module that reads and writes ArrayRecord files.

    Args:
        needed_by: the folder or flag that needs the package; the message begins with it.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module("array_record.python.array_record_module")
    except ImportError:
        raise UserError(
            f"{needed_by}: needs array-record; run: pip install 'seedtf[pack]'"
        ) from None


def _read_meta(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            meta = json.load(file)
    except (OSError, ValueError) as error:
        raise _damaged(path, first_line(error, 80)) from None
    if not isinstance(meta, dict) or not isinstance(meta.get("format"), int):
        raise _damaged(path, "no format version")
    if meta["format"] != FORMAT:
        raise UserError(
            f"{path}: format {meta['format']}, and this seedtf reads format {FORMAT}; run seedtf pack "
            "again, or install the seedtf that wrote it"
        )
    return meta


def _read_index(
    path: str, digest: str, class_names: Sequence[str]
) -> tuple[StringArray, np.ndarray, np.ndarray | None, np.ndarray]:
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    labels, sizes = array("i"), array("q")
    sides: list[str] = []
    shared: dict[str, str] = {}  # All rows share one copy of each side, to save memory.

    def names() -> Iterator[str]:
        """Yields the name of each row, and appends its label, size and side to the lists above."""
        rows = _checked_rows(path, digest)
        if next(rows, None) != INDEX_COLUMNS:
            raise ValueError(f"columns are not {','.join(INDEX_COLUMNS)}")
        for name, label, side, size in rows:
            labels.append(label_of[label])
            sizes.append(int(size))
            sides.append(shared.setdefault(side, side))
            yield name

    try:
        array_of_names = StringArray(names())
    except (ValueError, KeyError, csv.Error) as error:
        raise _damaged(path, first_line(error, 80)) from None
    has_sides = any(sides)
    return (
        array_of_names,
        np.array(labels, np.int32),
        np.array(sides) if has_sides else None,
        np.array(sizes, np.int64),
    )


def _checked_rows(path: str, digest: str) -> Iterator[list[str]]:
    """Yields the rows of a table of the pack. Raises UserError if the table is missing or damaged."""
    try:
        with open(path, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    if found != digest:
        raise _damaged(path, f"its checksum is not the one in {META}")
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


def _check_size(path: str, size: int) -> None:
    try:
        found = os.path.getsize(path)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    if found != size:
        raise _damaged(path, f"{found:,} bytes, and {META} says {size:,}")


def _damaged(path: str, reason: str) -> UserError:
    return UserError(
        f"{path}: the pack is damaged ({reason}); copy it again, or run seedtf pack again"
    )
