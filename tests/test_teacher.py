"""``--teacher``: training images get soft labels from runs that did not train on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from seedtf.augment.mixing import Mixing, make_mixer
from seedtf.augment.policy import Policy
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import eval_dataset, make_augmentation, train_dataset
from seedtf.errors import UserError
from seedtf.files import csv_line
from seedtf.runs.folder import format_class_names
from seedtf.runs.folds import FoldsPaths
from seedtf.training.resume import check_identity
from seedtf.training.teacher import soften, with_teacher

NAMES = ("alder", "two words", "öland rye")


@pytest.fixture
def dataset(tiny_folder: Path, tmp_path: Path) -> Dataset:
    options = {"image_size": 16, "cache": "ram", "cache_dir": tmp_path / "cache"}
    return load_dataset(str(tiny_folder), val_fraction=0.34, **options)


@pytest.fixture
def teacher(dataset: Dataset, tmp_path: Path) -> Path:
    """The folder of a cross-validation that predicted all images except the first training image."""
    folder = tmp_path / "folds"
    paths, catalog = FoldsPaths(folder), dataset.store.catalog
    paths.fold(0).root.mkdir(parents=True)
    paths.write_settings(2, {})
    paths.classes.write_text(format_class_names(NAMES))
    settings = {"resolved": {"data_root": str(catalog.root)}}
    paths.fold(0).config.write_text(json.dumps(settings))
    first = catalog.paths[dataset.split.train[0]]
    rows = [
        csv_line(path, catalog.class_names[label], "0.7", "0.2", "0.1")
        for path, label in zip(catalog.paths, catalog.labels, strict=True)
        if path != first
    ]
    header = csv_line("path", "true", *(f"p:{name}" for name in NAMES))
    paths.predictions.write_text(header + "".join(rows))
    return folder


def make_config(tiny_folder: Path, teacher: Path, **flags: object) -> TrainConfig:
    return TrainConfig(data_dir=str(tiny_folder), teacher=str(teacher), **flags)


def test_only_training_images_get_soft_labels(
    dataset: Dataset, teacher: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"teacher_weight": 0.25, "teacher_temperature": 2.0}
    store = with_teacher(make_config(tiny_folder, teacher, **flags), dataset).store
    soft, labels = store.soft_labels, dataset.store.catalog.labels
    one_hot = np.eye(3, dtype=np.float32)[labels]
    # Temperature 2 takes the square roots of the probabilities and divides them by their sum.
    teacher_row = np.sqrt([0.7, 0.2, 0.1]) / np.sqrt([0.7, 0.2, 0.1]).sum()
    train = dataset.split.train
    np.testing.assert_allclose(
        soft[train[1:]], 0.75 * one_hot[train[1:]] + 0.25 * teacher_row, 1e-6
    )
    np.testing.assert_array_equal(soft[train[0]], one_hot[train[0]])
    np.testing.assert_array_equal(soft[dataset.split.val], one_hot[dataset.split.val])
    assert "11 of 12 training images have soft labels" in capsys.readouterr().out


def test_batches_have_the_soft_labels_and_mixup_mixes_them(
    dataset: Dataset, teacher: Path, tiny_folder: Path
) -> None:
    store = with_teacher(make_config(tiny_folder, teacher), dataset).store
    train, order = dataset.split.train, BatchIndices(12, batch_size=12, seed=0)
    augmentation = make_augmentation(Policy(), seed=0, size=16, impl="tf_image")
    _, labels = next(iter(train_dataset(store, train, order, augmentation)))
    expected = store.soft_labels[train]
    assert sorted(map(tuple, labels.numpy())) == sorted(map(tuple, expected))
    mixer = make_mixer(Mixing(mixup=0.5), 0, 3)
    batches = train_dataset(store, train, order, augmentation, mixer=mixer)
    _, mixed = next(iter(batches))
    np.testing.assert_allclose(mixed.numpy().sum(1), 1, atol=1e-5)
    assert mixed.shape == (12, 3)
    _, hard = next(iter(eval_dataset(store, dataset.split.val, 6)))
    assert hard.dtype == tf.int32


def test_weight_0_keeps_the_labels_and_weight_1_gives_the_teacher_probabilities() -> None:
    labels, probabilities = np.eye(2)[[0, 1]], np.array([[0.6, 0.4], [0.9, 0.1]])
    np.testing.assert_array_equal(soften(labels, probabilities, weight=0, temperature=3), labels)
    softened = soften(labels, probabilities, weight=1, temperature=1)
    np.testing.assert_allclose(softened, probabilities, atol=1e-6)


def test_a_wrong_teacher_folder_raises_a_user_error(
    dataset: Dataset, teacher: Path, tiny_folder: Path
) -> None:
    with pytest.raises(UserError, match=r"^--teacher=.*: not a folder of seedtf folds"):
        with_teacher(make_config(tiny_folder, tiny_folder), dataset)
    FoldsPaths(teacher).classes.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"^--teacher=.*: has other classes"):
        with_teacher(make_config(tiny_folder, teacher), dataset)


def test_a_state_saved_before_a_flag_existed_resumes_only_with_the_default_of_the_flag() -> None:
    saved = {"--lr": 0.1}
    check_identity("r", saved, {"--lr": 0.1, "--teacher_weight": 0.5})
    with pytest.raises(UserError, match=r"--teacher_weight was 0\.5 and is now 0\.7"):
        check_identity("r", saved, {"--lr": 0.1, "--teacher_weight": 0.7})
    check_identity("r", saved, {"--zoom_out": 0.0})
    with pytest.raises(UserError, match=r"--zoom_out was 0\.0 and is now 0\.1"):
        check_identity("r", saved, {"--zoom_out": 0.1})
