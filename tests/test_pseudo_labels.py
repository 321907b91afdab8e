"""``--pseudo_labels``: confident predictions become weighted labels; the split does not change."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.errors import UserError
from seedtf.files import csv_line
from seedtf.runs.paths import RunPaths
from seedtf.runs.records import write_records
from seedtf.training.batches import TrainBatches
from seedtf.training.machine import inspect_machine
from seedtf.training.optim.losses import CrossEntropy, make_targets
from seedtf.training.plan import make_plan
from seedtf.training.resolve import resolve
from seedtf.training.setup import load_training_data

NAMES = ("alder", "two words", "öland rye")


@pytest.fixture
def table(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Predictions for twelve files, eight of them confident.

    Of the eight, one is a copy of a labelled image and one is not an image. Two more rows name a
    labelled image and a file that could not be predicted.
    """
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    rows = [csv_line("file", "status", "top1", "p1")]
    for number in range(12):
        path = folder / f"{number}.png"
        Image.new("RGB", (20, 16), (10 * number, 200, 90)).save(path)
        confidence = "0.99" if number < 8 else "0.6"
        rows.append(csv_line(f"unlabelled/{number}.png", "ok", NAMES[number % 3], confidence))
    shutil.copy(tiny_folder / "alder" / "0.png", folder / "0.png")
    (folder / "1.png").write_bytes(b"no image")
    labelled = str(tiny_folder / "alder" / "1.png")
    rows += [csv_line(labelled, "ok", "alder", "1.0"), csv_line("x", "corrupt", "", "")]
    path = tmp_path / "predictions.csv"
    path.write_text("".join(rows), encoding="utf-8")
    return path


def load(folder: Path, tmp_path: Path, **options: object) -> Dataset:
    options = {"image_size": 8, "cache": "ram", "val_fraction": 0.34, **options}
    return load_dataset(str(folder), cache_dir=tmp_path / "cache", **options)


def sides_of(dataset: Dataset) -> dict[str, list[str]]:
    """The paths on each side of the split of the labelled images."""
    paths = dataset.store.catalog.paths
    sides = dataset.labelled_split.sides.items()
    return {name: [paths[index] for index in side] for name, side in sides}


@pytest.mark.parametrize("cache", ["ram", "disk", "off"])
def test_confident_images_train_and_the_split_does_not_change(
    tiny_folder: Path,
    tmp_path: Path,
    table: Path,
    cache: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = load(tiny_folder, tmp_path, cache=cache)
    capsys.readouterr()
    dataset = load(tiny_folder, tmp_path, cache=cache, pseudo_labels=str(table), pseudo_weight=0.25)
    expected = (
        "6 unlabelled images train with their predicted label and weight 0.25; 4 are less confident, "
        "2 labelled or repeated, 1 unreadable"
    )
    assert expected in capsys.readouterr().out
    assert sides_of(dataset) == sides_of(plain)
    catalog, pseudo = dataset.store.catalog, dataset.pseudo
    assert [Path(catalog.paths[index]).name for index in pseudo] == [
        f"{n}.png" for n in range(2, 8)
    ]
    assert [NAMES[catalog.labels[index]] for index in pseudo] == [NAMES[n % 3] for n in range(2, 8)]
    assert set(pseudo) <= set(dataset.split.train)
    assert not set(pseudo) & {*dataset.split.val, *dataset.split.test}
    # The labels of an image sum to its weight.
    weights = np.ones(len(catalog))
    weights[len(plain.store.catalog) :] = 0.25
    np.testing.assert_array_equal(dataset.store.soft_labels.sum(1), weights)
    np.testing.assert_array_equal(dataset.store.soft_labels.argmax(1), catalog.labels)
    # The red value of each file is ten times its number.
    pixels = dataset.store.read(tf.constant(pseudo)).numpy()
    np.testing.assert_array_equal(pixels[:, 0, 0, 0], [10 * number for number in range(2, 8)])
    assert len([change for change in dataset.changes if change.fault == "pseudo-label"]) == 6


def test_fixes_apply_together_with_pseudo_labels(
    tiny_folder: Path, tmp_path: Path, table: Path
) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("path,action,label\nalder/2.png,relabel,two words\nalder/3.png,drop,\n")
    dataset = load(tiny_folder, tmp_path, pseudo_labels=str(table), fixes=str(fixes))
    catalog = dataset.store.catalog
    index = list(catalog.paths).index("alder/2.png")
    assert NAMES[catalog.labels[index]] == "two words"
    np.testing.assert_array_equal(dataset.store.soft_labels[index], [0, 1, 0])
    used = np.concatenate(list(dataset.split.sides.values()))
    assert list(catalog.paths).index("alder/3.png") not in used
    assert len(dataset.pseudo) == 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("unlabelled/2.png,ok,ash,0.99", r"line 2: no class 'ash'"),
        ("unlabelled/2.png,ok,alder,1.5", r"line 2: p1 '1\.5' of 'unlabelled/2\.png'"),
        ("unlabelled/2.png,ok,alder,", r"line 2: p1 '' of"),
        ("none.png,ok,alder,0.99", r"line 2: no file 'none\.png'"),
        ("unlabelled/2.png,ok,alder,0.3", r"no image joins the training \(1 below --min_conf"),
    ],
)
def test_a_wrong_row_is_a_one_line_error(
    tiny_folder: Path, tmp_path: Path, table: Path, row: str, message: str
) -> None:
    table.write_text(f"file,status,top1,p1\n{row}\n")
    with pytest.raises(UserError, match=rf"^--pseudo_labels=.*: {message}"):
        load(tiny_folder, tmp_path, pseudo_labels=str(table))


