"""``seedtf demo``: the calibrated probabilities, verdict and heat map of one image, on a local page.

The page itself is tested only where gradio is installed, because gradio needs an older Pillow than the
other tests.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import copy_run, make_run

from seedtf.commands.arguments import parse_config
from seedtf.commands.demo import DemoConfig
from seedtf.commands.main import main
from seedtf.evaluation.classifier import open_classifier
from seedtf.evaluation.demo import Answer, Demo
from seedtf.evaluation.demo_page import import_gradio, make_page, start_page
from seedtf.evaluation.metrics import scale_probabilities
from seedtf.export.serving_graph import ServingModule
from seedtf.runs.open import load_run
from seedtf.runs.paths import RunPaths

TEMPERATURE, THRESHOLD = 2.5, 0.6


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run with a report, and with an export that has heat maps."""
    run = make_run(tmp_path_factory.mktemp("demo") / "tiny", tiny_folder)
    values = RunPaths(run).report.report_json
    values.parent.mkdir()
    # The demo must use the threshold for calibrated probabilities, not 0.9, the one for raw ones.
    rules = {"reject": {"threshold": 0.9}, "reject_with_temperature": {"threshold": THRESHOLD}}
    values.write_text(json.dumps({"temperature": TEMPERATURE, **rules}))
    loaded = load_run(run)
    arguments = loaded.load_model(), loaded.class_names, TEMPERATURE, str(run / "classes.txt")
    module = ServingModule(*arguments, heatmap=True)
    folder = str(RunPaths(run).export / "1")
    tf.saved_model.save(module, folder, signatures=module.signatures())
    return run


@pytest.fixture(scope="module")
def demos(run_dir: Path) -> dict[str, Demo]:
    return {"run": Demo(run_dir), "export": Demo(RunPaths(run_dir).export)}


@pytest.fixture
def image(tiny_folder: Path) -> Path:
    return min(tiny_folder.rglob("*.png"))


def test_the_answers_are_calibrated(demos, run_dir: Path, image: Path) -> None:
    raw = open_classifier(run_dir).predict(image, k=3)
    calibrated = scale_probabilities(np.asarray([raw.probabilities]), TEMPERATURE)[0]
    for demo in demos.values():
        answer = demo.answer(image)
        assert tuple(answer.probabilities) == raw.names
        assert list(answer.probabilities.values()) == pytest.approx(calibrated.tolist(), abs=1e-5)


def test_a_run_and_its_export_draw_the_same_heat_map(demos, image: Path) -> None:
    of_run, of_export = (demo.answer(image).heatmap for demo in demos.values())
    assert of_run.shape == (410, 512, 3)
    assert of_run.dtype == np.uint8
    assert np.abs(of_run.astype(int) - of_export).max() <= 2
    assert np.ptp(of_run) > 50


def test_the_heat_map_is_drawn_over_the_square_that_the_model_sees(
    run_dir: Path, image: Path, tmp_path: Path
) -> None:
    run = copy_run(run_dir, tmp_path / "run")
    settings = json.loads(RunPaths(run).config.read_text())
    RunPaths(run).config.write_text(json.dumps({**settings, "fit": "crop"}))
    assert Demo(run).answer(image).heatmap.shape == (512, 512, 3)


def test_the_threshold_of_the_report_or_a_given_one_decides_the_verdict(
    demos, run_dir, image
) -> None:
    for name, demo in demos.items():
        assert demo.threshold == THRESHOLD, name
        confidence = max(demo.answer(image).probabilities.values())
        rejecting = Demo(run_dir, threshold=min(confidence + 0.01, 1.0))
        assert rejecting.answer(image).verdict.startswith(f"rejected: {confidence:.4f} is below")
        accepting = Demo(run_dir, threshold=confidence - 0.01)
        assert accepting.answer(image).verdict.startswith(f"accepted: {confidence:.4f}")


@pytest.mark.parametrize("kind", ["folds.json", "ensemble.json"])
def test_no_temperature_is_applied_to_the_mean_of_several_runs(
    tmp_path, run_dir, image, monkeypatch, kind
) -> None:
    (tmp_path / kind).touch()
    values = RunPaths(tmp_path).report.report_json
    values.parent.mkdir()
    values.write_bytes(RunPaths(run_dir).report.report_json.read_bytes())
    classifier = open_classifier(run_dir)
    monkeypatch.setattr("seedtf.evaluation.demo.open_classifier", lambda *_, **__: classifier)
    demo, raw = Demo(tmp_path), classifier.predict(image, k=3)
    assert demo.threshold == 0.9
    assert demo.answer(image).probabilities == dict(zip(raw.names, raw.probabilities, strict=True))


def test_without_a_report_there_is_no_verdict(tmp_path, tiny_folder, image) -> None:
    run = make_run(tmp_path / "run", tiny_folder)
    assert Demo(run).threshold is None
    assert "run seedtf evaluate, or pass --threshold" in Demo(run).answer(image).verdict


def test_a_file_that_is_no_image_has_a_verdict_and_no_classes(demos, tmp_path) -> None:
    file = tmp_path / "notes.png"
    file.write_text("no image")
    for demo in demos.values():
        answer = demo.answer(file)
        assert (answer.probabilities, answer.heatmap) == ({}, None)
        assert answer.verdict.startswith("not classified: not an image")


def test_the_page_is_local_unless_a_flag_says_otherwise() -> None:
    config = parse_config(DemoConfig, "demo", ["runs/x"], positionals=("export",))
    assert (config.host, config.share, config.threshold) == ("127.0.0.1", False, "auto")


def test_without_gradio_one_line_says_what_to_install(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "nowhere"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "pip install 'seedtf[demo]'" in message


def test_the_page_answers_through_its_server_and_gets_the_unchanged_file(image) -> None:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install 'seedtf[demo]' in another environment")
    from gradio_client import Client, handle_file

    seen = []

    def answer(file: str) -> Answer:
        seen.append(Path(file).read_bytes())
        return Answer({"alder": 0.75, "öland rye": 0.25}, "accepted", np.zeros((8, 8, 3), np.uint8))

    gradio = import_gradio()
    page = make_page(gradio, answer, "seedtf: tiny")
    url = start_page(gradio, page, host="127.0.0.1")
    try:
        assert url.startswith("http://127.0.0.1:")
        client = Client(url, verbose=False)
        classes, verdict, heatmap = client.predict(handle_file(image), api_name="/predict")
    finally:
        page.close()
    assert seen == [image.read_bytes()]
    assert [each["label"] for each in classes["confidences"]] == ["alder", "öland rye"]
    assert (verdict, Path(heatmap).exists()) == ("accepted", True)
