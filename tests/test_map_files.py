"""Every file of a catalog is processed exactly once; Ctrl-C does not wait for the remaining files."""

import io
import time
from pathlib import Path

import numpy as np
import pytest

from seedtf.data.catalog import Catalog
from seedtf.data.map_files import map_file_batches, map_files
from seedtf.data.paths import num_threads
from seedtf.images.header import RefusedError
from seedtf.report import silent


def _make_catalog(count: int) -> Catalog:
    paths = [f"{i:03}.png" for i in range(count)]
    return Catalog(Path("/nowhere"), paths, np.zeros(count, np.int32), ("one",))


@pytest.mark.parametrize("count", [0, 1, 3, 32, 33, 200])
def test_batches_contain_every_file_once_and_keep_its_outcome(count: int) -> None:
    batches: list[tuple[int, list[str]]] = []

    def process(first: int, paths):
        batches.append((first, list(paths)))
        for index, path in enumerate(paths, first):
            assert path == f"/nowhere/{index:03}.png"
            if index % 7 == 3:
                yield RefusedError("corrupt", f"number {index}")
            elif index % 7 == 5:
                yield OSError(2, "gone")
            else:
                yield index

    catalog = _make_catalog(count)
    usable, faults = map_file_batches(catalog, process, "testing", 16)
    assert usable.tolist() == [i for i in range(count) if i % 7 not in (3, 5)]
    assert [(f.path, f.fault, f.detail) for f in faults] == [
        (f"{i:03}.png", *(("corrupt", f"number {i}") if i % 7 == 3 else ("unreadable", "gone")))
        for i in range(count)
        if i % 7 in (3, 5)
    ]
    batches.sort()
    assert [path for _, paths in batches for path in paths] == list(catalog.absolute_paths())
    assert max((len(paths) for _, paths in batches), default=0) <= 16
    # If there are enough files, every thread gets a batch.
    assert len(batches) >= min(count, num_threads(catalog.absolute_paths()))


def test_an_interruption_does_not_wait_for_queued_files() -> None:
    done: list[int] = []

    def process(index: int, path: str) -> None:
        if index == 0:
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append(index)

    catalog = _make_catalog(500)
    with pytest.raises(KeyboardInterrupt):
        map_files(catalog, process, "testing")
    assert len(done) < 6 * num_threads(catalog.absolute_paths())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_progress_unless_the_call_is_silent(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with silent():
        map_files(_make_catalog(3), lambda index, path: None, "testing")
    assert terminal.getvalue() == ""
    map_files(_make_catalog(3), lambda index, path: None, "testing")
    assert "testing" in terminal.getvalue()
