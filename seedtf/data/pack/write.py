"""Writes a packed folder: images in ArrayRecord shards, an index, and a table of left-out files."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedtf.data.catalog import Fault, name_fault
from seedtf.data.label_table import sort_class_names
from seedtf.data.pack.reader import (
    FORMAT,
    INDEX,
    INDEX_COLUMNS,
    LEFT_OUT,
    META,
    import_array_record,
)
from seedtf.data.pack.records import Records
from seedtf.data.pack.sources import Source
from seedtf.data.string_array import NameFinder, StringArray
from seedtf.errors import UserError, first_line
from seedtf.files import csv_line, fsync, lock_folder
from seedtf.report import is_silent

__all__ = ["PackCounts", "check_pack_out", "write_pack"]

# Each image is a chunk of its own, so that it can be read without other images. The chunks are not
# compressed, because image files are compressed already.
_OPTIONS = "group_size:1,uncompressed"
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class PackCounts:
    """How many images, classes, shards and bytes of image files a pack has.

    ``left_out`` is the number of files that were left out, for each reason.
    """

    images: int
    classes: int
    shards: int
    bytes: int
    left_out: dict[str, int]


def check_pack_out(out: Path) -> None:
    """Raises UserError if ``out`` exists, its parent is missing, or array-record is not installed."""
    if out.exists():
        raise UserError(f"--out={out}: already exists; pass a new folder, or remove it first")
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: no folder {out.parent}; create it or pass another path")
    import_array_record(f"--out={out}")


def write_pack(source: Source, out: Path, *, shard_bytes: int) -> PackCounts:
    """Writes the images of a source into a new folder, which appears only when it is complete.

    A killed process leaves a hidden folder beside ``out``, whose files the next attempt removes. Few
    images are in memory at a time.

    Args:
        source: from ``open_source``.
        out: the folder to create.
        shard_bytes: the largest number of bytes of images in a shard. A larger image gets a shard of
            its own.

    Raises:
        UserError: ``check_pack_out`` refuses ``out``; another process is writing ``out``; the source
            has no usable image; or two images of the source have the same name.
        OSError: the folder cannot be written, or the disk is full.
    """
    check_pack_out(out)
    with _temporary_folder(out) as folder:
        shards = _Shards(folder, shard_bytes)
        left_out: Counter[str] = Counter()
        classes: dict[str, None] = {}
        with (
            (folder / INDEX).open("w", encoding="utf-8", newline="") as index,
            (folder / LEFT_OUT).open("w", encoding="utf-8", newline="") as faults,
        ):
            index.write(csv_line(*INDEX_COLUMNS))
            faults.write(csv_line("path", "fault", "detail"))
            # With disable=None, tqdm prints nothing if stderr is not a terminal.
            disable = True if is_silent() else None
            records = _with_readable_names(source.records())
            for record in tqdm(
                records, "packing", source.count, unit="img", disable=disable, leave=False
            ):
                if isinstance(record, Fault):
                    faults.write(csv_line(record.path, record.fault, record.detail))
                    left_out[record.fault] += 1
                    continue
                shards.add(record.data)
                classes.setdefault(record.label)
                index.write(csv_line(record.name, record.label, record.side, str(len(record.data))))
        shards.close()
        if not shards.images:
            raise UserError(f"{source.description}: no usable image; {_describe_counts(left_out)}")
        _check_names(folder / INDEX, source.description)
        class_names = list(source.class_names or sort_class_names(classes))
        meta = {
            "format": FORMAT,
            "container": "ArrayRecord",
            "images": shards.images,
            "bytes": shards.bytes,
            "classes": class_names,
            "index_sha256": _sha256(folder / INDEX),
            "left_out": dict(left_out),
            "left_out_sha256": _sha256(folder / LEFT_OUT),
            "shards": shards.written,
            "source": source.description,
        }
        # Write pack.json last, because a folder with a pack.json is taken for a packed folder.
        (folder / META).write_text(
            json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for path in (folder / INDEX, folder / LEFT_OUT, folder / META, folder):
            fsync(path)
        os.rename(folder, out)
        fsync(out.parent)
    return PackCounts(
        shards.images, len(class_names), len(shards.written), shards.bytes, dict(left_out)
    )


def _with_readable_names(records: Records) -> Records:
    """Yields the records, with a fault in place of each record whose name is not UTF-8."""
    for record in records:
        path = record.path if isinstance(record, Fault) else record.name
        yield name_fault(path) or record


def _check_names(index: Path, description: str) -> None:
    """Raises UserError if two images have the same name, because images are read by their names."""
    with index.open(encoding="utf-8", newline="") as file:
        names = StringArray(row[0] for row in itertools.islice(csv.reader(file), 1, None))
    if (repeated := NameFinder(names).find_repeated()) >= 0:
        raise UserError(
            f"{description}: two images would be called {names[repeated]!r} in the pack; rename one of "
            "the files that they are in"
        )


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """Yields a locked, hidden folder beside ``out``, and then removes it if it was not renamed."""
    folder = out.parent / f".{out.name}.packing"
    folder.mkdir(exist_ok=True)
    try:
        with lock_folder(folder, file=""):
            for path in folder.iterdir():  # A process that was killed has left these.
                path.unlink()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        raise UserError(f"--out={out}: another process is writing it; wait for it") from None


class _Shards:
    """Writes images one by one into shards of one image, or of at most ``max_bytes`` of images.

    Attributes:
        images, bytes: number and size of the images in the completed shards.
        written: what pack.json has about each completed shard.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.images, self.bytes = 0, 0
        self.written: list[dict[str, Any]] = []
        self._folder, self._max_bytes = folder, max_bytes
        self._module = import_array_record(str(folder))
        self._writer: Any = None
        self._shard_images, self._shard_bytes = 0, 0

    def add(self, data: bytes) -> None:
        """Appends an image. Raises OSError if the disk is full."""
        if self._writer and self._shard_bytes + len(data) > self._max_bytes:
            self.close()
        with self._as_os_error():
            if not self._writer:
                self._shard_images, self._shard_bytes = 0, 0
                self._writer = self._module.ArrayRecordWriter(str(self._path), _OPTIONS)
            self._writer.write(data)
        self._shard_images += 1
        self._shard_bytes += len(data)

    def close(self) -> None:
        """Completes the current shard. Raises OSError if an image is missing in it."""
        if not self._writer:
            return
        path = self._path
        with self._as_os_error():
            self._writer.close()
            self._writer = None
            found = self._module.ArrayRecordReader(str(path)).num_records()
        if found != self._shard_images:
            raise OSError(errno.EIO, f"{found} of {self._shard_images} images arrived", str(path))
        fsync(path)
        self.images += self._shard_images
        self.bytes += self._shard_bytes
        self.written.append(
            {
                "file": path.name,
                "images": self._shard_images,
                "bytes": path.stat().st_size,
                "sha256": _sha256(path),
            }
        )

    @property
    def _path(self) -> Path:
        return self._folder / f"images-{len(self.written):05}.array_record"

    @contextmanager
    def _as_os_error(self) -> Iterator[None]:
        """Converts the errors of array-record to OSError with an error number and the reason."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            self._writer = None
            text = first_line(error, 120)
            code = errno.ENOSPC if shutil.disk_usage(self._folder).free < 1 << 20 else errno.EIO
            raise OSError(code, f"{os.strerror(code)} ({text})", str(self._path)) from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _describe_counts(left_out: Counter[str]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in left_out.most_common()) or "no files"
