"""Large data sets take few bytes of memory per file, and not every file is opened before training."""

from __future__ import annotations

import csv
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf

from seedtf.augment.policy import Policy
from seedtf.config.train_config import TrainConfig
from seedtf.data import dataset as dataset_module
from seedtf.data.catalog import scan_folder
from seedtf.data.check.check import name_broken_files
from seedtf.data.dataset import Dataset, load_dataset, write_data_report
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import make_augmentation, train_dataset
from seedtf.data.split import read_split_csv, split_catalog, write_split_csv
from seedtf.data.store import CachePlan, build_store, cache_key
from seedtf.errors import UserError
from seedtf.runs.records import write_records
from seedtf.training.summary import data_warnings

NUM_FILES = 20_000
MAX_BYTES_PER_FILE = 300


@pytest.fixture(scope="module")
def many(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20,000 files in two classes, which are hard links to a few small images."""
    root = tmp_path_factory.mktemp("many")
    sources = sorted(tiny_folder.rglob("*.png"))
    for name in ("first", "second"):
        (root / name).mkdir()
    for number in range(NUM_FILES):
        name = f"{'first' if number % 2 else 'second'}/image number {number:08d}.png"
        os.link(sources[number % len(sources)], root / name)
    return root


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that Python's objects take at one time during ``work()``."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_listing_splitting_and_writing_take_few_bytes_per_file(
    many: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    def list_split_and_write(root: Path) -> None:
        catalog = scan_folder(root)
        store = build_store(catalog, 8, CachePlan("off", 0, ""), tmp_path, sample=10)
        split = split_catalog(store.catalog, 0.15, 0, np.arange(len(catalog)))
        write_split_csv(tmp_path / "split.csv", store.catalog, split)
        again = read_split_csv(tmp_path / "split.csv", store.catalog)
        assert np.array_equal(again.val, split.val)
        cache_key(catalog, 8)

    # The memory of graphs and code does not depend on the number of files, so it is subtracted.
    base = peak_bytes(lambda: list_split_and_write(tiny_folder))
    assert peak_bytes(lambda: list_split_and_write(many)) - base < MAX_BYTES_PER_FILE * NUM_FILES


def test_files_that_are_not_images_take_few_bytes_per_file(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for number in range(5_000):
        (tmp_path / "c" / f"image number {number:08d}.json").touch()
    (tmp_path / "c" / "1.png").touch()
    assert peak_bytes(lambda: scan_folder(tmp_path)) < MAX_BYTES_PER_FILE * 5_000


@pytest.mark.parametrize("mode", ["disk", "off"])
def test_memory_does_not_grow_while_training(mode: str, tiny_folder: Path, tmp_path: Path) -> None:
    store = build_store(scan_folder(tiny_folder), 64, CachePlan(mode, 0, ""), tmp_path)
    records = np.arange(len(store.catalog))
    order = BatchIndices(len(records), 9, seed=1)
    augmentation = make_augmentation(Policy(), 1, 64, "tf_image")
    batches = iter(train_dataset(store, records, order, augmentation))

    def memory_after(num_batches: int) -> int:
        """The memory of this process in bytes after more batches were made."""
        for _ in range(num_batches):
            next(batches)
        return psutil.Process().memory_info().rss

    before = memory_after(100)
    # The 500 batches of 9 images of 64 × 64 pixels take 220 MB together.
    assert memory_after(500) - before < 60 << 20


@pytest.fixture
def load(tmp_path: Path):
    """``load_dataset`` for small images, which are not cached unless an option says so."""

    def load_uncached(root: Path, **options: object) -> Dataset:
        settings = {"image_size": 8, "cache": "off", "cache_dir": tmp_path / "cache", **options}
        return load_dataset(str(root), **settings)

    return load_uncached


def test_of_many_files_a_sample_is_opened_and_the_number_of_others_is_reported(
    load, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "_MAX_OPENED", NUM_FILES - 1)
    dataset = load(many, check="auto")
    assert (dataset.store.num_opened, dataset.num_unopened) == (1000, NUM_FILES - 1000)
    assert len(dataset.store.catalog) == NUM_FILES
    assert dataset.duplicates == 0  # Duplicates are not searched for.
    config = TrainConfig(data_dir=str(many), cache="off")
    write_records(tmp_path, config, dataset, {})
    with (tmp_path / "data_report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["fault"]) == ("*", "not opened")
    assert row["detail"].startswith(f"{NUM_FILES - 1000} images; each is checked when it is read")


def test_all_files_of_a_small_folder_are_opened(load, tiny_folder: Path, tmp_path: Path) -> None:
    for options in ({"check": "auto"}, {"check": "all"}, {"check": "sample", "cache": "ram"}):
        assert load(tiny_folder, **options).num_unopened == 0
    write_data_report(tmp_path / "report.csv", scan_folder(tiny_folder))
    assert (tmp_path / "report.csv").read_text() == "path,fault,detail\n"


def test_a_bad_file_in_the_sample_leads_to_opening_all_files(
    load, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset_module, "_MAX_OPENED", 10)
    monkeypatch.setattr(dataset_module, "_SAMPLE_SIZE", 4)
    (tiny_copy / "alder" / "0.png").write_bytes(b"")  # The first file is in the sample.
    (tiny_copy / "alder" / "1.png").write_bytes(b"")
    dataset = load(tiny_copy, check="auto")
    assert [f.path for f in dataset.store.catalog.faults] == ["alder/0.png", "alder/1.png"]
    assert dataset.num_unopened == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "check     1 of 4 files opened cannot be used, first alder/0.png (empty file); opening all "
        "18 (--check=sample skips this)"
    ]
    dataset = load(tiny_copy, check="sample")
    assert [f.path for f in dataset.store.catalog.faults] == ["alder/0.png"]
    assert dataset.num_unopened == 14
    assert data_warnings(dataset) == []


def test_a_bad_file_that_was_not_opened_is_named_when_it_is_read(
    load, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "_SAMPLE_SIZE", 2)
    whole = (tiny_copy / "alder" / "3.png").read_bytes()
    # This damages the pixels but not the header.
    (tiny_copy / "alder" / "3.png").write_bytes(whole[:45] + bytes(4) + whole[49:])
    dataset = load(tiny_copy, check="sample")
    assert dataset.store.catalog.faults == ()
    with pytest.raises(tf.errors.InvalidArgumentError):
        dataset.store.read(tf.constant([1, 3, 5], tf.int64))
    assert [(f.path, f.fault) for f in name_broken_files(dataset.store)] == [
        ("alder/3.png", "corrupt")
    ]


def test_a_file_changed_since_it_was_listed_is_decoded_as_it_is_now(
    load, tiny_copy: Path, tiny_colors: dict[str, tuple[int, int, int]]
) -> None:
    dataset = load(tiny_copy)
    (tiny_copy / "alder" / "2.png").write_bytes((tiny_copy / "alder" / "5.png").read_bytes())
    image = dataset.store.read(tf.constant([2], tf.int64)).numpy()[0]
    assert np.all(image == tiny_colors["alder/5.png"])


def test_strict_refuses_bad_files_among_those_that_are_opened(load, tiny_copy: Path) -> None:
    (tiny_copy / "alder" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^--strict: alder/0\.png"):
        load(tiny_copy, check="sample", strict=True)
