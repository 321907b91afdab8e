"""Calls a function for every file of a catalog, in threads; each file that fails gets a ``Fault``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.paths import num_threads
from seedtf.images.header import RefusedError
from seedtf.report import is_silent

__all__ = ["map_file_batches", "map_files"]

_QUEUED_PER_THREAD = 16


def map_files(
    catalog: Catalog, function: Callable[[int, str], None], description: str
) -> tuple[np.ndarray, list[Fault]]:
    """Calls ``function(index, absolute path)`` for every file, from many threads.

    A progress bar is shown if stderr is a terminal, but not inside ``report.silent()``.

    Args:
        catalog: the files.
        function: thread-safe; raises RefusedError or OSError for a file that cannot be used.
        description: text of the progress bar.

    Returns:
        The ascending indices, int64, of the files for which ``function`` raised no error, and a fault
        for each other file.

    Example:
        >>> from pathlib import Path
        >>> from seedtf.data.catalog import scan_folder
        >>> for name in ("oak/1.png", "oak/2.png", "elm/1.png"):
        ...     path = Path("photos", name)
        ...     path.parent.mkdir(parents=True, exist_ok=True)
        ...     _ = path.write_bytes(b"" if name == "oak/2.png" else b"data")
        >>> def check(index, path):
        ...     if not Path(path).stat().st_size:
        ...         raise RefusedError("empty file", "0 bytes")
        >>> good, faults = map_files(scan_folder("photos"), check, "checking")
        >>> good, faults
        (array([0, 1]), [Fault(path='oak/2.png', fault='empty file', detail='0 bytes')])
    """

    def call(index: int, paths: Sequence[str]) -> list[Exception | None]:
        try:
            function(index, paths[0])
        except (RefusedError, OSError) as error:
            return [error]
        return [None]

    return map_file_batches(catalog, call, description, batch_size=1)


def map_file_batches(
    catalog: Catalog,
    function: Callable[[int, Sequence[str]], Iterable[object]],
    description: str,
    batch_size: int = 32,
) -> tuple[np.ndarray, list[Fault]]:
    """Like ``map_files``, for a function that is faster on several files at once.

    Args:
        catalog: the files.
        function: takes the index of the first file of a batch and the absolute paths of the batch.
            For each path it returns a RefusedError or OSError if the file cannot be used, and any other
            value if it can.
        description: text of the progress bar.
        batch_size: the largest number of files in a call. A smaller number is used if there would
            otherwise be fewer batches than threads.

    Returns:
        The ascending indices, int64, of the files that can be used, and a fault for each other file.
    """
    paths = catalog.absolute_paths()
    threads = num_threads(paths)
    batch_size = max(min(batch_size, len(catalog) // threads), 1)
    starts = range(0, len(catalog), batch_size)

    def call(start: int) -> list[tuple[str, str] | None]:
        batch = [paths[i] for i in range(start, min(start + batch_size, len(catalog)))]
        return [_fault(outcome) for outcome in function(start, batch)]

    faults, is_good = [], np.ones(len(catalog), bool)
    with ThreadPoolExecutor(threads) as pool:
        results = _bounded_map(pool, call, starts, threads * _QUEUED_PER_THREAD)
        disable = is_silent() or None  # With None, tqdm shows the bar on a terminal only.
        bar = tqdm(desc=description, total=len(catalog), unit="img", disable=disable, leave=False)
        for start, batch_faults in zip(starts, results, strict=True):
            for index, fault in enumerate(batch_faults, start):
                if fault is not None:
                    is_good[index] = False
                    faults.append(Fault(catalog.paths[index], *fault))
            bar.update(len(batch_faults))
        bar.close()
    return np.flatnonzero(is_good), faults


def _fault(outcome: object) -> tuple[str, str] | None:
    """The name and the detail of the fault if ``outcome`` is an error; otherwise None."""
    if isinstance(outcome, RefusedError):
        return outcome.fault, outcome.detail
    if isinstance(outcome, OSError):
        return "unreadable", outcome.strerror or str(outcome)
    return None


def _bounded_map(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, max_queued: int
) -> Iterator:
    """Like ``pool.map``, but with at most ``max_queued`` pending tasks, to save memory."""
    pending: list = []
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= max_queued:
                # Collect only the first half, so that the threads have work in the meantime.
                half = len(pending) // 2
                yield from (task.result() for task in pending[:half])
                del pending[:half]
        yield from (task.result() for task in pending)
    finally:
        for task in pending:  # After Ctrl-C, the pool then waits only for running tasks.
            task.cancel()
