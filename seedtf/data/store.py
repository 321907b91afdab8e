"""Provides the images of a run as uint8: from memory, a memory-mapped cache file, or the image files.

``Store.read(indices)`` works in all three cases, eagerly and in a graph. Images in memory or in the
cache file become one tensor that shares their memory, so a graph that uses the tensor copies no image.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.decode_files import BatchDecoder, Decoded, make_batch_decoder
from seedtf.data.file_reader import FileReader
from seedtf.data.free_space import format_gib, free_disk, free_ram
from seedtf.data.map_files import map_file_batches
from seedtf.data.paths import file_statuses
from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.images.decode import RESIZE_METHOD
from seedtf.images.header import MAX_PIXELS, STRETCH

__all__ = [
    "FORMAT",
    "CachePlan",
    "Store",
    "build_store",
    "cache_key",
    "has_cache",
    "keep_in_memory",
    "plan_cache",
]

FORMAT = 4
"""Version of the cache format; part of the cache key, so that older cache files are not used."""

# With --cache=auto, the images may take these fractions of the free space; training needs the rest.
_RAM_FRACTION = 0.5
_DISK_FRACTION = 0.8


@dataclass(frozen=True)
class CachePlan:
    """Where to keep decoded images: ``mode`` is ram, disk or off, ``sizes`` is a text for messages."""

    mode: str
    bytes_needed: int
    sizes: str


@dataclass(frozen=True)
class Store:
    """The decoded images of a catalog, in the order of the catalog.

    Attributes:
        catalog: the usable files; the files that were left out are in its ``faults``.
        size: side S of every image in pixels.
        mode: ``ram``, ``disk`` or ``off``.
        from_cache: whether the images come from a cache file that an earlier run wrote.
        num_opened: number of files that were opened before training, or for the cache file.
        images: uint8 ``[N, S, S, 3]``, RGB, in memory or mapped; None for ``off``.
        cache_file: for ``disk``, the file with the pixels of all images, without a header.
        files: for ``off``, the reader of the files.
        soft_labels: float32 ``[N, K]`` that training uses instead of the catalog's labels, or None.
    """

    catalog: Catalog
    size: int
    mode: str
    from_cache: bool
    num_opened: int
    images: tf.Tensor | None = None
    cache_file: str = ""
    files: FileReader | None = None
    soft_labels: np.ndarray | None = None

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """The images at ``indices``, int64 ``[B]``: uint8 ``[B, S, S, 3]``, RGB."""
        images, rows = self.look_up(indices)
        return images if rows is None else tf.gather(images, rows)

    def look_up(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Like ``read``, but does not copy images that are in memory or mapped.

        Args:
            indices: int64 ``[B]``.

        Returns:
            All images, uint8 ``[N, S, S, 3]``, and ``indices``, the rows to gather from these images.
            For ``off``: only the wanted images, uint8 ``[B, S, S, 3]``, and None.
        """
        if self.images is not None:
            return self.images, indices
        assert self.files is not None
        images = self.files.read(indices)
        return tf.ensure_shape(images, [indices.shape[0], self.size, self.size, 3]), None

    def recently_read(self) -> np.ndarray:
        """For ``off``, the indices of the last batches, int64, also of one that could not be read."""
        return self.files.recently_read() if self.files else np.empty(0, np.int64)


