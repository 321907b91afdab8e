"""``seedtf probe`` and ``--head=fitted`` fit a head to the features of a frozen network.

The fitted heads predict as the logistic regression of scikit-learn does.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from seedtf.commands.main import main
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import load_dataset
from seedtf.errors import UserError
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.evaluation.metrics import mcnemar_p
from seedtf.intervals import wilson_interval
from seedtf.model.network import build_network, load_model, save_model
from seedtf.plots.probe import draw_probe
from seedtf.probing.heads import NEIGHBOURS, predict_out_of_fold
from seedtf.probing.output import save_best_head, table_lines, write_probe
from seedtf.probing.probe import KNN, LOGISTIC, Probe, probe
from seedtf.runs.folder import read_settings
from seedtf.runs.listing import list_runs
from seedtf.runs.paths import RunPaths
from seedtf.training.fitted_head import C_VALUES, FeatureScaling, fit_head, start_from_fitted_head
from seedtf.training.machine import Machine
from seedtf.training.resolve import resolve

SIZE, CLASSES, PER_CLASS = 16, ("ash", "elm", "oak"), 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy coloured images. In each class one has an identical copy and another an enlarged copy."""
    root = tmp_path_factory.mktemp("probed")
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(PER_CLASS):
            coarse = rng.normal(110, 50, (5, 5, 3))
            coarse[..., label] += 25
            pixels = np.kron(coarse, np.ones((8, 8, 1))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
        shutil.copy(root / name / "03.png", root / name / "03 copy.png")
        Image.open(root / name / "05.png").resize((48, 48)).save(root / name / "05 large.png")
    return root


@pytest.fixture(scope="module")
def result(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Probe:
    weights = tmp_path_factory.mktemp("weights") / "other.keras"
    keras.utils.set_random_seed(5)
    save_model(build_network(model="tiny", num_classes=3, image_size=SIZE, weights="none"), weights)
    cache = tmp_path_factory.mktemp("cache")
    return probe(data, ["tiny"], image_size=SIZE, weights=str(weights), cache_dir=str(cache))


@dataclass(frozen=True)
class Cloud:
    """Features of three classes, each scattered around a centre, with their labels and folds."""

    features: np.ndarray
    labels: np.ndarray
    folds: np.ndarray


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 40)
    centres = rng.normal(size=(3, 20))
    features = (centres[labels] + rng.normal(size=(120, 20))) * rng.uniform(0.1, 30, 20) + 5
    return Cloud(features.astype(np.float32), labels, rng.permutation(np.arange(120) % 4))


def scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays, shifted by the means of ``train`` and divided by the median of its deviations."""
    deviations = train.std(axis=0)
    mean, deviation = train.mean(axis=0), np.median(deviations[deviations > 0])
    return (train - mean) / deviation, (test - mean) / deviation


def test_constant_features_do_not_change_the_scale_of_the_others() -> None:
    features = np.array([[1, 0, 7], [5, 0, 7]], np.float32)  # the deviations are 2, 0 and 0
    scaled_features = FeatureScaling.of(features)(features)
    np.testing.assert_array_equal(scaled_features, [[-1, 0, 0], [1, 0, 0]])
    constant = features[:, 1:]
    np.testing.assert_array_equal(FeatureScaling.of(constant)(constant), np.zeros((2, 2)))


def test_each_fold_is_predicted_from_the_others_as_scikit_learn_does(cloud: Cloud) -> None:
    predictions = predict_out_of_fold(
        cloud.features, cloud.labels, cloud.folds, np.arange(120), num_classes=3, seed=0
    )
    assert 0.6 < (predictions.linear == cloud.labels).mean() < 1
    for fold in range(4):
        test = cloud.folds == fold
        train_x, test_x = scaled(cloud.features[~test], cloud.features[test])
        head = predictions.heads[fold]
        assert head.inverse_strength in C_VALUES
        oracle = LogisticRegression(C=head.inverse_strength, tol=1e-6, max_iter=2000)
        oracle.fit(train_x, cloud.labels[~test])
        expected = oracle.predict_proba(test_x)
        logits = head.logits(cloud.features[test])
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected, atol=0.02)
        np.testing.assert_array_equal(predictions.linear[test], probabilities.argmax(axis=1))
        losses = -np.log(probabilities[np.arange(test.sum()), cloud.labels[test]])
        np.testing.assert_allclose(predictions.losses[test], losses, rtol=1e-4)
        knn = KNeighborsClassifier(NEIGHBOURS, metric="cosine", weights="distance")
        expected = knn.fit(train_x, cloud.labels[~test]).predict(test_x)
        np.testing.assert_array_equal(predictions.neighbours[test], expected)


def test_the_images_of_a_fold_do_not_change_the_head_that_predicts_them(cloud: Cloud) -> None:
    test = cloud.folds == 0
    spoiled = cloud.features.copy()
    # If these images were used to fit the head, they would change the mean, the deviation and C.
    spoiled[test] *= 1000
    labels = np.where(test, (cloud.labels + 1) % 3, cloud.labels)
    heads = [
        predict_out_of_fold(x, y, cloud.folds, np.arange(120), num_classes=3, seed=0).heads[0]
        for x, y in ((cloud.features, cloud.labels), (spoiled, labels))
    ]
    np.testing.assert_array_equal(heads[0].kernel, heads[1].kernel)
    np.testing.assert_array_equal(heads[0].bias, heads[1].bias)


def test_a_class_without_images_is_never_predicted_and_the_others_as_by_scikit_learn(
    cloud: Cloud,
) -> None:
    is_used = cloud.labels < 2
    # The labels 0 and 1 become the classes 0 and 2; class 1 has no images.
    head = fit_head(cloud.features[is_used], cloud.labels[is_used] * 2, np.arange(80), 3)
    x, _ = scaled(cloud.features[is_used], cloud.features[is_used])
    oracle = LogisticRegression(C=head.inverse_strength, tol=1e-6, max_iter=2000).fit(
        x, cloud.labels[is_used]
    )
    logits = head.logits(cloud.features)
    expected = oracle.decision_function(x)
    np.testing.assert_allclose((logits[:, 2] - logits[:, 0])[is_used], expected, atol=0.05)
    assert set(logits.argmax(axis=1)) <= {0, 2}


def test_the_choice_of_the_penalty_does_not_divide_groups(cloud: Cloud) -> None:
    noise = np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    twice, labels = np.repeat(noise, 2, axis=0), np.repeat(np.arange(60) % 3, 2)
    ungrouped = fit_head(twice, labels, np.arange(120), 3, seed=1)
    grouped = fit_head(twice, labels, np.repeat(np.arange(60), 2), 3, seed=1)
    # A weak penalty lets a head memorize noise. This helps only if the head was fitted on a copy of the
    # image that it predicts, so the penalty is stronger if both copies are in one group.
    assert grouped.inverse_strength < ungrouped.inverse_strength


def test_twins_are_in_one_fold_and_every_image_counts_once(result: Probe) -> None:
    catalog = result.dataset.store.catalog
    fold_of = dict(
        zip((catalog.paths[i] for i in result.records), result.folds.tolist(), strict=True)
    )
    assert len(fold_of) == len(CLASSES) * (PER_CLASS + 2)
    for name in CLASSES:
        assert fold_of[f"{name}/03.png"] == fold_of[f"{name}/03 copy.png"]
        assert fold_of[f"{name}/05.png"] == fold_of[f"{name}/05 large.png"]
    counts = np.zeros((5, len(CLASSES)), int)
    np.add.at(counts, (result.folds, result.labels), 1)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 2


def test_accuracy_interval_and_mcnemar_test_follow_from_the_predictions(
    result: Probe, tmp_path: Path
) -> None:
    best, other = result.rows
    assert {best.classifier, other.classifier} == {LOGISTIC, KNN}
    best_correct, other_correct = (row.predicted == result.labels for row in result.rows)
    assert best.accuracy == best_correct.mean() >= other.accuracy == other_correct.mean()
    assert best.interval == wilson_interval(int(best_correct.sum()), len(best_correct))
    num_only_best = int((best_correct & ~other_correct).sum())
    num_only_other = int((other_correct & ~best_correct).sum())
    assert other.mcnemar_p == mcnemar_p(num_only_best, num_only_other)
    write_probe(result, tmp_path)
    rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()]
    assert len(rows) == 1 + len(result.records)
    column = rows[0].index(f"Tiny {best.classifier}")
    assert np.mean([row[column] == row[1] for row in rows[1:]]) == best.accuracy
    assert f"{best.accuracy:.4f}" in table_lines(result)[1]
    with Image.open(tmp_path / "probe.png") as figure:
        assert figure.width > 500


@pytest.mark.usefixtures("without_figures")
def test_the_saved_run_has_the_accuracy_of_its_head_and_can_predict(
    result: Probe, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, accuracy = save_best_head(result, str(tmp_path / "run"))
    row, is_val = result.best_logistic_row, result.folds == 0
    assert accuracy == (row.predicted == result.labels)[is_val].mean()
    evaluation = evaluate_run(str(run_dir))
    predictions = evaluation.report.predictions
    catalog = result.dataset.store.catalog
    paths = [catalog.paths[record] for record in result.records[is_val]]
    assert list(predictions.paths) == paths
    np.testing.assert_array_equal(predictions.classes, row.predicted[is_val])
    assert evaluation.report.loss == pytest.approx(row.losses[is_val].mean(), rel=1e-3)
    (listed,) = list_runs(run_dir)
    assert (listed.state, listed.accuracy) == ("finished", accuracy)
    table = tmp_path / "predictions.csv"
    assert main(["predict", str(run_dir), str(data / "ash"), f"--out={table}"]) == 0
    assert len(table.read_text().splitlines()) == 1 + PER_CLASS + 2
    capsys.readouterr()
    assert read_settings(run_dir)["resolved"]["split"] == "fold"
    config = {name: value for name, value in read_settings(run_dir).items() if name != "resolved"}
    assert TrainConfig(**config).head == "fitted"  # so training with flags.txt fits the head again


def test_training_starts_from_the_head_that_fits_the_training_images(
    data: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(str(data), image_size=SIZE, cache="ram", cache_dir=tmp_path)
    network = build_network(model="tiny", num_classes=3, image_size=SIZE, weights="none")
    body = [weights.copy() for weights in network.get_weights()[:-2]]
    head = start_from_fitted_head(network, dataset, seed=0)
    kernel, bias = network.get_weights()[-2:]
    np.testing.assert_array_equal(kernel, head.kernel)
    np.testing.assert_array_equal(bias, head.bias)
    for before, after in zip(body, network.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(before, after)
    records = dataset.split.train
    probabilities = network.predict(dataset.store.read(records).numpy(), verbose=0)
    labels = dataset.store.catalog.labels[records]
    features = keras.Model(network.input, network.get_layer("pool").output).predict(
        dataset.store.read(records).numpy().astype(np.float32), verbose=0
    )
    x, _ = scaled(features, features)
    oracle = LogisticRegression(C=head.inverse_strength, tol=1e-6, max_iter=2000).fit(x, labels)
    np.testing.assert_allclose(probabilities, oracle.predict_proba(x), atol=0.03)


@pytest.mark.usefixtures("without_figures")
def test_a_run_with_a_fitted_head_has_the_accuracy_of_its_saved_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model=tiny", "--weights=none", f"--image_size={SIZE}", "--epochs=1", "--lr=1e-9"]
    flags += ["--recipe=original", "--min_lr=0", "--bn_momentum=0.9999", f"--data_dir={data}"]
    flags += ["--augment_impl=tf_image"]
    assert main(["train", *flags, "--head=fitted", f"--run_dir={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr().out
    assert "head      fitted on" in shown
    values = json.loads(shown.split("RESULT ")[1].splitlines()[0])
    config = TrainConfig(data_dir=str(data))
    dataset = load_dataset(
        str(data), image_size=SIZE, cache="ram", cache_dir=tmp_path, seed=config.seed
    )
    keras.utils.set_random_seed(config.seed)
    trained = load_model(RunPaths(tmp_path / "run").best)
    records = dataset.split.val
    predicted = trained.predict(dataset.store.read(records).numpy(), verbose=0).argmax(axis=1)
    accuracy = (predicted == dataset.store.catalog.labels[records]).mean()
    assert values["val_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "--models: is missing"),
        (["--models=tiny", "--folds=1"], "--folds=1: pass a number from 2"),
        (["--models=tiny,tinny"], "--model=tinny"),
        (["--models=tiny", "--folds=60"], "--folds=60: there are only"),
        (["--models=tiny", "--save={data}"], "--save={data}: already exists"),
        (["--models=tiny", "--group_regex=("], "--group_regex=(: not a pattern"),
    ],
)
def test_wrong_flags_of_probe_give_a_one_line_error(
    flags: list[str], text: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [flag.replace("{data}", str(data)) for flag in flags]
    given += ["--weights=none", f"--image_size={SIZE}", f"--out={tmp_path / 'out'}"]
    assert main(["probe", str(data), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text.replace("{data}", str(data)) in line


def test_without_scikit_learn_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec

    def find_spec(name: str, *args: Any) -> Any:
        return None if name == "sklearn" else find(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert main(["probe", str(data), "--models=tiny", f"--out={tmp_path / 'out'}"]) == 2
    assert "pip install 'seedtf[probe]'" in capsys.readouterr().err
    config = TrainConfig(data_dir=str(data), head="fitted", weights="none")
    with pytest.raises(UserError, match=r"--head=fitted: needs scikit-learn"):
        resolve(config, Machine(sklearn=False))


def test_a_fitted_head_with_several_workers_is_an_error(data: Path) -> None:
    cluster = json.dumps(
        {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    )
    config = TrainConfig(data_dir=str(data), head="fitted", weights="none")
    with pytest.raises(UserError, match="--head=fitted: several workers"):
        resolve(config, Machine(tf_config=cluster))


def test_the_figure_has_a_point_for_each_row_of_the_table(result: Probe) -> None:
    (axes,) = draw_probe(result.rows, title="$leaf$").axes
    assert len(axes.containers) == len(result.rows)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"Tiny at {SIZE} px"] * 2
