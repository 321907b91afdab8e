"""``seedtf ensemble``: the weighted mean of the predictions of runs, and the fit of the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import copy_run, draw_classes, make_run

from seedtf.commands.main import run_command
from seedtf.data.catalog import scan_folder
from seedtf.errors import UserError
from seedtf.evaluation.classifier import open_classifier
from seedtf.evaluation.ensemble import make_weighted_ensemble
from seedtf.evaluation.evaluate import make_mean_predict_fn
from seedtf.evaluation.labelled import warn_of_training_images
from seedtf.evaluation.metrics import fit_weights
from seedtf.export.serving_graph import ServingModule
from seedtf.images.decode import make_decoder
from seedtf.model.activation_map import make_map_function
from seedtf.model.members import reorder_classes, resize_for
from seedtf.model.network import load_model, save_model
from seedtf.runs.open import load_run, open_validation
from seedtf.runs.paths import RunPaths

NAMES = ("ash", "elm", "oak")


@given(st.integers(2, 4), st.integers(5, 60), st.integers(0, 1000))
def test_no_other_weights_fit_better(num_members: int, num_images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label_probabilities = rng.uniform(0.01, 1, (num_members, num_images))
    weights = fit_weights(label_probabilities)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    loss = -np.log(weights @ label_probabilities).mean()
    others = rng.dirichlet(np.ones(num_members), 200)
    assert loss <= -np.log(others @ label_probabilities).mean(axis=1).min() + 1e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_classes(tmp_path_factory.mktemp("data") / "d", NAMES, per_class=40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> list[str]:
    root = tmp_path_factory.mktemp("runs")
    small = make_run(root / "small", data, seed=1)
    return [str(small), str(make_run(root / "large", data, seed=2, image_size=24))]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory, runs: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("ensembles") / "both"
    assert run_command("ensemble", [*runs, f"--out={folder}"]) == 0
    return folder


def test_the_weights_are_fitted_on_the_shared_validation_images(
    ensemble: Path, runs: list[str]
) -> None:
    written = json.loads((ensemble / "ensemble.json").read_text())
    assert written["fitted_on"] == 60
    label_probabilities = []
    for name in runs:
        run = load_run(name)
        store, records = open_validation(run)
        images = tf.cast(store.read(tf.constant(records)), tf.float32)
        probabilities = run.load_model()(images).numpy()
        label_probabilities.append(probabilities[np.arange(60), store.catalog.labels[records]])
    expected = fit_weights(np.array(label_probabilities))
    assert [member["weight"] for member in written["members"]] == pytest.approx(expected, abs=1e-4)


def test_an_ensemble_averages_networks_of_two_image_sizes(ensemble: Path, data: Path) -> None:
    image = (data / "elm" / "1-3.png").read_bytes()
    run = load_run(ensemble)
    assert run.image_size == 24
    pixels = tf.cast(make_decoder(24)(image)[None], tf.float32)
    models = run.load_members(use_snapshots=False)
    outputs = [model(resize_for(model, pixels)).numpy()[0] for model in models]
    mean = np.average(outputs, axis=0, weights=run.weights)
    prediction = open_classifier(ensemble).predict(image, 3)
    found = dict(zip(prediction.names, prediction.probabilities, strict=True))
    assert [found[name] for name in NAMES] == pytest.approx(mean, abs=1e-6)


def test_a_served_ensemble_predicts_as_the_ensemble_does(ensemble: Path, tmp_path: Path) -> None:
    run = load_run(ensemble)
    store, records = open_validation(run)
    images = store.read(tf.constant(records[:5]))
    models = run.load_members(use_snapshots=False)
    (tmp_path / "classes.txt").touch()
    module = ServingModule(
        models[0],
        run.class_names,
        1.0,
        str(tmp_path / "classes.txt"),
        others=models[1:],
        weights=run.weights,
    )
    expected = make_mean_predict_fn(models, weights=run.weights)(images)
    np.testing.assert_allclose(module.serve_image(images)["probabilities"], expected, atol=1e-6)


def test_weights_that_are_not_fitted_are_equal_and_wrong_runs_are_refused(
    ensemble: Path, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfitted = make_weighted_ensemble(runs, str(tmp_path / "equal"), equal_weights=True)
    assert (unfitted.weights, unfitted.images) == ((0.5, 0.5), 0)
    for members, out, message in (
        (runs[:1], "a", "needs two runs or more"),
        (runs, "equal", "already exists; pass a new folder"),
        ([str(ensemble), runs[0]], "a", "is an ensemble itself; name its runs instead"),
    ):
        with pytest.raises(UserError, match=message):
            make_weighted_ensemble(members, str(tmp_path / out))
    assert run_command("evaluate", [str(ensemble)]) == 2
    assert "an ensemble has no images of its own; pass --data_dir" in capsys.readouterr().err


def test_classes_in_another_order_are_matched_by_name(
    ensemble: Path, runs: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunPaths(copy_run(Path(runs[1]), tmp_path / "other"))
    model = load_model(other.best)
    reorder_classes(model, [2, 0, 1])
    save_model(model, other.best)
    other.classes.write_text("oak\nash\nelm\n")
    assert run_command("ensemble", [runs[0], str(other.root), f"--out={tmp_path / 'both'}"]) == 0
    shown = capsys.readouterr().out
    assert f"{other.root}: has the classes of {runs[0]} in another order; they are" in shown

    found, expected = load_run(tmp_path / "both"), load_run(ensemble)
    assert found.class_names == NAMES
    assert found.weights == pytest.approx(expected.weights, abs=1e-4)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, [2, 24, 24, 3]), tf.uint8)
    for make in (make_mean_predict_fn, lambda models: _make_map_fn(models, tf.constant([0, 2]))):
        values = [make(run.load_members(use_snapshots=False))(images) for run in (found, expected)]
        np.testing.assert_allclose(values[0], values[1], atol=1e-5)


def _make_map_fn(models, classes):
    maps = make_map_function(models)
    return lambda images: maps(images, classes)


def test_members_with_other_classes_labels_or_files_are_refused_by_name(
    ensemble: Path, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabelled = RunPaths(copy_run(Path(runs[1]), tmp_path / "relabelled"))
    text = relabelled.split.read_text()
    relabelled.split.write_text(text.replace("elm/1-3.png,elm,val", "elm/1-3.png,oak,val"))
    renamed = RunPaths(copy_run(Path(runs[1]), tmp_path / "renamed"))
    renamed.classes.write_text("ash\nelm\nlime\n")
    shutil.copyfile(renamed.best, renamed.last)
    out = f"--out={tmp_path / 'out'}"
    for member, message in (
        (relabelled.root, "elm/1-3.png' as 'oak', but"),
        (renamed.root, "has other classes than"),
        (renamed.last, "averages the best models"),
    ):
        assert run_command("ensemble", [runs[0], str(member), out]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(member) in line
        assert message in line
    assert not (tmp_path / "out").exists()
    # The classes of the members are compared again when the models of an ensemble are loaded.
    opened = shutil.copytree(ensemble, tmp_path / "opened")
    values = json.loads((ensemble / "ensemble.json").read_text())
    values["members"][0]["run"], values["members"][1]["run"] = runs[0], str(renamed.root)
    (opened / "ensemble.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="renamed: has other classes than"):
        load_run(opened).load_members(use_snapshots=False)


def test_weights_are_not_fitted_on_training_images_and_evaluating_on_them_gives_a_warning(
    ensemble: Path, runs: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunPaths(copy_run(Path(runs[1]), tmp_path / "other"))
    sides = {"train": "val", "val": "train"}
    lines = [line.rpartition(",") for line in other.split.read_text().splitlines()]
    text = "".join(f"{start},{sides.get(side, side)}\n" for start, _, side in lines)
    other.split.write_text(text)
    assert run_command("ensemble", [runs[0], str(other.root), f"--out={tmp_path / 'out'}"]) == 0
    shown = capsys.readouterr().out
    assert f"{runs[0]}: 0 of the 60 images it did not train on can be used; other mem" in shown
    assert "the members share 0 images that none of them trained on, and 50 are needed" in shown
    assert load_run(tmp_path / "out").weights == (0.5, 0.5)

    warn_of_training_images(load_run(ensemble), scan_folder(data))
    assert "60 of 120 images are training images of" in capsys.readouterr().out
    warn_of_training_images(load_run(tmp_path / "out"), scan_folder(data))
    shown = capsys.readouterr().out
    assert "120 of 120 images are training images of" in shown
    assert " or of 1 more run; the accuracy on them" in shown
    # make_run uses every second image for validation.
    unseen = scan_folder(data).take(np.arange(1, 120, 2))
    warn_of_training_images(load_run(ensemble), unseen)
    assert capsys.readouterr().out == ""
