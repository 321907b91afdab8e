"""Detects the kind of a source of ``seedtf pack``, and reads its images in their order."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.archives import unpack_archive
from seedtf.data.catalog import Catalog, Fault
from seedtf.data.columns import Columns
from seedtf.data.image_files import is_image
from seedtf.data.listing import list_files
from seedtf.data.pack.image_tables import is_image_table, table_records
from seedtf.data.pack.records import (
    ClassNamer,
    Record,
    Records,
    image_folders,
    sides_of_files,
)
from seedtf.data.pack.tfrecords import is_tfrecord, tfrecord_records
from seedtf.data.pack.webdataset import is_webdataset, webdataset_records
from seedtf.data.paths import is_url, num_threads, read_file
from seedtf.data.split import Split
from seedtf.data.walk import walk_files
from seedtf.errors import UserError
from seedtf.images.header import MAX_PIXELS, RefusedError
from seedtf.report import format_count, report

__all__ = ["Source", "open_source"]

_Reader = Callable[[str, str, str, ClassNamer, str], Records]
"""``(path, folder, side, name_class, label_key) → records``, see ``webdataset_records``."""

_KINDS: dict[str, _Reader] = {
    "WebDataset": webdataset_records,
    "TFRecord": tfrecord_records,
    "table": table_records,
}


@dataclass(frozen=True)
class Source:
    """The images to pack.

    Attributes:
        description: what the source is, for messages.
        records: yields the images in their order, and a fault for each image that is left out. Raises
            UserError if a file of many images is damaged or cannot be read.
        class_names: the classes; empty if they are known only after the images are read.
        count: number of images; None if it is known only after the images are read.
    """

    description: str
    records: Callable[[], Records]
    class_names: tuple[str, ...] = ()
    count: int | None = None


def open_source(
    path: str, labels_csv: str, columns: Columns, layout: str, cache_dir: Path
) -> Source:
    """Opens a source of any kind.

    A source is a folder or an archive of images; or a file, or a folder of files, with many images in
    each: WebDataset tars, TFRecords, parquet or Arrow tables.

    Args:
        path: a folder, a file, or the URL of a folder of images.
        labels_csv: a table of labels for a folder of images; empty if the folder has the labels.
        columns: the columns of this table. For files with many images, ``columns.label`` is the label.
        layout: the layout of a folder of images, or ``auto`` to detect it.
        cache_dir: the folder below which an archive is unpacked.

    Raises:
        UserError: the path does not exist or has no images; the source has files of several kinds; or
            ``list_files`` refuses the folder.
    """
    if not is_url(path) and not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder; pass what holds the labelled images")
    kind, files = ("", []) if is_url(path) or labels_csv else _find_files(path)
    if kind:
        return _stream_source(path, kind, files, columns.label)
    folder = unpack_archive(path, "SOURCE", cache_dir)
    if not is_url(folder) and not os.path.isdir(folder):
        raise UserError(
            f"{path}: not an archive of images, a WebDataset tar (with .cls or .json members), a "
            "TFRecord, a parquet or an Arrow file; pass one of these or a folder"
        )
    catalog, split = list_files(folder, labels_csv, columns, layout, min_images=1)
    return Source(
        f"{len(catalog):,} files of {path}",
        functools.partial(_folder_records, catalog, split),
        catalog.class_names,
        len(catalog),
    )


def _find_files(path: str) -> tuple[str, list[str]]:
    """The kind and the files of a source whose files have many images each; else ``("", [])``.

    The files are relative to ``path``. If ``path`` itself is such a file, they are ``[""]``.
    """
    if os.path.isfile(path):
        kind = _kind(path, path)
        return kind, [""] if kind else []
    found: dict[str, list[str]] = {}
    for name in walk_files(path, "SOURCE"):
        if is_image(Path(path), name):
            return "", []
        if kind := _kind(name, os.path.join(path, name)):
            found.setdefault(kind, []).append(name)
    if len(found) > 1:
        shown = ", ".join(f"{kind} ({names[0]})" for kind, names in found.items())
        raise UserError(f"{path}: has files of several kinds: {shown}; pass a folder of one kind")
    return next(iter(found.items()), ("", []))


def _kind(name: str, path: str) -> str:
    if is_tfrecord(name):
        return "TFRecord"
    if is_image_table(name):
        return "table"
    is_tar = name.lower().endswith((".tar", ".tar.gz", ".tgz"))
    return "WebDataset" if is_tar and is_webdataset(path) else ""


def _stream_source(path: str, kind: str, files: list[str], label_key: str) -> Source:
    """A source of files with many images each; its classes are known after the images are read."""
    is_file = files == [""]
    folder = os.path.dirname(path) if is_file else path
    name_class = ClassNamer(folder or ".")
    names = [os.path.basename(path)] if is_file else files
    sides = sides_of_files(names)

    def records() -> Records:
        for name, images, side in zip(names, image_folders(names), sides, strict=True):
            file = os.path.join(folder, name)
            try:
                yield from _KINDS[kind](file, images, side, name_class, label_key)
            except OSError as error:
                cause = error.strerror or error
                raise UserError(f"{file}: cannot be read: {cause}; copy it again") from error

    description = f"{format_count(len(names), f'{kind} file')} of {path}"
    description += f", names of classes from {name_class.source}" if name_class.source else ""
    parts = [f"{side} ({sides.count(side)})" for side in ("train", "val", "test") if side in sides]
    description += f", split by the names of the files: {', '.join(parts)}" if parts else ""
    report("source", description)
    return Source(description, records)


def _folder_records(catalog: Catalog, split: Split | None) -> Records:
    """Yields the images of a catalog, which threads read in advance, and then its faults."""
    sides = np.full(len(catalog), "", object)
    for side, indices in (split.sides if split else {}).items():
        sides[indices] = side
    names = catalog.class_names
    for index, data in enumerate(_read_ahead(catalog)):
        path = catalog.paths[index]
        if isinstance(data, bytes):
            yield Record(path, names[catalog.labels[index]], sides[index], data)
        else:
            yield Fault(path, *data)
    yield from catalog.faults


def _read_ahead(catalog: Catalog) -> Iterator[bytes | tuple[str, str]]:
    """Yields the bytes of each file, or a fault and its detail; only a few files are in memory."""
    paths = catalog.absolute_paths()
    threads = num_threads(paths)

    def read(path: str) -> bytes | tuple[str, str]:
        try:
            return read_file(path, MAX_PIXELS)
        except RefusedError as error:
            return error.fault, error.detail
        except OSError as error:
            return "unreadable", error.strerror or str(error)

    pending: deque[Future[bytes | tuple[str, str]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for path in paths:
            pending.append(pool.submit(read, path))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
