"""A heat map shows what each part of an image adds to a logit: in reports, predictions and exports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_run import IMAGE_SIZE, copy_run, make_run

from seedtf.commands.main import run_command
from seedtf.errors import UserError
from seedtf.evaluation import demo, predict, report
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.evaluation.report import read_thumbnail
from seedtf.export.serving_graph import ServingModule
from seedtf.images.header import MAX_PIXELS
from seedtf.model.activation_map import check_has_maps, make_map_function, split_for_maps
from seedtf.model.network import HEAD, build_network
from seedtf.plots.heatmap import draw_heatmap
from seedtf.runs.open import load_run, open_validation


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_folder)


def noise(num_images: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (num_images, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def test_the_mean_of_a_map_plus_the_bias_is_the_logit(run_dir: Path) -> None:
    model = load_run(run_dir).load_model()
    head = model.get_layer(HEAD)
    head.bias.assign(np.array([0.5, -1, 2], np.float32))
    get_features_and_logits, get_map = split_for_maps(model)
    features, logits = get_features_and_logits(noise())
    for label in range(3):
        heat = get_map(features, tf.fill([4], label)).numpy()
        bias = head.bias.numpy()[label]
        assert heat.dtype == np.float32
        np.testing.assert_allclose(heat.mean((1, 2)) + bias, logits[:, label], atol=1e-4)
    assert np.ptp(heat[0]) > 1e-3


def test_the_map_of_an_ensemble_is_the_mean_of_the_maps_of_its_members() -> None:
    models = [
        build_network(model="tiny", num_classes=3, image_size=IMAGE_SIZE, weights="none")
        for _ in range(2)
    ]
    classes = np.array([0, 1, 2, 0])
    maps = [make_map_function([model])(noise(), classes).numpy() for model in models]
    np.testing.assert_allclose(
        make_map_function(models)(noise(), classes), np.mean(maps, 0), atol=1e-6
    )


def test_a_network_without_pooling_is_refused_in_one_line() -> None:
    inputs = tf.keras.Input((4,))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2, name=HEAD)(inputs), name="mlp")
    with pytest.raises(
        UserError, match=r"^--heatmap: mlp does not end with global average pooling"
    ):
        check_has_maps(model, "--heatmap")


def test_a_drawn_map_keeps_the_size_and_highlights_its_maximum() -> None:
    image = np.full((20, 30, 3), 100, np.uint8)
    drawn = draw_heatmap(image, np.array([[0.0, 0.0], [0.0, 5.0]]))
    assert drawn.shape == image.shape
    assert drawn[-1, -1].sum() == drawn.sum(axis=-1).max() > drawn[0, 0].sum()
    # A constant map has one colour, so the drawn image has one value in each of its three channels.
    assert np.unique(draw_heatmap(image, np.zeros((2, 2)))).size <= 3


def test_predict_writes_a_png_for_each_image_and_names_it(
    run_dir: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = tmp_path / "maps", tmp_path / "p.csv"
    (tmp_path / "bad.png").write_bytes(b"no image")
    given = [str(tiny_folder / "alder"), str(tiny_folder / "two words"), str(tmp_path / "bad.png")]
    arguments = [str(run_dir), *given, f"--out={table}", f"--heatmaps={folder}", "--topk=1"]
    assert run_command("predict", arguments) == 3  # because of the bad file
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["heatmap"] for row in rows]
    assert sorted(name for name in names if name) == sorted(p.name for p in folder.iterdir())
    # The 13 names differ, although the files in the two folders have equal names.
    assert len(set(names)) == 13
    assert names[-1] == ""
    with Image.open(folder / names[0]) as drawn:
        assert drawn.size == (512, 410)
    capsys.readouterr()
    assert run_command("predict", [*arguments, f"--out={tmp_path / 'q.csv'}"]) == 2
    assert "holds files; pass another folder or --overwrite" in capsys.readouterr().err


def test_the_image_below_a_heat_map_is_read_with_max_pixels_of_the_run(
    run_dir: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(tiny_folder / "alder" / "0.png")  # of 20×16 pixels
    assert read_thumbnail(image, 8, "stretch", 319) is None
    assert read_thumbnail(image, 10, "stretch", 320).shape == (8, 10, 3)
    run = copy_run(run_dir, tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())
    limit = 2 * MAX_PIXELS
    (run / "config.json").write_text(json.dumps({**settings, "max_pixels": limit}))
    limits = []
    for module in (demo, predict, report):
        monkeypatch.setattr(module, "read_thumbnail", lambda *given: limits.append(given[3]))
    demo.Demo(run).answer(image)
    flags = [f"--out={tmp_path / 'p.csv'}", f"--heatmaps={tmp_path / 'maps'}"]
    assert run_command("predict", [str(run), image, *flags]) == 0
    assert limits == [limit, limit]
    assert evaluate_run(str(run), out=str(tmp_path / "report")).context.max_pixels == limit
    assert set(limits[2:]) == {limit}  # the report has several images


def test_the_report_shows_heat_maps_if_a_checkbox_is_ticked(run_dir: Path, tmp_path: Path) -> None:
    page = evaluate_run(str(run_dir), out=str(tmp_path / "report")).page.read_text()
    assert page.count('class="heat"') == page.count('class="path"') > 0
    assert '<input type="checkbox" id="heat">' in page
    assert "<script" not in page


def test_a_serving_module_returns_heat_maps_only_if_it_is_made_for_them(
    run_dir: Path, tmp_path: Path
) -> None:
    run = load_run(run_dir)
    store, records = open_validation(run)
    model = run.load_model()
    (tmp_path / "classes.txt").touch()
    arguments = model, run.class_names, 1.7, str(tmp_path / "classes.txt")
    module = ServingModule(*arguments, heatmap=True)
    images = store.read(tf.constant(records[:3]))
    best = model(tf.cast(images, tf.float32)).numpy().argmax(1)
    expected = make_map_function([model])(images, best)
    outputs = module.serve_image(images)
    np.testing.assert_allclose(outputs["heatmap"], expected, atol=1e-4)
    paths = [store.catalog.absolute_paths()[record] for record in records[:3]]
    contents = tf.stack([*(tf.io.read_file(path) for path in paths), b"no image"])
    heat = module.serve_bytes(contents)["heatmap"].numpy()
    np.testing.assert_allclose(heat[:3], expected, atol=1e-4)
    assert not heat[3].any()
    plain = ServingModule(*arguments).serve_image(images)
    assert "heatmap" not in plain
    np.testing.assert_allclose(plain["probabilities"], outputs["probabilities"], atol=1e-6)
