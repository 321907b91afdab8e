"""Decode and resize once: uint8 images in memory, in a memory-mapped cache file, or read by name.

All three answer ``Store.read(indices)`` in the graph. Images in memory or in the file reach TensorFlow
without a copy, as one captured tensor that is never a constant of a graph.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.decode_files import Decoded, make_batch_decoder
from seedtf.data.file_reader import FileReader
from seedtf.data.map_files import map_file_batches
from seedtf.data.paths import file_statuses
from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.images.decode import RESIZE_METHOD
from seedtf.images.header import MAX_PIXELS

__all__ = [
    "FORMAT",
    "CachePlan",
    "Store",
    "build_store",
    "cache_key",
    "keep_in_memory",
    "plan_cache",
]

FORMAT = 2
"""Number of the cache format; raising it makes every older cache file unknown."""

# what training itself needs beside the images; the rest of free memory is left to others
_CGROUP = Path("/sys/fs/cgroup")
_RAM_SHARE = 0.5
_DISK_SHARE = 0.8


@dataclass(frozen=True)
class CachePlan:
    """Where the decoded images go: ``mode`` (ram, disk or off) and a sentence with the bytes."""

    mode: str
    bytes_needed: int
    reason: str


@dataclass(frozen=True)
class Store:
    """Decoded images of a catalog, record i of the one is record i of the other.

    Attributes:
        catalog: the files that were decoded; what was refused is in its ``faults``.
        size: side S of every image in pixels.
        mode: ``ram``, ``disk`` or ``off``.
        from_cache: whether the images came from an earlier run's file.
        opened: how many files were opened and decoded before training; less than all only for ``off``.
        images: uint8 ``[N, S, S, 3]``, RGB, in memory or mapped; None for ``off``.
        cache_file: for ``disk`` the file that holds the images, one behind the other, and no more.
        files: for ``off`` what reads them.
    """

    catalog: Catalog
    size: int
    mode: str
    from_cache: bool
    opened: int
    images: tf.Tensor | None = None
    cache_file: str = ""
    files: FileReader | None = None

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """int64 ``[B]`` → uint8 ``[B, S, S, 3]``, RGB; in the graph or eagerly."""
        images, rows = self.look_up(indices)
        return images if rows is None else tf.gather(images, rows)

    def look_up(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Images and which of them are meant, without a copy where they are in memory or mapped.

        Args:
            indices: int64 ``[B]``.

        Returns:
            uint8 ``[N, S, S, 3]`` and rows int64 ``[B]`` of it, or ``[B, S, S, 3]`` and None.
        """
        if self.images is not None:
            return self.images, indices
        assert self.files is not None
        images = self.files.read(indices)
        return tf.ensure_shape(images, [indices.shape[0], self.size, self.size, 3]), None

    def recently_read(self) -> np.ndarray:
        """For ``off`` the records read last, int64: a file that ended training is among them."""
        return self.files.recently_read() if self.files else np.empty(0, np.int64)


def plan_cache(
    requested: str, num_images: int, size: int, cache_dir: Path, *, shared: bool = False
) -> CachePlan:
    """Chooses a place for ``num_images`` of ``size``² pixels and says what it needs and has.

    ``auto`` takes memory while the images fill at most half of what is free, else the disk while
    they fill at most 80 % of what is free there, else none; ``shared`` images, which other processes
    read too, are never in memory.

    Raises:
        UserError: ``ram`` or ``disk`` was asked for and the images do not fit at all.
    """
    needed = num_images * size * size * 3
    ram, disk = _free_ram(), _free_disk(cache_dir)
    figures = f"needs {_gib(needed)}; free: {_gib(ram)} of memory, {_gib(disk)} of disk"
    if requested == "auto":
        fits_disk = "disk" if needed <= _DISK_SHARE * disk else "off"
        mode = "ram" if needed <= _RAM_SHARE * ram and not shared else fits_disk
        return CachePlan(mode, needed, figures)
    room = {"ram": ram, "disk": disk}.get(requested, needed)
    if needed > room:
        smaller = "disk or off" if requested == "ram" else "off, or another --cache_dir"
        raise UserError(f"--cache={requested}: {figures}; pass --cache={smaller}")
    return CachePlan(requested, needed, figures)


