"""One piece of work for every file of a catalog, on every core; each file is judged by itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.header import RefusedError

__all__ = ["judge_files", "read_file"]

_TASKS_PER_CORE = 16
# an uncompressed 16-bit RGBA picture has 8 bytes a pixel; metadata may come on top
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 64 << 20


def judge_files(
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
    cores = os.cpu_count() or 1

    def verdict(item: tuple[int, str]) -> tuple[str, str] | None:
        try:
            work(*item)
        except RefusedError as error:
            return error.fault, error.detail
        except OSError as error:
            return "unreadable", error.strerror or str(error)
        return None

    faults, good = [], []
    with ThreadPoolExecutor(cores) as pool:
        verdicts = _bounded_map(pool, verdict, enumerate(catalog.absolute_paths()), cores)
        # disable=None: no bar, and no control codes, where the output is not a terminal
        bar = tqdm(verdicts, doing, len(catalog), unit="img", disable=None, leave=False)
        for index, found in enumerate(bar):
            if found is None:
                good.append(index)
            else:
                faults.append(Fault(catalog.paths[index], *found))
    return np.array(good, np.int64), faults


def read_file(path: str, max_pixels: int) -> bytes:
    """The bytes of an ordinary file that may hold a picture of at most ``max_pixels``.

    Raises:
        RefusedError: a pipe or device, which could keep a reader waiting for ever; or more bytes than
            such a picture can have.
        OSError: it cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("unreadable", "not an ordinary file")
    if status.st_size > _BYTES_PER_PIXEL * max_pixels + _METADATA_BYTES:
        raise RefusedError("too large", f"{status.st_size} bytes")
    with open(path, "rb") as file:
        return file.read()


def _bounded_map(pool: ThreadPoolExecutor, work: Callable, items: Iterator, cores: int) -> Iterator:
    """``pool.map`` in order, but with few tasks queued, so that a million files need no memory."""
    pending: list = []
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) >= cores * _TASKS_PER_CORE:
            # hand back half at a time: the workers always have the other half to do
            half = len(pending) // 2
            yield from (task.result() for task in pending[:half])
            del pending[:half]
    yield from (task.result() for task in pending)
