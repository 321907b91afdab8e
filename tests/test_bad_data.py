"""What training does with bad data: left out by default, a stop under --strict, never silent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import scan_folder
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.data.store import cache_key
from seedtf.errors import UserError
from seedtf.training.summary import data_warnings


@pytest.fixture
def opened(tmp_path: Path):
    def open_folder(root: Path, **options: object) -> Dataset:
        settings = {"image_size": 8, "cache": "ram", "cache_dir": tmp_path / "cache", **options}
        return load_dataset(str(root), **settings)

    return open_folder


def test_strict_stops_and_names_the_first_file(opened, tiny_copy: Path) -> None:
    (tiny_copy / "alder" / "0.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        opened(tiny_copy, strict=True)
    assert str(error.value) == (
        "--strict: alder/0.png (empty file: 0 bytes) cannot be used; "
        "seedtf check lists them: repair or remove them"
    )
    (tiny_copy / "notes.txt").touch()
    (tiny_copy / "alder" / "1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"^--strict: notes\.txt \(.*\) and 2 more files cannot be"):
        opened(tiny_copy, strict=True)
    assert len(opened(tiny_copy).store.catalog.faults) == 3


def test_strict_is_content_with_good_data(opened, tiny_folder: Path) -> None:
    assert len(opened(tiny_folder, strict=True).store.catalog) == 18


@pytest.mark.parametrize("cache", ["ram", "disk", "off"])
def test_the_limit_on_pixels_holds_wherever_images_are_kept(
    opened, tiny_copy: Path, cache: str
) -> None:
    Image.new("RGB", (40, 26), "red").save(tiny_copy / "alder" / "large.png")
    Image.new("RGB", (32, 32), "red").save(tiny_copy / "alder" / "least.png")
    found = opened(tiny_copy, cache=cache, max_pixels=1024)
    assert [(f.path, f.fault) for f in found.store.catalog.faults] == [
        ("alder/large.png", "too large")
    ]
    # a cache that was made under one limit does not serve another
    assert not opened(tiny_copy, cache=cache, max_pixels=1040).store.catalog.faults


def test_the_limit_is_part_of_the_cache_key(tiny_folder: Path) -> None:
    catalog = scan_folder(tiny_folder)
    assert cache_key(catalog, 8, 2000) != cache_key(catalog, 8, 2001)
    assert cache_key(catalog, 8, 2000) == cache_key(catalog, 8, 2000)


def test_the_limit_is_a_flag() -> None:
    assert TrainConfig(data_dir="x", max_pixels=1024).max_pixels == 1024
    with pytest.raises(UserError, match=r"^--max_pixels=1023: out of range; pass 1024 or more$"):
        TrainConfig(data_dir="x", max_pixels=1023)


def test_identical_images_in_two_classes_are_said_aloud(opened, tiny_copy: Path) -> None:
    shutil.copy(tiny_copy / "alder" / "0.png", tiny_copy / "two words" / "copy.png")
    found = opened(tiny_copy)
    assert found.conflicting_labels == (("two words/copy.png", "alder/0.png"),)
    assert data_warnings(found) == [
        "warning   images with an identical one in another class: 1, "
        "first two words/copy.png and alder/0.png; seedtf check names them"
    ]


def test_identical_images_on_both_sides_are_said_aloud(
    opened, tiny_copy: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_copy / "alder", tmp_path / "val" / "alder")
    found = opened(tiny_copy, val_dir=str(tmp_path / "val"))
    assert data_warnings(found) == [
        "warning   validation images with an identical training image: 6; the accuracy will flatter"
    ]


def test_good_data_raises_no_warning(opened, tiny_copy: Path) -> None:
    shutil.copy(tiny_copy / "alder" / "0.png", tiny_copy / "alder" / "copy.png")
    assert data_warnings(opened(tiny_copy)) == []
