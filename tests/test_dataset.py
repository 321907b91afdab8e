"""Loading a data set: its validation images are drawn at random, or given by split.csv or a folder."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset, load_dataset, write_data_report
from seedtf.data.listing import list_files
from seedtf.data.split import write_split_csv
from seedtf.errors import UserError
from seedtf.runs.folder import read_settings
from seedtf.runs.folds import FoldsPaths
from seedtf.runs.paths import RunPaths
from seedtf.runs.records import write_records
from seedtf.runs.saved_config import continued_config


@pytest.fixture
def load(tmp_path: Path):
    def load_folder(root: Path, **options: object) -> Dataset:
        options = {"image_size": 8, "cache": "ram", "cache_dir": tmp_path / "cache", **options}
        return load_dataset(str(root), **options)

    return load_folder


def paths_of(loaded: Dataset, side: np.ndarray) -> set[str]:
    return {loaded.store.catalog.paths[index] for index in side}


def test_a_folder_becomes_images_and_a_stratified_split(
    load, tiny_folder: Path, tiny_colors: dict[str, tuple[int, int, int]]
) -> None:
    loaded = load(tiny_folder, val_fraction=0.34, seed=4)
    assert len(loaded.split.val) == 6
    assert np.bincount(loaded.store.catalog.labels[loaded.split.val]).tolist() == [2, 2, 2]
    assert (loaded.duplicates, loaded.duplicates_across_split) == (0, 0)
    assert loaded.cache_plan.mode == "ram"
    for record in loaded.split.val:
        image = loaded.store.read(tf.constant([record]))[0]
        assert np.all(image == tiny_colors[loaded.store.catalog.paths[record]])


def test_a_damaged_file_is_reported_and_the_other_images_keep_their_labels(
    load, tiny_copy: Path, tmp_path: Path
) -> None:
    (tiny_copy / "alder" / "0.png").write_bytes(b"")
    (tiny_copy / "notes.txt").touch()
    loaded = load(tiny_copy)
    catalog = loaded.store.catalog
    assert len(catalog) == len(loaded.split.train) + len(loaded.split.val) == 17
    assert all(
        catalog.class_names[label] == path.split("/")[0]
        for path, label in zip(catalog.paths, catalog.labels, strict=True)
    )
    write_data_report(tmp_path / "report.csv", catalog)
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "fault", "detail"],
            ["alder/0.png", "empty file", "0 bytes"],
        ]


def test_a_class_without_a_usable_image_is_refused(load, tiny_copy: Path) -> None:
    for file in (tiny_copy / "two words").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError) as error:
        load(tiny_copy)
    assert str(error.value) == (
        f"--data_dir={tiny_copy}: class 'two words' has 0 usable images; "
        "add images (at least two) or remove the class"
    )


def test_duplicates_are_counted_and_kept_on_one_side(load, tiny_copy: Path) -> None:
    for copy in ("a", "b"):
        shutil.copy(tiny_copy / "alder" / "0.png", tiny_copy / "alder" / f"{copy}.png")
    for seed in range(5):
        loaded = load(tiny_copy, seed=seed, val_fraction=0.5)
        assert (loaded.duplicates, loaded.duplicates_across_split) == (2, 0)
        identical = {"alder/0.png", "alder/a.png", "alder/b.png"}
        assert len(identical & paths_of(loaded, loaded.split.val)) in (0, 3)


def test_split_csv_repeats_a_split_and_leaves_new_files_out(
    load, tiny_copy: Path, tmp_path: Path
) -> None:
    first = load(tiny_copy, seed=1)
    path = tmp_path / "split.csv"
    write_split_csv(path, first.store.catalog, first.split)
    shutil.copy(tiny_copy / "two words" / "0.png", tiny_copy / "alder" / "new.png")
    second = load(tiny_copy, seed=2, split_csv=str(path))
    assert paths_of(second, second.split.val) == paths_of(first, first.split.val)
    assert paths_of(second, second.split.train) == paths_of(first, first.split.train)


def test_config_json_says_how_the_split_was_made(load, tiny_folder: Path, tmp_path: Path) -> None:
    def write_run(name: str, config: TrainConfig) -> RunPaths:
        run = RunPaths(tmp_path / name)
        run.checkpoints.mkdir(parents=True)
        run.best.touch()
        dataset = load(config.data_dir, split_csv=config.split_csv)
        write_records(run.root, config, dataset, {"lr": 0.1})
        return run

    def origin(run: RunPaths) -> str:
        return read_settings(run.root)["resolved"]["split"]

    sides = tmp_path / "sides"
    for side in ("train", "val"):
        shutil.copytree(tiny_folder, sides / side)
    drawn = write_run("drawn", TrainConfig(data_dir=str(tiny_folder)))
    given = write_run("given", TrainConfig(data_dir=str(sides)))
    assert (origin(drawn), origin(given)) == ("drawn", "given")
    for run in (drawn, given):
        continued = write_run(f"{run.root.name}-2", continued_config(str(run.root), {}))
        assert origin(continued) == origin(run)

    folds = FoldsPaths(tmp_path / "cv")
    folds.split(0).parent.mkdir(parents=True)
    folds.write_settings(2, {})
    for table, expected in ((folds.split(0), "fold"), (tmp_path / "own.csv", "given")):
        shutil.copy(drawn.split, table)
        config = TrainConfig(data_dir=str(tiny_folder), split_csv=str(table))
        assert origin(write_run(f"from {table.stem}", config)) == expected

    settings = read_settings(drawn.root)
    del settings["resolved"]["split"]  # as if an earlier release had written the run
    drawn.config.write_text(json.dumps(settings))
    assert origin(write_run("drawn-3", continued_config(str(drawn.root), {}))) == ""


def test_a_validation_folder_is_used_without_its_bad_files(
    load, tiny_copy: Path, tmp_path: Path
) -> None:
    val = tmp_path / "held out"
    shutil.copytree(tiny_copy / "öland rye", val / "öland rye")
    (tiny_copy / "alder" / "3.png").write_bytes(b"")
    (val / "öland rye" / "2.png").write_bytes(b"")
    loaded = load(tiny_copy, val_dir=str(val))
    assert len(loaded.split.train) == 17
    assert paths_of(loaded, loaded.split.val) == {
        f"held out/öland rye/{number}.png" for number in (0, 1, 3, 4, 5)
    }
    assert set(loaded.store.catalog.labels[loaded.split.val]) == {2}
    # Each validation image is a copy of a training image.
    assert loaded.duplicates_across_split == 5
    assert {fault.path for fault in loaded.store.catalog.faults} == {
        "tiny/alder/3.png",
        "held out/öland rye/2.png",
    }


def test_a_validation_class_without_training_images_is_refused(
    load, tiny_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder / "alder", tmp_path / "val" / "zebra")
    with pytest.raises(UserError, match=r"^--val_dir=.*class 'zebra' has no training images"):
        load(tiny_folder, val_dir=str(tmp_path / "val"))


def test_a_validation_folder_without_usable_images_is_refused(
    load, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "val" / "alder").mkdir(parents=True)
    (tmp_path / "val" / "alder" / "1.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^--val_dir=.*: no val images; train and val need at least one each$"
    ):
        load(tiny_folder, val_dir=str(tmp_path / "val"))


def test_classes_that_each_have_only_identical_images_are_refused(
    load, tmp_path: Path, tiny_folder
) -> None:
    for name, source in (("a", "0.png"), ("b", "1.png")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            copy = tmp_path / "data" / name / f"{number}.png"
            shutil.copy(tiny_folder / "alder" / source, copy)
    with pytest.raises(UserError) as error:
        load(tmp_path / "data")
    assert str(error.value).startswith("--val_fraction=0.15: no validation images, because all")


def test_a_table_gives_the_labels(load, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [f"alder/{n}.png,{'odd' if n % 2 else 'even'}" for n in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    loaded = load(tiny_folder, labels_csv=str(tmp_path / "labels.csv"), val_fraction=0.34)
    assert loaded.store.catalog.class_names == ("even", "odd")
    assert loaded.store.catalog.labels.tolist() == [0, 1] * 3


def test_one_class_is_refused_before_anything_is_decoded(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "alder", tmp_path / "data" / "alder")
    with pytest.raises(UserError, match=r"only one class \('alder'\)"):
        list_files(str(tmp_path / "data"))