def test_pseudo_labels_and_a_teacher_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--pseudo_labels excludes --teacher"):
        TrainConfig(data_dir="d", pseudo_labels="p.csv", teacher="t")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weights", [None, np.float32([1, 2, 3])])
def test_the_loss_of_an_image_is_multiplied_by_its_weight(
    smoothing: float, class_weights: np.ndarray | None
) -> None:
    rng = np.random.default_rng(0)
    predicted = tf.constant(rng.dirichlet(np.ones(3), 5), tf.float32)
    labels = rng.dirichlet(np.ones(3), 5).astype(np.float32)
    weights = np.float32([1, 0.5, 0.5, 1, 0.25])
    options = {"smoothing": smoothing, "weights": class_weights}
    weighted_targets = make_targets(3, weighted_labels=True, **options)
    _, soft, sample_weight = weighted_targets(tf.zeros([5]), tf.constant(labels * weights[:, None]))
    plain_targets = make_targets(3, **options)
    expected = (
        (tf.zeros([5]), tf.constant(labels))
        if plain_targets is None
        else plain_targets(tf.zeros([5]), tf.constant(labels))
    )
    np.testing.assert_allclose(soft, expected[1], rtol=1e-6)
    class_weight = expected[2].numpy() if len(expected) == 3 else np.ones(5)
    np.testing.assert_allclose(sample_weight, class_weight * weights, rtol=1e-6)
    loss = CrossEntropy()(soft, predicted, sample_weight=sample_weight)
    losses = [float(CrossEntropy()(soft[i : i + 1], predicted[i : i + 1])) for i in range(5)]
    np.testing.assert_allclose(loss, np.mean(np.array(losses) * class_weight * weights), rtol=1e-5)


def test_batches_have_the_weights_and_the_run_folder_lists_the_pseudo_labels(
    tiny_folder: Path, tmp_path: Path, table: Path
) -> None:
    config = TrainConfig(
        data_dir=str(tiny_folder),
        pseudo_labels=str(table),
        pseudo_weight=0.25,
        model="tiny",
        weights="none",
        image_size=8,
        batch_size=18,
        val_fraction=0.34,
        label_smoothing=0.1,
        cache="ram",
    )
    settings = resolve(config, inspect_machine())
    dataset = load_training_data(settings.config)
    batches = TrainBatches(make_plan(settings, dataset), dataset)
    prepare = batches.make_prepare(8)
    assert prepare is not None
    _, labels, weights = prepare(next(iter(batches.train(8, 0))))
    assert sorted(np.asarray(weights).tolist()) == [0.25] * 6 + [1.0] * 12
    np.testing.assert_allclose(np.asarray(labels).sum(1), 1, rtol=1e-6)
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    write_records(paths.root, config, dataset, {})
    with paths.split.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 18  # the labelled images alone
    with paths.data_report.open(encoding="utf-8") as file:
        faults = [row["fault"] for row in csv.DictReader(file)]
    assert faults.count("pseudo-label") == 6
    assert faults.count("not an image") == 1
