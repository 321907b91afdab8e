"""Files are written atomically and with the permissions of the umask; CSV lines keep every cell."""

from __future__ import annotations

import csv
import io
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.files import atomic_path, csv_line, write_bytes, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.keras"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.keras"]


def test_an_interrupt_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "new.txt"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_full_disk_at_the_flush_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert temporary.name.startswith(".")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
        assert os.umask(umask) == umask  # reading the mask must not change it
    finally:
        os.umask(before)


def test_text_is_written_as_utf8_with_its_own_line_endings(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ö\r\n\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xb6\r\n\n"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_a_csv_line_is_read_back_unchanged(cells: list[str]) -> None:
    cells = [*cells, "end"]  # a single empty cell is an empty line, which csv.reader reads as []
    text = csv_line(*cells)
    assert text.endswith("\n")
    assert list(csv.reader(io.StringIO(text, newline=""))) == [cells]
