"""A store reads images from memory, from a cache file or from the image files, with the same pixels.

Files that cannot be used are left out.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seedtf.data import decode_files, free_space
from seedtf.data.catalog import scan_folder
from seedtf.data.dataset import load_dataset
from seedtf.data.store import CachePlan, Store, build_store, cache_key, has_cache, plan_cache
from seedtf.errors import UserError

MODES = ("ram", "disk", "off")
SIZE = 12


def build(root: Path, mode: str, cache_dir: Path, size: int = SIZE) -> Store:
    plan = CachePlan(mode, bytes_needed=0, sizes="")
    return build_store(scan_folder(root), size, plan, cache_dir)


def read_all(store: Store) -> np.ndarray:
    return store.read(tf.range(len(store.catalog), dtype=tf.int64)).numpy()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


@pytest.fixture
def damaged(tiny_copy: Path) -> Path:
    """The tiny folder with four files that cannot be used."""
    (tiny_copy / "alder" / "1.png").write_bytes(b"")
    (tiny_copy / "alder" / "page.jpg").write_text("<html>not found</html>")
    whole = (tiny_copy / "two words" / "5.png").read_bytes()
    (tiny_copy / "two words" / "5.png").write_bytes(whole[:-20])
    (tiny_copy / "two words" / "gone.png").symlink_to("nowhere.png")
    return tiny_copy


@pytest.mark.parametrize("mode", MODES)
def test_images_keep_their_known_colors(
    mode: str, tiny_folder: Path, tiny_colors: dict[str, tuple[int, int, int]], cache: Path
) -> None:
    store = build(tiny_folder, mode, cache)
    images = read_all(store)
    assert images.dtype == np.uint8
    assert images.shape == (18, SIZE, SIZE, 3)
    for path, image in zip(store.catalog.paths, images, strict=True):
        assert np.all(image == tiny_colors[path]), path
    assert (store.size, store.mode, store.from_cache) == (SIZE, mode, False)


def test_all_modes_give_identical_pixels(tmp_path: Path, cache: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 31, 17, 4)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: rotated by 90°
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    Image.fromarray(noise[0]).save(tmp_path / "a" / "0.png")
    Image.fromarray(noise[1, ..., :3]).save(tmp_path / "a" / "1.jpg", exif=exif)
    Image.fromarray(noise[2, ..., :3]).save(tmp_path / "b" / "2.webp")
    Image.fromarray(noise[3, ..., :3]).save(tmp_path / "b" / "3.bmp")
    ram, disk, off = (read_all(build(tmp_path, mode, cache)) for mode in MODES)
    assert np.array_equal(ram, disk)
    assert np.array_equal(ram, off)


@pytest.mark.parametrize("mode", MODES)
def test_any_indices_can_be_read_in_any_order(mode: str, tiny_folder: Path, cache: Path) -> None:
    store = build(tiny_folder, mode, cache)
    images = read_all(store)
    indices = np.array([17, 0, 0, 9], np.int64)
    read = store.read(tf.constant(indices))
    assert read.shape == [4, SIZE, SIZE, 3]
    assert np.array_equal(read, images[indices])
    dataset = tf.data.Dataset.from_tensors(indices).repeat(2).map(store.read)
    assert dataset.element_spec.shape == [4, SIZE, SIZE, 3]
    assert all(np.array_equal(batch, images[indices]) for batch in dataset)


@pytest.mark.parametrize("mode", MODES)
def test_bad_files_are_reported_and_the_others_keep_their_labels(
    mode: str,
    damaged: Path,
    tiny_colors: dict[str, tuple[int, int, int]],
    cache: Path,
) -> None:
    for attempt in range(2):  # With mode "disk", the second attempt reads the cache.
        store = build(damaged, mode, cache)
        assert store.from_cache == (mode == "disk" and attempt == 1)
        assert {fault.path: fault.fault for fault in store.catalog.faults} == {
            "alder/1.png": "empty file",
            "alder/page.jpg": "not an image",
            "two words/5.png": "truncated",
            "two words/gone.png": "unreadable",
        }
        assert len(store.catalog) == 16
        images = read_all(store)
        rows = zip(store.catalog.paths, store.catalog.labels, images, strict=True)
        for path, label, image in rows:
            assert store.catalog.class_names[label] == path.split("/")[0]
            assert np.all(image == tiny_colors[path])


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_of_bad_files_gives_an_empty_store(mode: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data" / "c").mkdir(parents=True)
    (tmp_path / "data" / "c" / "1.jpg").write_bytes(b"")
    store = build(tmp_path / "data", mode, cache)
    assert len(store.catalog) == 0
    assert [fault.path for fault in store.catalog.faults] == ["c/1.jpg"]


def test_the_second_run_reuses_the_cache_file(tiny_folder: Path, cache: Path) -> None:
    first = build(tiny_folder, "disk", cache)
    second = build(tiny_folder, "disk", cache)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert np.array_equal(read_all(first), read_all(second))
    suffixes = sorted(path.suffix for path in cache.iterdir())
    assert suffixes == [".json", ".u8"]


def test_changed_files_are_decoded_again(tiny_copy: Path, cache: Path) -> None:
    build(tiny_copy, "disk", cache)
    file = tiny_copy / "alder" / "0.png"
    before = file.stat()
    Image.new("RGB", (20, 16), (1, 2, 3)).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    changed = build(tiny_copy, "disk", cache)
    assert not changed.from_cache
    assert np.all(read_all(changed)[0] == (1, 2, 3))


def test_the_cache_key_depends_on_files_and_size(tiny_copy: Path) -> None:
    def key(size: int = SIZE) -> str:
        return cache_key(scan_folder(tiny_copy), size)

    file = tiny_copy / "alder" / "0.png"
    keys = [key(), key(SIZE + 1)]
    assert key() == keys[0]
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    keys.append(key())
    with file.open("ab") as stream:
        stream.write(b"\0")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    keys.append(key())
    file.rename(tiny_copy / "alder" / "00.png")
    keys.append(key())
    (tiny_copy / "alder" / "00.png").unlink()
    keys.append(key())
    assert len(set(keys)) == 6


def remove_json(pixels: Path, metadata: Path) -> None:
    metadata.unlink()


def cut_json(pixels: Path, metadata: Path) -> None:
    metadata.write_text(metadata.read_text()[:10])


def write_other_json(pixels: Path, metadata: Path) -> None:
    metadata.write_text(json.dumps([1, 2]))


def cut_pixels(pixels: Path, metadata: Path) -> None:
    os.truncate(pixels, pixels.stat().st_size - 1)


def remove_pixels(pixels: Path, metadata: Path) -> None:
    pixels.unlink()


@pytest.mark.parametrize(
    "damage", [remove_json, cut_json, write_other_json, cut_pixels, remove_pixels]
)
def test_a_damaged_cache_is_built_again(damage, tiny_folder: Path, cache: Path) -> None:
    whole = read_all(build(tiny_folder, "disk", cache))
    (pixels,), (metadata,) = cache.glob("*.u8"), cache.glob("*.json")
    damage(pixels, metadata)
    again = build(tiny_folder, "disk", cache)
    assert not again.from_cache
    assert np.array_equal(read_all(again), whole)
    assert build(tiny_folder, "disk", cache).from_cache


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_file(
    tiny_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", disk_full)
    with pytest.raises(UserError) as error:
        build(tiny_folder, "disk", cache)
    assert str(error.value) == (
        f"--cache_dir={cache}: No space left on device; pass another folder or --cache=ram"
    )
    assert list(cache.iterdir()) == []


def test_an_interrupted_build_leaves_no_file(
    tiny_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: str, max_pixels: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decode_files, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tiny_folder, "disk", cache)
    assert list(cache.iterdir()) == []


def test_the_error_for_a_cache_folder_that_is_a_file_names_the_flag(
    tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=r"^--cache_dir=.*cache: .*pass another folder"):
        build(tiny_folder, "disk", tmp_path / "cache")


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_images_are_captured_and_not_constants_of_the_graph(
    mode: str, tiny_folder: Path, cache: Path
) -> None:
    store = build(tiny_folder, mode, cache, size=64)
    spec = tf.TensorSpec([4], tf.int64)
    graph = tf.function(store.read).get_concrete_function(spec).graph.as_graph_def()
    assert len(graph.SerializeToString()) < 10_000 < read_all(store).nbytes


def set_free_space(monkeypatch: pytest.MonkeyPatch, *, ram: int, disk: int) -> None:
    memory, space = SimpleNamespace(available=ram), SimpleNamespace(free=disk)
    monkeypatch.setattr(free_space.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(free_space.shutil, "disk_usage", lambda _: space)


NEEDED = 10 * 20 * 20 * 3  # the bytes of ten RGB images of 20 × 20 pixels


@pytest.mark.parametrize(
    ("requested", "free_ram_and_disk", "mode"),
    [
        # auto: ram if the images fill at most half of the free memory, else disk if they fill at most
        # 80 % of the free disk
        ("auto", (2 * NEEDED, 0), "ram"),
        ("auto", (2 * NEEDED - 2, 2 * NEEDED), "disk"),
        ("auto", (NEEDED, NEEDED), "off"),
        ("ram", (NEEDED, 0), "ram"),
        ("disk", (0, NEEDED), "disk"),
        ("off", (0, 0), "off"),
    ],
)
def test_the_cache_mode_follows_from_the_free_space(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requested: str,
    free_ram_and_disk: tuple[int, int],
    mode: str,
) -> None:
    ram, disk = free_ram_and_disk
    set_free_space(monkeypatch, ram=ram, disk=disk)
    plan = plan_cache(requested, 10, 20, tmp_path / "not" / "yet" / "there")
    assert (plan.mode, plan.bytes_needed) == (mode, NEEDED)
    assert "GiB" in plan.sizes


def test_a_cache_without_enough_space_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free_space(monkeypatch, ram=2**30, disk=2**31)
    for requested, remedy in (("ram", "disk or off"), ("disk", "off, or another --cache_dir")):
        with pytest.raises(UserError) as error:
            plan_cache(requested, 100_000, 100, tmp_path)
        assert str(error.value) == (
            f"--cache={requested}: needs 2.79 GiB; free: 1.00 GiB of memory, 2.00 GiB of disk; "
            f"pass --cache={remedy}"
        )


@pytest.mark.parametrize("requested", ["auto", "disk"])
def test_an_existing_cache_needs_no_free_disk_space(
    requested: str, tiny_copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free_space(monkeypatch, ram=0, disk=10**9)
    build(tiny_copy, "disk", cache)
    set_free_space(monkeypatch, ram=0, disk=0)

    def load() -> Store:
        options = {"cache": requested, "cache_dir": cache, "image_size": SIZE, "val_fraction": 0.3}
        return load_dataset(data_dir=str(tiny_copy), **options).store

    store = load()
    assert (store.mode, store.from_cache) == ("disk", True)
    assert not has_cache(store.catalog, SIZE + 1, cache)
    (tiny_copy / "alder" / "0.png").write_bytes((tiny_copy / "alder" / "1.png").read_bytes())
    if requested == "disk":
        with pytest.raises(UserError, match=r"^--cache=disk: needs .* 0\.00 GiB of disk"):
            load()
    else:
        assert load().mode == "off"