def cache_key(catalog: Catalog, size: int, max_pixels: int = MAX_PIXELS) -> str:
    """Names a cache by what its content follows from: files (path, size, mtime), sizes, method."""
    digest = hashlib.blake2b(digest_size=16)
    root = str(catalog.root.resolve())
    digest.update(json.dumps([FORMAT, size, max_pixels, RESIZE_METHOD, root]).encode())
    statuses = file_statuses(catalog.absolute_paths())
    for path, status in zip(catalog.paths, statuses, strict=True):
        identity = f"{status[0]} {status[1]}" if status else "unreadable"
        digest.update(f"\n{path}\0{identity}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def build_store(
    catalog: Catalog,
    size: int,
    plan: CachePlan,
    cache_dir: Path,
    max_pixels: int = MAX_PIXELS,
    *,
    sample: int = 0,
) -> Store:
    """Opens every file once and keeps the good ones; the store's catalog lacks the bad ones.

    A ``disk`` cache that an earlier run finished for the same files is reused. A file is never
    replaced by another image: it is decoded, or it is named in ``store.catalog.faults``.

    Args:
        catalog: the files.
        size: side in pixels that images are resized to.
        plan: from ``plan_cache``.
        cache_dir: where cache files are; created when needed.
        max_pixels: larger images are refused before anything is allocated.
        sample: for ``off``, open only so many files, spread over the list; each of the others is
            judged whenever it is read. 0 opens all.

    Raises:
        UserError: the cache folder cannot be written, or the disk is full.
    """
    if plan.mode == "off":
        count = len(catalog)
        chosen = np.linspace(0, count - 1, min(sample or count, count)).astype(np.int64)
        good, faults = _inspect(catalog.take(chosen), max_pixels)
        kept = catalog.take(np.delete(np.arange(count), np.delete(chosen, good)), faults)
        files = FileReader(kept, size, max_pixels)
        return Store(kept, size, "off", False, len(chosen), files=files)
    if plan.mode == "ram":
        images = _empty_aligned((len(catalog), size, size, 3))
        good, faults = _decode_all(catalog, size, images, max_pixels)
        kept = catalog.take(good, faults)
        return Store(kept, size, "ram", False, len(catalog), _shared(images[: len(good)]))
    return _disk_store(catalog, size, cache_dir, max_pixels)


def keep_in_memory(catalog: Catalog, images: np.ndarray) -> Store:
    """A ``ram`` store of ``images``, uint8 ``[N, S, S, 3]``, which are copied; one for each file."""
    copy = _empty_aligned(images.shape)
    copy[...] = images
    return Store(catalog, images.shape[1], "ram", False, 0, _shared(copy))


def _disk_store(catalog: Catalog, size: int, cache_dir: Path, max_pixels: int) -> Store:
    name = cache_key(catalog, size, max_pixels)
    data_path, meta_path = cache_dir / f"{name}.u8", cache_dir / f"{name}.json"
    from_cache = _is_complete(data_path, meta_path, len(catalog), size)
    if not from_cache:
        with _disk_errors(cache_dir):
            _write_cache(catalog, size, data_path, meta_path, max_pixels)
    meta = json.loads(meta_path.read_text(encoding="utf-8"))
    good = np.delete(np.arange(len(catalog)), np.array(meta["left_out"], np.int64))
    kept = catalog.take(good, [Fault(*f) for f in meta["faults"]])
    shape = (len(kept), size, size, 3)
    # private mapping: pages come from the file and are shared with other runs, nothing is written
    images = (
        np.memmap(data_path, np.uint8, "c", shape=shape) if len(kept) else np.empty(shape, np.uint8)
    )
    file = str(data_path.absolute())
    return Store(kept, size, "disk", from_cache, len(catalog), _shared(images), cache_file=file)


