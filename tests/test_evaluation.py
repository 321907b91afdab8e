"""Evaluation predicts each image in one view or in eight; the report agrees with the predictions.

The eight views of an image are its four rotations by quarter turns, and their mirror images.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_run import IMAGE_SIZE, copy_run, draw_classes, make_run

from seedtf.commands.main import main
from seedtf.errors import UserError
from seedtf.evaluation.evaluate import (
    Predictions,
    compute_report,
    make_predict_fn,
    predict_store,
    top_classes,
    top_losses,
)
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.runs.open import load_run, open_labelled, open_validation

pytestmark = pytest.mark.usefixtures("module_without_figures")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny_folder):
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_folder)


@pytest.fixture(scope="module")
def model(run_dir):
    return load_run(run_dir).load_model()


def noise(num_images=3):
    generator = np.random.default_rng(0)
    return generator.uniform(0, 255, (num_images, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def make_predictions(labels, probabilities):
    probabilities = np.asarray(probabilities, np.float32)
    paths = tuple(f"{index}.png" for index in range(len(labels)))
    names = tuple("abcdefgh"[: probabilities.shape[1]])
    return Predictions(paths, np.asarray(labels, np.int32), probabilities, names)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_image_is_predicted_once_in_order(run_dir, model, batch_size):
    store, records = open_validation(load_run(run_dir))
    predicted = predict_store(make_predict_fn(model), store, records, batch_size)
    assert predicted.paths == store.catalog.paths
    images = store.read(tf.constant(records)).numpy()
    expected = model.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(predicted.probabilities, expected, atol=1e-6)
    assert predicted.probabilities.dtype == np.float32


def test_the_validation_images_are_those_that_split_csv_names(run_dir, model):
    store, records = open_validation(load_run(run_dir))
    predicted = predict_store(make_predict_fn(model), store, records, 8)
    rows = (run_dir / "split.csv").read_text().splitlines()
    assert list(predicted.paths) == sorted(r.split(",")[0] for r in rows if r.endswith(",val"))


def test_test_images_have_a_report_of_their_own(run_dir, tmp_path):
    copy = copy_run(run_dir, tmp_path / "run")
    header, *rows = (copy / "split.csv").read_text().splitlines()
    rows = [row.replace(",val", ",test") if "/1.png" in row else row for row in rows]
    (copy / "split.csv").write_text("\n".join([header, *rows, ""]))
    evaluation = evaluate_run(str(copy))
    test = evaluation.test
    assert (len(evaluation.report.losses), len(test.report.losses)) == (6, 3)
    assert {path.rpartition("/")[2] for path in test.report.predictions.paths} == {"1.png"}
    assert test.report.temperature == evaluation.report.temperature
    values = json.loads((copy / "report" / "report.json").read_text())
    assert values["test"]["accuracy"] == test.report.accuracy
    page = (copy / "report" / "index.html").read_text()
    assert "validation accuracy" in page
    assert "test accuracy" in page
    test_page = (copy / "report" / "test" / "index.html").read_text()
    assert "not used for training or to choose" in test_page
    assert json.loads((copy / "report" / "test" / "report.json").read_text())["test"] is None


def test_a_label_in_split_csv_that_is_no_class_is_refused_in_one_line(run_dir, tmp_path, capsys):
    copy = copy_run(run_dir, tmp_path / "run")
    table = copy / "split.csv"
    table.write_text(re.sub("(?m)^([^,]+),[^,]+,val$", r"\1,bamboo,val", table.read_text()))
    assert main(["evaluate", str(copy)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{table}: the label 'bamboo' of " in error


def test_eight_views_are_the_symmetries_of_the_square(model):
    images = noise()
    views = [np.rot90(v, k, (1, 2)) for v in (images, images[:, :, ::-1]) for k in range(4)]
    assert len({view.tobytes() for view in views}) == 8
    expected = np.mean([model.predict(view, verbose=0) for view in views], axis=0)
    predict = make_predict_fn(model, tta=8)
    np.testing.assert_allclose(predict(tf.constant(images)), expected, atol=1e-6)
    # Rotated and mirrored images have the same eight views, in another order.
    turned = predict(tf.constant(np.ascontiguousarray(np.rot90(images, 1, (1, 2))[:, ::-1])))
    np.testing.assert_allclose(turned, expected, atol=1e-6)
    assert np.abs(make_predict_fn(model)(tf.constant(images)) - expected).max() > 1e-4


def test_an_output_that_is_not_a_number_is_refused(run_dir):
    store, records = open_validation(load_run(run_dir))
    with pytest.raises(UserError, match="not a number"):
        predict_store(lambda images: np.full((len(images), 3), np.nan), store, records, 8)


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 1000))
def test_a_report_agrees_with_its_predictions(num_images, num_classes, seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.integers(1, 4, (num_images, num_classes)).astype(np.float32)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = generator.integers(0, num_classes, num_images)
    predictions = make_predictions(labels, probabilities)
    report = compute_report(predictions, precision_target=0.9, temperature=1.0)
    top1 = top_classes(probabilities, 1)[:, 0]
    num_correct = (top1 == labels).sum()
    assert report.confusion.trace() == num_correct
    assert report.accuracy == num_correct / num_images
    assert report.accuracy_interval[0] <= report.accuracy <= report.accuracy_interval[1]
    # A prediction with a positive margin is correct.
    assert ((report.margins > 0) <= (top1 == labels)).all()
    worst = top_losses(report, num_images)
    assert sorted(worst) == np.flatnonzero(top1 != labels).tolist()
    assert (np.diff(report.losses[worst]) <= 0).all()


def test_without_a_temperature_nothing_is_scaled():
    report = compute_report(make_predictions([0], [[0.6, 0.4]]), precision_target=0.9)
    assert (report.temperature, report.reliability_scaled, report.reject_scaled) == (None,) * 3


def test_top_losses_are_the_highest_losses_of_misclassified_images():
    report = compute_report(
        make_predictions([0, 0, 0], [[0.1, 0.9], [0.7, 0.3], [0.05, 0.95]]), precision_target=0.9
    )
    assert top_losses(report, 5).tolist() == [2, 0]
    assert top_losses(report, 1).tolist() == [2]


def test_the_report_on_another_folder_takes_the_temperature_of_the_validation_images(
    run_dir, tiny_folder, tmp_path
):
    run = copy_run(run_dir, tmp_path / "run")
    other = str(tiny_folder)
    assert evaluate_run(str(run), data_dir=other).report.temperature is None
    fitted = evaluate_run(str(run)).report.temperature
    evaluation = evaluate_run(str(run), data_dir=other)
    assert fitted is not None
    assert evaluation.report.temperature == fitted
    assert evaluation.page == run / f"report-{tiny_folder.name}" / "index.html"
    assert len(evaluation.report.losses) == 18
    # Eight views need another temperature. It is written to a report of its own, because an export
    # reads the temperature in report/.
    before = (run / "report" / "report.json").read_bytes()
    assert evaluate_run(str(run), tta=8).page.parent == run / "report-tta8"
    assert (run / "report" / "report.json").read_bytes() == before
    assert json.loads(before)["temperature"] == fitted


def test_an_unknown_class_is_refused(run_dir, tmp_path):
    other = draw_classes(tmp_path / "other", ["alder", "zebra"])
    with pytest.raises(UserError, match="'zebra'"):
        open_labelled(load_run(run_dir), str(other))


def test_a_subset_of_the_classes_keeps_the_class_list_of_the_run(run_dir, tmp_path):
    other = draw_classes(tmp_path / "other", ["öland rye"])
    run = copy_run(run_dir, tmp_path / "run")
    report = evaluate_run(str(run), data_dir=str(other), out=str(tmp_path / "out")).report
    assert report.scores.support.tolist() == [0, 0, 4]


def test_a_damaged_image_is_skipped_and_named(run_dir, tiny_copy, tmp_path):
    (tiny_copy / "alder" / "0.png").write_bytes(b"no image")
    run = copy_run(run_dir, tmp_path / "run")
    evaluation = evaluate_run(str(run), data_dir=str(tiny_copy))
    assert [fault.path for fault in evaluation.context.skipped] == ["alder/0.png"]
    assert len(evaluation.report.losses) == 17
    assert "alder/0.png: not an image" in evaluation.page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels_csv": "x.csv"}, "--labels_csv=x.csv: needs --data_dir"),
        ({"split_column": "part"}, "--split_column=part: needs --data_dir"),
        ({"data_dir": "nowhere"}, "--data_dir=nowhere: no such folder"),
        ({"out": "{run}"}, "already exists; pass another folder or --overwrite"),
    ],
)
def test_wrong_arguments_are_refused_by_name(run_dir, arguments, message):
    filled = {name: value.format(run=run_dir) for name, value in arguments.items()}
    with pytest.raises(UserError) as error:
        evaluate_run(str(run_dir), **filled)
    assert message in str(error.value)


def test_a_folder_that_is_not_a_run_is_named(run_dir, tmp_path):
    with pytest.raises(UserError, match="no such run"):
        evaluate_run(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"not a run of seedtf train \(no config.json\)"):
        evaluate_run(str(tmp_path))
    run = copy_run(run_dir, tmp_path / "run")
    (run / "classes.txt").write_text("only\ntwo\n")
    with pytest.raises(UserError, match=r"has 3 outputs but classes\.txt has 2 names"):
        evaluate_run(str(run))


def test_a_missing_validation_image_is_named(tiny_copy, tmp_path):
    run = make_run(tmp_path / "run", tiny_copy)
    (tiny_copy / "alder" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 9 validation images .*'alder/1.png'"):
        evaluate_run(str(run))


def test_images_of_any_size_and_kind_are_evaluated(run_dir, tmp_path):
    folder = tmp_path / "mixed" / "alder"
    folder.mkdir(parents=True)
    Image.new("L", (5, 90), 7).save(folder / "grey.jpg")
    Image.new("RGBA", (33, 20), (1, 2, 3, 100)).save(folder / "clear.png")
    run = copy_run(run_dir, tmp_path / "run")
    assert len(evaluate_run(str(run), data_dir=str(tmp_path / "mixed")).report.losses) == 2
