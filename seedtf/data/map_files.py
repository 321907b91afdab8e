"""One piece of work for every file of a catalog, on every core; each file is judged by itself."""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.paths import REQUESTS, is_url, read_url, url_status
from seedtf.data.string_array import StringArray
from seedtf.images.header import RefusedError

__all__ = [
    "file_statuses",
    "map_file_batches",
    "map_files",
    "num_threads",
    "open_file",
    "read_file",
]

_TASKS_PER_CORE = 16
# an uncompressed 16-bit RGBA image has 8 bytes a pixel; metadata may come on top
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 64 << 20


def map_files(
    catalog: Catalog, work: Callable[[int, str], None], doing: str
) -> tuple[np.ndarray, list[Fault]]:
    """Runs ``work(index, absolute path)`` on every file; progress on a terminal, none elsewhere.

    Args:
        catalog: the files.
        work: safe to call from many threads; raises RefusedError or OSError for a file not to be used.
        doing: what the progress bar says.

    Returns:
        The indices of the good files, int64 in order, and a fault for each of the others.
    """

    def one(index: int, paths: Sequence[str]) -> list[Exception | None]:
        try:
            work(index, paths[0])
        except (RefusedError, OSError) as error:
            return [error]
        return [None]

    return map_file_batches(catalog, one, doing, 1)


def map_file_batches(
    catalog: Catalog,
    work: Callable[[int, Sequence[str]], Iterable[object]],
    doing: str,
    together: int = 32,
) -> tuple[np.ndarray, list[Fault]]:
    """As ``map_files``, for work that is quicker on several files at once.

    Args:
        catalog: the files.
        work: gets the index of a file, its absolute path and those behind it; for each of them it
            gives the RefusedError or OSError of one not to be used, else anything.
        doing: what the progress bar says.
        together: most files that it gets at once; fewer where some workers would get none.
    """
    paths = catalog.absolute_paths()
    workers = num_threads(paths)
    together = min(together, math.ceil(len(catalog) / workers)) or 1
    starts = range(0, len(catalog), together)

    def verdicts(start: int) -> list[tuple[str, str] | None]:
        here = [paths[i] for i in range(start, min(start + together, len(catalog)))]
        return [_verdict(outcome) for outcome in work(start, here)]

    faults, good = [], np.ones(len(catalog), bool)
    with ThreadPoolExecutor(workers) as pool:
        groups = _bounded_map(pool, verdicts, starts, workers)
        # disable=None: no bar, and no control codes, where the output is not a terminal
        bar = tqdm(desc=doing, total=len(catalog), unit="img", disable=None, leave=False)
        for start, group in zip(starts, groups, strict=True):
            for index, found in enumerate(group, start):
                if found is not None:
                    good[index] = False
                    faults.append(Fault(catalog.paths[index], *found))
            bar.update(len(group))
        bar.close()
    return np.flatnonzero(good), faults


def _verdict(outcome: object) -> tuple[str, str] | None:
    if isinstance(outcome, RefusedError):
        return outcome.fault, outcome.detail
    if isinstance(outcome, OSError):
        return "unreadable", outcome.strerror or str(outcome)
    return None


def num_threads(paths: StringArray) -> int:
    """Threads that share the work on ``paths``: one a core, more where they wait for a network."""
    cores = os.cpu_count() or 1
    return max(cores, REQUESTS) if is_url(paths.prefix) else cores


def file_statuses(paths: StringArray) -> Iterator[tuple[int, int] | None]:
    """Size in bytes and time of the last change in ns of each file; None where it cannot be asked."""

    def status(path: str) -> tuple[int, int] | None:
        try:
            if is_url(path):
                return url_status(path)
            found = os.stat(path)
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    if not is_url(paths.prefix):
        yield from map(status, paths)
        return
    with ThreadPoolExecutor(num_threads(paths)) as pool:
        yield from _bounded_map(pool, status, paths, num_threads(paths))


def open_file(path: str) -> BinaryIO:
    """A file to read from; behind a URL it is read whole at once. Raises OSError."""
    return io.BytesIO(read_url(path)) if is_url(path) else open(path, "rb")


def read_file(path: str, max_pixels: int) -> bytes:
    """The bytes of an ordinary file that may hold an image of at most ``max_pixels``.

    Raises:
        RefusedError: a pipe or device, which could keep a reader waiting for ever; or more bytes than
            such an image can have.
        OSError: it cannot be read.
    """
    limit = _BYTES_PER_PIXEL * max_pixels + _METADATA_BYTES
    if is_url(path):
        data = read_url(path, limit + 1)
        if len(data) > limit:
            raise RefusedError("too large", f"more than {limit} bytes")
        return data
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("unreadable", "not an ordinary file")
    if status.st_size > limit:
        raise RefusedError("too large", f"{status.st_size} bytes")
    with open(path, "rb") as file:
        return file.read()


def _bounded_map(
    pool: ThreadPoolExecutor, work: Callable, items: Iterable, workers: int
) -> Iterator:
    """``pool.map`` in order, but with few tasks queued, so that a million files need no memory."""
    pending: list = []
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= workers * _TASKS_PER_CORE:
                # hand back half at a time: the workers always have the other half to do
                half = len(pending) // 2
                yield from (task.result() for task in pending[:half])
                del pending[:half]
        yield from (task.result() for task in pending)
    finally:
        for task in pending:  # Ctrl-C waits for what runs, not for what is queued
            task.cancel()