def plan_cache(
    requested: str,
    num_images: int,
    size: int,
    cache_dir: Path,
    *,
    shared: bool = False,
    is_cached: Callable[[], bool] = lambda: False,
) -> CachePlan:
    """Decides where to keep ``num_images`` images of ``size``² pixels.

    ``auto`` is ``ram`` if the images fill at most half of the free memory and are not ``shared``.
    Otherwise it is ``disk`` if they fill at most 80 % of the free disk or are cached; else ``off``.

    Args:
        requested: the value of ``--cache``.
        num_images: the number of images in the catalog.
        size: side in pixels of each image.
        cache_dir: folder of the cache files, which need not exist.
        shared: whether other processes have to read the images.
        is_cached: ``has_cache`` of these images; called only if the disk has too little room.

    Raises:
        UserError: ``ram`` or ``disk`` was requested and has too little free space.
    """
    needed = num_images * size * size * 3
    ram, disk = free_ram(), free_disk(cache_dir)
    sizes = (
        f"needs {format_gib(needed)}; free: {format_gib(ram)} of memory, {format_gib(disk)} of disk"
    )
    if requested == "auto":
        if needed <= _RAM_FRACTION * ram and not shared:
            return CachePlan("ram", needed, sizes)
        on_disk = needed <= _DISK_FRACTION * disk or is_cached()
        return CachePlan("disk" if on_disk else "off", needed, sizes)
    free = {"ram": ram, "disk": disk}.get(requested, needed)
    if needed > free and not (requested == "disk" and is_cached()):
        alternatives = "disk or off" if requested == "ram" else "off, or another --cache_dir"
        raise UserError(f"--cache={requested}: {sizes}; pass --cache={alternatives}")
    return CachePlan(requested, needed, sizes)


def cache_key(catalog: Catalog, size: int, max_pixels: int = MAX_PIXELS, fit: str = STRETCH) -> str:
    """A hash of all that the decoded pixels depend on, such as path, size and time of every file."""
    digest = hashlib.blake2b(digest_size=16)
    root = str(catalog.root.resolve())
    digest.update(json.dumps([FORMAT, size, max_pixels, RESIZE_METHOD, fit, root]).encode())
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
    fit: str = STRETCH,
) -> Store:
    """Decodes the files, and leaves out those that cannot be used; for ``off``, keeps no image.

    A complete ``disk`` cache of an earlier run with the same files is used again. Every file that is
    left out is named in ``store.catalog.faults``.

    Args:
        catalog: the files.
        size: side in pixels that images are resized to.
        plan: from ``plan_cache``.
        cache_dir: folder of the cache files; created if needed.
        max_pixels: larger images are refused before memory is allocated for them.
        sample: for ``off``, how many files to check, evenly spread over the catalog; 0 for all.
        fit: as for ``images.decode.resize_image``.

    Raises:
        UserError: the cache folder cannot be written, or the disk is full.
    """
    make_decoder = functools.partial(make_batch_decoder, size, max_pixels, fit)
    if plan.mode == "off":
        count = len(catalog)
        checked = np.linspace(0, count - 1, min(sample or count, count)).astype(np.int64)
        good_in_sample, faults = _check_files(catalog.take(checked), max_pixels)
        bad = np.delete(checked, good_in_sample)
        usable = catalog.take(np.delete(np.arange(count), bad), faults)
        files = FileReader(usable, size, max_pixels, fit)
        return Store(usable, size, "off", False, len(checked), files=files)
    if plan.mode == "ram":
        images = _empty_aligned((len(catalog), size, size, 3))
        good, faults = _decode_all(catalog, images, make_decoder())
        usable = catalog.take(good, faults)
        return Store(usable, size, "ram", False, len(catalog), _as_tensor(images[: len(good)]))
    base = cache_dir / cache_key(catalog, size, max_pixels, fit)
    return _disk_store(catalog, size, base, make_decoder)


def keep_in_memory(catalog: Catalog, images: np.ndarray) -> Store:
    """A ``ram`` store with a copy of ``images``, uint8 ``[N, S, S, 3]``, one image for each file."""
    copy = _empty_aligned(images.shape)
    copy[...] = images
    return Store(catalog, images.shape[1], "ram", False, 0, _as_tensor(copy))


def has_cache(
    catalog: Catalog, size: int, cache_dir: Path, max_pixels: int = MAX_PIXELS, fit: str = STRETCH
) -> bool:
    """Whether there is a complete cache of these files, none of which has changed since."""
    base = cache_dir / cache_key(catalog, size, max_pixels, fit)
    return _is_complete(Path(f"{base}.u8"), Path(f"{base}.json"), len(catalog), size)


