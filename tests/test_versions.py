"""A version folder of an export is complete or absent, even if the process that writes it is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import forked
import pytest
from version_writer import NUM_FILES

from seedtf.errors import UserError
from seedtf.export.versions import new_version
from seedtf.runs.saved_model import find_saved_model


def list_versions(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.isdigit())


def write_version(folder: Path) -> int:
    with new_version(folder) as version:
        (version.folder / "saved_model.pb").write_text("x")
    return version.number


def test_a_new_version_has_the_number_after_the_highest_one(tmp_path: Path) -> None:
    assert write_version(tmp_path / "new" / "deep") == 1
    for name in ("2", "007", "draft", "9.5", "-12"):
        (tmp_path / name).mkdir()
    assert write_version(tmp_path) == 8
    assert write_version(tmp_path) == 9


def test_an_existing_version_is_never_touched(tmp_path: Path) -> None:
    write_version(tmp_path)
    with new_version(tmp_path) as version:
        (version.folder / "other").write_text("y")
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "x"
    assert not (tmp_path / "1" / "other").exists()


def test_a_version_is_hidden_until_complete_and_removed_on_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_version(tmp_path) as version:
        (version.folder / "part").write_text("x")
        assert list_versions(tmp_path) == []
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_folder_can_be_read_by_another_user(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_version(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o755


def test_a_second_export_into_a_folder_is_refused_while_one_is_running(tmp_path: Path) -> None:
    with new_version(tmp_path), pytest.raises(UserError, match="another export"):
        write_version(tmp_path)
    assert list_versions(tmp_path) == ["1"]
    assert write_version(tmp_path) == 2


def test_a_file_at_the_path_of_the_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match=r"--out=.*out: .*pass a folder"):
        write_version(tmp_path / "out")


def test_killed_exports_leave_only_complete_versions(tmp_path: Path) -> None:
    rng = random.Random(0)
    num_killed_midway = 0
    for _ in range(8):
        writer = forked.Process("version_writer:main", [str(tmp_path)])
        writer.stdout.readline()
        deadline = time.monotonic() + rng.uniform(0.0, 0.12)
        while time.monotonic() < deadline:  # looks for new versions as a server does
            for name in list_versions(tmp_path):
                assert len(list((tmp_path / name).iterdir())) == NUM_FILES
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        num_killed_midway += any(entry.name.startswith(".") for entry in tmp_path.iterdir())
        for name in list_versions(tmp_path):
            assert {file.read_text() for file in (tmp_path / name).iterdir()} == {name}
    assert num_killed_midway  # At least one process was killed while it wrote a version.
    number = write_version(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {str(n + 1) for n in range(number)}


def test_the_newest_version_is_found(tmp_path: Path) -> None:
    for name in ("2", "10", "saved"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_text("")
    assert find_saved_model(tmp_path).name == "10"
    assert find_saved_model(tmp_path / "2").name == "2"
    (tmp_path / "11").mkdir()
    with pytest.raises(UserError, match="not an export"):
        find_saved_model(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_saved_model(tmp_path / "none")