def _write_cache(
    catalog: Catalog, size: int, data_path: Path, meta_path: Path, max_pixels: int
) -> None:
    """Decodes into a temporary file, then renames; the ``.json`` comes last and marks it complete."""
    data_path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".building.", dir=data_path.parent)
    try:
        # reserve the room now: a full disk is to be known before anything is decoded
        os.posix_fallocate(handle, 0, len(catalog) * size * size * 3)
        good, faults = _decode_all(catalog, size, _FileRows(handle, size), max_pixels)
        os.ftruncate(handle, len(good) * size * size * 3)
        os.fsync(handle)
        os.replace(temporary, data_path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    faults_as_lists = [[f.path, f.fault, f.detail] for f in faults]
    left_out = np.delete(np.arange(len(catalog)), good).tolist()
    meta = {"format": FORMAT, "size": size, "left_out": left_out, "faults": faults_as_lists}
    write_text(meta_path, json.dumps(meta))


class _FileRows:
    """Images in a file, row by row, like an array of them; not mapped, which takes longer to fill."""

    def __init__(self, handle: int, size: int) -> None:
        self._handle, self._shape, self._bytes = handle, (size, size, 3), size * size * 3

    def __setitem__(self, row: int, image: np.ndarray) -> None:
        data, start = image.data.cast("B"), row * self._bytes
        while data:
            written = os.pwrite(self._handle, data, start)
            data, start = data[written:], start + written

    def __getitem__(self, row: int) -> np.ndarray:
        data = os.pread(self._handle, self._bytes, row * self._bytes)
        return np.frombuffer(data, np.uint8).reshape(self._shape)


def _is_complete(data_path: Path, meta_path: Path, listed: int, size: int) -> bool:
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        good = listed - len(meta["left_out"])
        return data_path.stat().st_size == good * size * size * 3 > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_all(
    catalog: Catalog, size: int, images: np.ndarray | _FileRows, max_pixels: int
) -> tuple[np.ndarray, list[Fault]]:
    """Fills ``images`` from the front with the good files in order; indices of these, and the rest."""
    decode = make_batch_decoder(size, max_pixels)

    def work(first: int, paths: Sequence[str]) -> Iterator[Decoded]:
        for index, found in enumerate(decode(paths), first):
            if isinstance(found, np.ndarray):
                images[index] = found
            yield found

    good, faults = map_file_batches(catalog, work, "decoding")
    for row, index in enumerate(good):
        if row != index:  # close the gaps that refused files left
            images[row] = images[index]
    return good, faults


def _inspect(catalog: Catalog, max_pixels: int) -> tuple[np.ndarray, list[Fault]]:
    """Decodes every file once; indices of the good ones, and the rest."""
    decode = make_batch_decoder(1, max_pixels)
    return map_file_batches(catalog, lambda _, paths: decode(paths), "checking")


def _shared(images: np.ndarray) -> tf.Tensor:
    """The same memory as a tensor."""
    with tf.device("/cpu:0"):
        return tf.experimental.dlpack.from_dlpack(np.asarray(images).__dlpack__())


def _empty_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """uint8 in anonymous pages: TensorFlow shares an array only when it is aligned to 64 bytes.

    In huge pages where the system has them: it clears and maps them in a tenth of the time.
    """
    pages = mmap.mmap(-1, math.prod(shape))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8).reshape(shape)


def _free_disk(folder: Path) -> int:
    folder = folder.absolute()
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # a folder that may not be looked into
        return 0


def _free_ram() -> int:
    """Bytes of memory that are free, within a container's limit where there is one (cgroup v2)."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (
            int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):  # no such file, or "max": no limit
        return free
    return min(free, max(limit - used, 0))


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


@contextmanager
def _disk_errors(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--cache_dir={cache_dir}: {error.strerror or error}; pass another folder or --cache=ram"
        ) from error
