"""Archives as ``--data_dir`` are unpacked once into the cache; hostile archives are refused.

A refused archive leaves no file behind, neither inside nor outside the cache.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.commands.main import main
from seedtf.data.archives import unpack_archive
from seedtf.data.listing import list_files
from seedtf.errors import UserError
from seedtf.report import silent

FILES = {
    "plants/oak/1.jpg": b"1",
    "plants/oak/2.jpg": b"22",
    "plants/elm/3.jpg": b"",
    "a.txt": b"x",
}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda path: make_zip(path, FILES),
    "zip, stored": lambda path: make_zip(path, FILES, zipfile.ZIP_STORED),
    "zip, lzma": lambda path: make_zip(path, FILES, zipfile.ZIP_LZMA),
    "tar": lambda path: make_tar(path, FILES),
    "tar.gz": lambda path: make_tar(path, FILES, "w:gz"),
    "tar.bz2": lambda path: make_tar(path, FILES, "w:bz2"),
    "tar.xz": lambda path: make_tar(path, FILES, "w:xz"),
}


def contents(folder: str | Path) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(path: Path) -> str:
    return unpack_archive(str(path), "--data_dir", path.parent / "cache")


def refusal(path: Path) -> str:
    """The reason for which ``unpack`` refuses an archive. Asserts that no unpacked file is left."""
    before = contents(path.parent)
    with pytest.raises(UserError) as error:
        unpack(path)
    assert contents(path.parent) == before
    assert os.listdir(path.parent / "cache/archives") == []
    message = str(error.value)
    assert message.startswith(f"--data_dir={path}: ")
    assert "\n" not in message
    return message.removeprefix(f"--data_dir={path}: ")


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_is_unpacked_once(kind: str, tmp_path: Path, capsys) -> None:
    # An archive is recognised by its content, not by its suffix.
    path = MAKERS[kind](tmp_path / "plants.data")
    folder = unpack(path)
    assert contents(folder) == FILES
    unpacked_file = Path(folder, "a.txt")
    unpacked_file.write_text("changed")
    assert unpack(path) == folder
    assert unpacked_file.read_text() == "changed"
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"archive   {path}: 4 files unpacked into {folder}"
    assert second == f"archive   {path}: unpacked before into {folder}"


def test_a_changed_archive_is_unpacked_again(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x/1.jpg": b"1"})
    first = unpack(path)
    make_zip(path, {"x/1.jpg": b"22"})
    assert contents(unpack(path)) == {"x/1.jpg": b"22"}
    assert contents(first) == {"x/1.jpg": b"1"}


def test_the_class_folders_in_an_archive_are_recognised(tmp_path: Path) -> None:
    catalog, _ = list_files(unpack(make_zip(tmp_path / "a.zip", FILES)), min_images=1)
    assert catalog.class_names == ("elm", "oak")


@pytest.mark.parametrize("path", ["photos", "photo.jpg", "missing.zip", "gs://bucket/a.zip", ""])
def test_a_path_that_is_no_archive_is_returned_as_it_is(
    path: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert unpack_archive(path, "--data_dir", tmp_path) == path


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "C:/evil.jpg"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_path_that_leaves_the_archive_is_refused(make, name: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a", {"oak/1.jpg": b"1", name: b"evil"})
    assert refusal(path).startswith(f"{name!r} lies outside the archive; unpack the archive")
    assert not list(tmp_path.rglob("evil.jpg"))


def test_a_path_with_backslashes_cannot_leave_the_archive(tmp_path: Path) -> None:
    assert "outside" in refusal(make_zip(tmp_path / "a.zip", {"..\\..\\evil.jpg": b"1"}))
    folder = unpack(make_zip(tmp_path / "b.zip", {"oak\\1.jpg": b"1"}))
    assert contents(folder) == {"oak/1.jpg": b"1"}


@pytest.mark.parametrize("target", ["/etc", "../..", "oak/1.jpg"])
def test_a_link_is_refused(target: str, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("oak/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, target)
        archive.writestr("oak/link/1.jpg", b"evil")
    assert refusal(tmp_path / "a.zip").startswith("'oak/link' is a link")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            member = tarfile.TarInfo("oak/link")
            member.type, member.linkname = kind, target
            tar.addfile(member)
        assert refusal(tmp_path / "a.tar").startswith("'oak/link' is a link")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("oak/1.jpg")
        member.type = kind
        tar.addfile(member)
    assert refusal(tmp_path / "a.tar").startswith("'oak/1.jpg' is no file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ["oak/1.jpg", "oak/1.jpg"],
        ["oak/1.jpg", "./oak//1.jpg"],
        ["oak", "oak/1.jpg"],
        ["oak/1.jpg", "oak"],
        ["oak", "oak/"],
    ],
)
def test_two_files_of_the_same_name_are_refused(names: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(name)
            archive.writestr(info, b"" if name.endswith("/") else str(number))
    assert refusal(tmp_path / "a.zip").startswith(f"{names[1]!r} occurs twice")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(member)
    assert "occurs twice" in refusal(tmp_path / "a.tar")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "a.zip", {"oak/1.jpg": b"1"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert refusal(tmp_path / "a.zip").startswith("'oak/1.jpg' is encrypted; unpack the archive")


def test_an_archive_that_would_fill_the_disk_is_refused_early(tmp_path: Path) -> None:
    zeros = {f"oak/{n}.jpg": bytes(8 << 20) for n in range(14)}
    started = time.process_time()
    message = refusal(make_zip(tmp_path / "a.zip", zeros))
    assert message.startswith("unpacks to 109.1 MB or more, over 200 times its own size")
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        member = tarfile.TarInfo("oak/1.jpg")
        member.size = 1 << 40  # the file ends before this data
        file.write(member.tobuf())
    assert refusal(tmp_path / "a.tar.gz").startswith("unpacks to 1099.51 GB or more, over 200")
    assert time.process_time() - started < 5


def test_an_archive_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2000}))
    path = make_zip(tmp_path / "a.zip", {"1.jpg": bytes(1000), "2.jpg": bytes(1000)})
    message = "and only 0.0 MB of the disk may be used; unpack it and pass the folder"
    assert message in refusal(path)


def test_overlapping_files_are_refused(tmp_path: Path) -> None:
    """The entries of this zip bomb all point to the same compressed data."""
    path = make_zip(tmp_path / "a.zip", {"0.jpg": bytes(1 << 20)})
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry, num_entries = data[start:end], 400
    tail = bytearray(data[end:])
    tail[8:12] = num_entries.to_bytes(2, "little") * 2
    tail[12:16] = (num_entries * len(entry)).to_bytes(4, "little")
    path.write_bytes(data[:start] + entry * num_entries + tail)
    assert "occurs twice" in refusal(path)
    renamed_entries = b"".join(
        entry.replace(b"0.jpg", f"{n:05}".encode()) for n in range(num_entries)
    )
    path.write_bytes(data[:start] + renamed_entries + tail)
    assert "over 200 times its own size" in refusal(path)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        member = tarfile.TarInfo("x")
        member.type, member.size = tarfile.XHDTYPE, 1 << 30
        file.write(member.tobuf())
        for _ in range(8):
            file.write(bytes(1 << 20))
    assert refusal(tmp_path / "a.tgz").startswith(
        "cannot be unpacked (a header of 1073741824 bytes)"
    )


@pytest.mark.parametrize("kind", MAKERS)
@given(data=st.data())
def test_a_damaged_archive_is_unpacked_or_refused(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, silent():
        path = MAKERS[kind](Path(folder, "a"))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        try:
            unpack(path)
        except UserError as error:
            assert "\n" not in str(error)
        assert {p.name for p in Path(folder).iterdir()} <= {"a", "cache"}


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=4)
)
def test_no_name_leads_out_of_the_folder(parts: list[str]) -> None:
    name = "/".join(["oak", *parts, ".."])
    with tempfile.TemporaryDirectory() as folder, silent():
        path = Path(folder, "a.tar")
        make_tar(path, {"/".join(parts) or "x": b"1"})
        with contextlib.suppress(UserError):
            unpack(path)
        assert {p.name for p in Path(folder).iterdir()} <= {"a.tar", "cache"}
        make_tar(path, {name: b"1"})
        with pytest.raises(UserError):
            unpack(path)


def test_names_without_an_encoding_are_read_as_utf_8_or_code_page_437(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"ab/1.jpg": b"", "cd/1.jpg": b""})
    data = (
        path.read_bytes()
        .replace(b"ab/", "ü/".encode())
        .replace(b"cd/", "é-".encode("cp437") + b"/")
    )
    path.write_bytes(data)
    assert set(contents(unpack(path))) == {"ü/1.jpg", "é-/1.jpg"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Rar!\x1a\x07\x01\x00", "is a RAR archive; unpack it and pass the folder"),
        (b"7z\xbc\xaf\x27\x1c\x00", "is a 7-Zip archive; unpack it and pass the folder"),
    ],
)
def test_rar_and_7_zip_are_refused_by_name(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=f"{message}$"):
        unpack(tmp_path / "a.zip")


def test_a_compressed_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"some text" * 100))
    assert refusal(tmp_path / "a.gz").startswith("cannot be unpacked (")


def test_old_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    path, archives = make_zip(tmp_path / "a.zip", FILES), tmp_path / "cache/archives"
    for name in ("old", "new"):
        (archives / f".unpacking-{name}/oak").mkdir(parents=True)
    os.utime(archives / ".unpacking-old", (1, 1))
    folder = Path(unpack(path))
    assert {path.name for path in archives.iterdir()} == {folder.name, ".unpacking-new"}


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    (tmp_path / "cache").touch()
    with pytest.raises(
        UserError, match=r"^--cache_dir=.*cache: Not a directory .*; pass another one$"
    ):
        unpack(path)


def test_an_archive_can_be_checked(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    with zipfile.ZipFile(tmp_path / "plants.zip", "w") as archive:
        for path in tiny_folder.rglob("*.png"):
            archive.write(path, f"plants/{path.relative_to(tiny_folder)}")
    line = ["check", str(tmp_path / "plants.zip"), f"--out={tmp_path / 'r.csv'}"]
    assert main(line) == 1  # check warns of the tiny images
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"archive   {tmp_path / 'plants.zip'}: 18 files unpacked into ")
    assert lines[1].startswith("layout    class folders in ")
    assert lines[-1] == f"train     seedtf train --data_dir={tmp_path / 'plants.zip'}"