def _disk_store(
    catalog: Catalog, size: int, base: Path, make_decoder: Callable[[], BatchDecoder]
) -> Store:
    """Opens the cache files ``base.u8`` and ``base.json``, or writes them if they are not complete."""
    data_path, meta_path = Path(f"{base}.u8"), Path(f"{base}.json")
    from_cache = _is_complete(data_path, meta_path, len(catalog), size)
    if not from_cache:
        with _disk_errors(base.parent):
            _write_cache(catalog, size, data_path, meta_path, make_decoder())
    meta = json.loads(meta_path.read_text(encoding="utf-8"))
    good = np.delete(np.arange(len(catalog)), np.array(meta["left_out"], np.int64))
    usable = catalog.take(good, [Fault(*fault) for fault in meta["faults"]])
    shape = (len(usable), size, size, 3)
    # In mode "c", all runs share the pages of the file in memory, and none can write to the file.
    images = (
        np.memmap(data_path, np.uint8, "c", shape=shape) if len(usable) else np.empty(shape, "u1")
    )
    file, tensor = str(data_path.absolute()), _as_tensor(images)
    return Store(usable, size, "disk", from_cache, len(catalog), tensor, cache_file=file)


def _write_cache(
    catalog: Catalog, size: int, data_path: Path, meta_path: Path, decode: BatchDecoder
) -> None:
    """Decodes into a temporary file, renames it, and writes the ``.json`` that completes the cache."""
    data_path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".building.", dir=data_path.parent)
    try:
        # Reserve the space now, so that a full disk is detected before anything is decoded.
        os.posix_fallocate(handle, 0, len(catalog) * size * size * 3)
        good, faults = _decode_all(catalog, _FileRows(handle, size), decode)
        os.ftruncate(handle, len(good) * size * size * 3)
        os.fsync(handle)
        os.replace(temporary, data_path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    left_out = np.delete(np.arange(len(catalog)), good).tolist()
    meta = {"format": FORMAT, "size": size, "left_out": left_out}
    meta["faults"] = [[f.path, f.fault, f.detail] for f in faults]
    write_text(meta_path, json.dumps(meta))


class _FileRows:
    """The images in a file, read and written by index; faster than through a memory map."""

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


def _is_complete(data_path: Path, meta_path: Path, num_listed: int, size: int) -> bool:
    """Whether both files of a cache of ``num_listed`` files exist and belong together."""
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
        num_good = num_listed - len(meta["left_out"])
        return data_path.stat().st_size == num_good * size * size * 3 > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _decode_all(
    catalog: Catalog, images: np.ndarray | _FileRows, decode: BatchDecoder
) -> tuple[np.ndarray, list[Fault]]:
    """Writes the good images to the first rows of ``images``; returns their indices, and the faults."""

    def work(first: int, paths: Sequence[str]) -> Iterator[Decoded]:
        for index, outcome in enumerate(decode(paths), first):
            if isinstance(outcome, np.ndarray):
                images[index] = outcome
            yield outcome

    good, faults = map_file_batches(catalog, work, "decoding")
    for row, index in enumerate(good):
        if row != index:  # Close the gaps that unusable files have left.
            images[row] = images[index]
    return good, faults


def _check_files(catalog: Catalog, max_pixels: int) -> tuple[np.ndarray, list[Fault]]:
    """Decodes every file once; returns the indices of the usable files, and the faults."""
    decode = make_batch_decoder(1, max_pixels)
    return map_file_batches(catalog, lambda _, paths: decode(paths), "checking")


def _as_tensor(images: np.ndarray) -> tf.Tensor:
    """A tensor that shares the memory of ``images``."""
    with tf.device("/cpu:0"):
        return tf.experimental.dlpack.from_dlpack(np.asarray(images).__dlpack__())


def _empty_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised uint8 array, aligned to 64 bytes so that TensorFlow can share its memory.

    Huge pages are requested, because clearing and mapping pages of usual size takes 10 times as long.
    """
    pages = mmap.mmap(-1, math.prod(shape))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # The kernel does not support huge pages.
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8).reshape(shape)


@contextmanager
def _disk_errors(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--cache_dir={cache_dir}: {error.strerror or error}; pass another folder or --cache=ram"
        ) from error
