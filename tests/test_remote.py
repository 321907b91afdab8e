"""Folders at URLs that only fsspec reads, such as s3://; the tests use fsspec's memory://."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from seedtf.commands.main import main
from seedtf.data.archives import unpack_archive
from seedtf.data.catalog import scan_folder
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.data.label_table import read_label_table
from seedtf.data.listing import list_files
from seedtf.data.paths import files_for_tensorflow, folder_at, read_file
from seedtf.data.service import portable_reader
from seedtf.data.store import cache_key
from seedtf.errors import UserError
from seedtf.images.header import RefusedError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory():
    """The in-memory file system, which all tests of a process share."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


@pytest.fixture
def bucket(memory, tiny_folder: Path) -> str:
    """The files of the tiny folder in a bucket."""
    for path in tiny_folder.rglob("*.png"):
        memory.pipe_file(f"/b/images/{path.relative_to(tiny_folder).as_posix()}", path.read_bytes())
    return "memory://b/images"


def load(folder: str | Path, tmp_path: Path, **options: object) -> Dataset:
    settings = {"image_size": 8, "cache": "off", "cache_dir": tmp_path / "cache", **options}
    return load_dataset(str(folder), **settings)


def test_a_bucket_gives_the_same_dataset_as_a_folder(bucket, memory, tiny_folder, tmp_path):
    memory.pipe_file("/b/images/alder/cut.png", (tiny_folder / "alder/1.png").read_bytes()[:-20])
    memory.pipe_file("/b/images/alder/deep/x.json", b"{}")
    memory.pipe_file("/b/images/.git/3.png", b"x")
    remote, local = load(bucket, tmp_path), load(tiny_folder, tmp_path)
    catalog = remote.store.catalog
    assert catalog.paths == local.store.catalog.paths
    assert catalog.class_names == local.store.catalog.class_names
    assert np.array_equal(remote.split.val, local.split.val)
    indices = tf.range(len(catalog), dtype=tf.int64)
    assert np.array_equal(remote.store.read(indices), local.store.read(indices))
    # A file that is not an image, and a hidden folder, are not reported as faults.
    assert {(f.path, f.fault) for f in catalog.faults} == {("alder/cut.png", "truncated")}
    with pytest.raises(UserError, match="--data_service: its workers cannot open memory://"):
        portable_reader(remote.store)
    memory.rm("/b/images/alder/0.png")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"alder/0\.png: unreadable: No such"):
        remote.store.read(tf.constant([0], tf.int64))


def test_the_cache_key_changes_when_a_file_in_the_bucket_changes(bucket, memory):
    before = cache_key(scan_folder(bucket), 8)
    assert cache_key(scan_folder(bucket), 8) == before
    # The file is written again with the same bytes, so only its time changes.
    memory.pipe_file("/b/images/alder/0.png", memory.cat_file("/b/images/alder/0.png"))
    assert cache_key(scan_folder(bucket), 8) != before


def test_a_label_table_at_a_url_names_images_that_are_copied_for_tensorflow(bucket, memory):
    memory.pipe_file("/b/labels.csv", "\ufefffile,label\nalder/0.png,é\nalder/1.png,f\n".encode())
    catalog = read_label_table("memory://b/labels.csv", bucket).catalog
    assert catalog.class_names == ("f", "é")
    with files_for_tensorflow(list(catalog.absolute_paths())) as files:
        copies = [tf.io.read_file(file).numpy() for file in files]
    assert copies == [memory.cat_file(f"/b/images/{path}") for path in catalog.paths]


def test_a_bucket_can_be_packed(bucket, memory, tmp_path):
    pytest.importorskip("array_record")
    assert main(["pack", bucket, f"--out={tmp_path}/p"]) == 0
    pack = folder_at(tmp_path / "p").pack
    assert [pack.read(index) for index in range(18)] == [
        memory.cat_file(f"/b/images/{name}") for name in pack.names
    ]


def test_a_pack_in_a_bucket_is_copied_once(memory, tiny_folder, tmp_path, capsys):
    pytest.importorskip("array_record")
    assert main(["pack", str(tiny_folder), f"--out={tmp_path}/p"]) == 0
    for path in (tmp_path / "p").iterdir():
        memory.pipe_file(f"/b/packed/{path.name}", path.read_bytes())
    url, cache = "memory://b/packed", tmp_path / "cache"
    copies = {unpack_archive(url, "--data_dir", cache) for _ in range(2)}
    [copy] = copies
    assert "using the cached copy" in capsys.readouterr().out
    catalog, _ = list_files(copy)
    files = [read_file(path, max_pixels=1 << 20) for path in catalog.absolute_paths()]
    assert files == [(tiny_folder / path).read_bytes() for path in catalog.paths]
    assert [path.name for path in (cache / "packs").iterdir()] == [Path(copy).name]
    shard = "/b/packed/images-00000.array_record"
    memory.pipe_file(shard, memory.cat_file(shard)[:-1] + b"?")
    with pytest.raises(
        UserError, match=r"^--data_dir=memory://b/packed: images-00000.* is damaged"
    ):
        unpack_archive(url, "--data_dir", tmp_path / "other")
    assert list((tmp_path / "other" / "packs").iterdir()) == []
    memory.rm(shard)
    with pytest.raises(UserError, match="cannot be copied: No such file"):
        unpack_archive(url, "--data_dir", tmp_path / "other")
    # A URL without a pack is returned unchanged, even if nothing is there.
    assert unpack_archive("memory://b/none", "--data_dir", cache) == "memory://b/none"


def test_missing_and_too_large_files_raise_errors_and_an_empty_file_is_read(bucket, memory):
    with pytest.raises(UserError, match=r"^--data_dir=memory://b/none: no such folder; pass"):
        scan_folder("memory://b/none")
    with pytest.raises(UserError, match=r"^--data_dir=memory://.*png: a file; pass"):
        scan_folder(f"{bucket}/alder/0.png")
    memory.pipe_file("/b/empty.png", b"")
    assert read_file("memory://b/empty.png", max_pixels=9) == b""
    with pytest.raises(FileNotFoundError):
        read_file("memory://b/none.png", max_pixels=9)
    # With max_pixels=1, a file may have at most 64 MiB + 8 bytes: 64 MiB for metadata and 8 bytes for
    # each pixel.
    memory.pipe_file("/b/large.png", bytes((64 << 20) + 100))
    with pytest.raises(RefusedError, match="more than"):
        read_file("memory://b/large.png", max_pixels=1)


def test_an_error_of_the_remote_file_system_gives_a_one_line_error(
    bucket, memory, monkeypatch, capsys
):
    class NoCredentialsError(Exception):
        pass

    def refuse(*args, **kwargs):
        raise NoCredentialsError("Unable to locate credentials\nsee the manual")

    monkeypatch.setattr(type(memory), "info", refuse)
    assert main(["train", f"--data_dir={bucket}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "memory://b/images: cannot be reached: Unable to locate credentials" in error
