"""Training leaves bad files out by default, stops with --strict, and always reports them."""

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
def load(tmp_path: Path):
    def open_folder(root: Path, **options: object) -> Dataset:
        settings = {"image_size": 8, "cache": "ram", "cache_dir": tmp_path / "cache", **options}
        return load_dataset(str(root), **settings)

    return open_folder


def test_strict_ends_with_an_error_that_names_the_first_bad_file(load, tiny_copy: Path) -> None:
    (tiny_copy / "alder" / "0.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        load(tiny_copy, strict=True)
    assert str(error.value) == (
        "--strict: alder/0.png (empty file: 0 bytes) cannot be used; "
        "seedtf check lists them: repair or remove them"
    )
    shutil.copy(tiny_copy / "alder" / "2.png", tiny_copy / "lost.png")
    with pytest.raises(UserError, match=r"^--strict: lost\.png \(.*\) and 1 more file cannot be"):
        load(tiny_copy, strict=True)
    (tiny_copy / "alder" / "1.png").write_bytes(b"x")
    # A text file is not counted as a bad file.
    (tiny_copy / "alder" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"^--strict: lost\.png \(.*\) and 2 more files cannot be"):
        load(tiny_copy, strict=True)
    assert len(load(tiny_copy).store.catalog.faults) == 3


def test_strict_accepts_good_data(load, tiny_folder: Path) -> None:
    assert len(load(tiny_folder, strict=True).store.catalog) == 18


@pytest.mark.parametrize("cache", ["ram", "disk", "off"])
def test_max_pixels_applies_to_every_kind_of_cache(load, tiny_copy: Path, cache: str) -> None:
    Image.new("RGB", (40, 26), "red").save(tiny_copy / "alder" / "large.png")
    Image.new("RGB", (32, 32), "red").save(tiny_copy / "alder" / "at the limit.png")
    dataset = load(tiny_copy, cache=cache, max_pixels=1024)
    assert [(f.path, f.fault) for f in dataset.store.catalog.faults] == [
        ("alder/large.png", "too large")
    ]
    # A cache that was written with another limit of pixels is not used.
    assert not load(tiny_copy, cache=cache, max_pixels=1040).store.catalog.faults


def test_max_pixels_is_part_of_the_cache_key(tiny_folder: Path) -> None:
    catalog = scan_folder(tiny_folder)
    assert cache_key(catalog, 8, 2000) != cache_key(catalog, 8, 2001)
    assert cache_key(catalog, 8, 2000) == cache_key(catalog, 8, 2000)


def test_max_pixels_is_a_flag() -> None:
    assert TrainConfig(data_dir="x", max_pixels=1024).max_pixels == 1024
    with pytest.raises(UserError, match=r"^--max_pixels=1023: out of range; pass 1024 or more$"):
        TrainConfig(data_dir="x", max_pixels=1023)


def test_identical_images_in_two_classes_give_a_warning(load, tiny_copy: Path) -> None:
    shutil.copy(tiny_copy / "alder" / "0.png", tiny_copy / "two words" / "copy.png")
    dataset = load(tiny_copy)
    assert dataset.conflicting_labels == (("two words/copy.png", "alder/0.png"),)
    assert data_warnings(dataset) == [
        "images that are identical to an image of another class: 1, "
        "first two words/copy.png and alder/0.png; seedtf check lists them"
    ]


def test_identical_images_in_both_sides_of_a_split_give_a_warning(
    load, tiny_copy: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_copy / "alder", tmp_path / "val" / "alder")
    dataset = load(tiny_copy, val_dir=str(tmp_path / "val"))
    assert data_warnings(dataset) == [
        "no validation image of 2 of 3 classes: two words, öland rye; their accuracy is not measured",
        "validation and test images that are identical to an image of another side of the split: 6; "
        "the accuracy will be too optimistic",
    ]


def test_identical_images_in_one_class_give_no_warning(load, tiny_copy: Path) -> None:
    shutil.copy(tiny_copy / "alder" / "0.png", tiny_copy / "alder" / "copy.png")
    assert data_warnings(load(tiny_copy)) == []
