"""Snapshots: models saved at the lowest learning rate of each cycle; their predictions are averaged."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_run import IMAGE_SIZE, copy_run, make_run

from seedtf.commands.main import main
from seedtf.errors import UserError
from seedtf.evaluation.classifier import open_classifier
from seedtf.evaluation.evaluate import make_mean_predict_fn, make_predict_fn
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.model.network import build_network, load_model, save_model
from seedtf.runs.paths import RunPaths
from seedtf.training.callbacks.checkpoints import Snapshots, snapshot_epochs
from seedtf.training.optim.schedules import cyclic_decay

pytestmark = pytest.mark.usefixtures("module_without_figures")
SNAPSHOT_EPOCHS = (4, 10)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny_folder):
    """A run with two snapshots, another best model, and two files that are named like snapshots."""
    run = make_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_folder)
    for epoch in SNAPSHOT_EPOCHS:
        keras.utils.set_random_seed(epoch)
        network = build_network(model="tiny", num_classes=3, image_size=IMAGE_SIZE, weights="none")
        save_model(network, run / "checkpoints" / f"snapshot-{epoch:04d}.keras")
    (run / "checkpoints" / "snapshot-0001.keras.part").write_bytes(b"no snapshot")
    (run / "checkpoints" / "snapshot-old.keras").write_bytes(b"no snapshot")
    return run


def saved_names(cycle_epochs: float, epochs: int, first: int = 0) -> list[str]:
    """The names of the files that the callback saves from epoch ``first`` to the end of the run."""
    saved: list[Path] = []
    ends = snapshot_epochs(cycle_epochs, epochs, per_step=True)
    callback = Snapshots(RunPaths(Path("c")), lambda _, path: saved.append(path), ends)
    for epoch in range(first, epochs):
        callback.on_epoch_end(epoch)
    assert all(path.parent == Path("c/checkpoints") for path in saved)
    return [path.name for path in saved]


@pytest.mark.parametrize(
    ("cycle_epochs", "epochs", "per_step", "expected"),
    [
        (3.0, 9, True, [3, 6, 9]),
        (3.0, 8, True, [3, 6]),  # the last cycle is cut short before its lowest rate
        (2.5, 10, True, [2, 5, 7, 10]),
        (2.5, 10, False, [3, 5, 8, 10]),
        (10.0, 4, True, []),
        (0.5, 3, True, [1, 2, 3]),
        (0.1, 3, True, [1, 2, 3]),
        (1.0, 1, False, [1]),
    ],
)
def test_the_epoch_at_the_minimum_of_every_whole_cycle_is_saved(
    cycle_epochs, epochs, per_step, expected
):
    assert snapshot_epochs(cycle_epochs, epochs, per_step=per_step) == expected


@given(st.integers(4, 60).map(lambda n: n / 4), st.integers(1, 60), st.booleans())
def test_the_snapshot_of_a_cycle_has_its_lowest_rate(cycle_epochs, epochs, per_step):
    def time_of_last_rate(epoch):
        return math.nextafter(epoch, 0) if per_step else epoch - 1

    def rate(epoch):
        last = time_of_last_rate(epoch)
        return cyclic_decay(last, lr=1.0, min_lr=0.0, cycle_epochs=cycle_epochs, cycle_decay=1.0)

    found = snapshot_epochs(cycle_epochs, epochs, per_step=per_step)
    for number, epoch in enumerate(found):
        epochs_of_cycle = [
            each
            for each in range(1, epochs + 1)
            if number * cycle_epochs <= time_of_last_rate(each) < (number + 1) * cycle_epochs
        ]
        assert epoch in epochs_of_cycle
        assert rate(epoch) <= min(map(rate, epochs_of_cycle)) + 1e-9
    assert len(found) == math.floor(epochs / cycle_epochs)


@given(st.floats(0.1, 20), st.integers(1, 40), st.data())
def test_a_resumed_run_saves_the_missing_snapshots(cycle_epochs, epochs, data):
    done = data.draw(st.integers(0, epochs))
    uninterrupted = saved_names(cycle_epochs, epochs)
    assert uninterrupted == sorted(set(uninterrupted))
    missing = saved_names(cycle_epochs, epochs, first=done)
    # Characters 9 to 12 of snapshot-0004.keras are the number of the epoch.
    assert missing == [name for name in uninterrupted if int(name[9:13]) > done]


def test_several_models_predict_the_mean_of_their_probabilities(run_dir):
    models = [
        load_model(run_dir / "checkpoints" / f"snapshot-{e:04d}.keras") for e in SNAPSHOT_EPOCHS
    ]
    pixels = np.random.default_rng(0).uniform(0, 255, (5, IMAGE_SIZE, IMAGE_SIZE, 3))
    images = tf.constant(pixels, tf.float32)
    separate = [make_predict_fn(model)(images) for model in models]
    mean = make_mean_predict_fn(models)(images)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.mean(separate, axis=0), atol=1e-7)
    np.testing.assert_allclose(mean.sum(axis=1), 1, atol=1e-6)
    assert all(np.abs(mean - probabilities).max() > 1e-3 for probabilities in separate)
    alone = make_mean_predict_fn(models[:1])(images)
    np.testing.assert_array_equal(alone, make_predict_fn(models[0])(images))


def test_evaluate_and_predict_use_all_snapshots(run_dir, tiny_folder, tmp_path, capsys):
    run = copy_run(run_dir, tmp_path / "run")
    assert main(["evaluate", str(run), "--snapshots"]) == 0
    shown = capsys.readouterr().out
    assert "by the mean of 2 snapshots" in shown
    assert json.loads(shown.splitlines()[-1].removeprefix("RESULT "))["snapshots"] == 2
    report = run / "report-snapshots"
    assert "tiny, mean of 2 snapshots" in (report / "index.html").read_text(encoding="utf-8")
    with (report / "predictions_val.csv").open(newline="", encoding="utf-8") as file:
        evaluated = next(csv.DictReader(file))

    # The image has noise, because all views of an image of one colour would be equal.
    noise = np.random.default_rng(1).integers(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    image_paths = [str(tiny_folder / evaluated["path"]), str(tmp_path / "noise.png")]
    out = tmp_path / "p"
    confidences = []
    for flags in ([], ["--snapshots"], ["--snapshots", "--tta=8"]):
        command = ["predict", str(run), *image_paths, *flags, f"--out={out}", "--overwrite"]
        assert main(command) == 0
        with out.open(newline="", encoding="utf-8") as file:
            first, second = csv.DictReader(file)
        confidences.append(second["p1"])
        if flags == ["--snapshots"]:
            assert first["top1"] == evaluated["top1"]
            assert float(first["p1"]) == pytest.approx(float(evaluated["p1"]), abs=1e-6)
    assert len(set(confidences)) == 3


def test_the_temperature_of_snapshots_is_that_of_their_own_report(run_dir, tiny_folder, tmp_path):
    run = copy_run(run_dir, tmp_path / "run")
    for name, temperature in (("report", 0.5), ("report-snapshots", 1.5)):
        (run / name).mkdir()
        (run / name / "report.json").write_text(json.dumps({"temperature": temperature}))
    found = evaluate_run(str(run), data_dir=str(tiny_folder), snapshots=True)
    assert (found.report.temperature, found.num_snapshots) == (1.5, 2)
    assert found.page.parent == run / f"report-{tiny_folder.name}-snapshots"


def test_a_run_without_snapshots_gives_a_one_line_error(tmp_path, tiny_folder, capsys):
    run = make_run(tmp_path / "run", tiny_folder)
    for command in (
        ["evaluate", str(run), "--snapshots"],
        ["predict", str(run), str(tiny_folder), "--snapshots", f"--out={tmp_path / 'p.csv'}"],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "--snapshots:" in error and "has no snapshot-*.keras" in error
    assert not (run / "report-snapshots").exists()


def test_an_unusable_snapshot_is_named(run_dir, tmp_path):
    run = copy_run(run_dir, tmp_path / "run")
    (run / "checkpoints" / "snapshot-0004.keras").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"snapshot-0004\.keras: the file is damaged"):
        evaluate_run(str(run), snapshots=True)
    keras.utils.set_random_seed(0)
    other = build_network(model="tiny", num_classes=2, image_size=IMAGE_SIZE, weights="none")
    save_model(other, run / "checkpoints" / "snapshot-0004.keras")
    with pytest.raises(UserError, match=r"snapshot-0004\.keras: has 2 outputs"):
        open_classifier(run, snapshots=True)


def test_an_export_has_no_snapshots(tmp_path):
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "1"))
    with pytest.raises(UserError, match="--snapshots: does not apply to an export"):
        open_classifier(tmp_path, snapshots=True)
