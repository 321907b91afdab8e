"""``seedtf explore``: wrong labels come first; the page keeps and saves decisions without a server."""

from __future__ import annotations

import csv
import json
import runpy
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, open_browser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_run import make_run

from seedtf.commands.main import run_command
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog, scan_folder
from seedtf.data.check.check import Facts
from seedtf.data.check.near_duplicates import NUM_VIEWS, THUMBNAIL_SHAPE
from seedtf.data.fixes import FixTable
from seedtf.errors import UserError
from seedtf.explore import geometry
from seedtf.explore import page as page_module
from seedtf.explore.geometry import find_nearest, project_to_2d
from seedtf.explore.label_quality import cross_val_predict, find_wrong_labels, self_confidence
from seedtf.explore.page import write_page
from seedtf.explore.review import COLUMNS, choose_shown, review, table_lines
from seedtf.explore.sources import Explored, open_folds
from seedtf.files import csv_line
from seedtf.runs.folder import format_class_names
from seedtf.runs.folds import FoldRow, FoldsPaths

RNG = np.random.default_rng(5)
CLASSES = {"alder": (200, 60, 60), "elm & <b>": (60, 200, 60), "öland, rye": (60, 60, 200)}
FLAGS = ("--model=tiny", "--weights=none", "--image_size=16", "--map=pca")
MISPLACED = "alder/misplaced.png"


# Computed values, compared with those of the libraries that define them


def draw_outputs(
    seed: int, num_images: int = 300, num_classes: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, of which a tenth are random, and probabilities that favour the true labels."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, num_classes, num_images)
    logits = rng.normal(size=(num_images, num_classes)) + 2.5 * np.eye(num_classes)[true]
    exponentials = np.exp(logits)
    labels = np.where(rng.random(num_images) < 0.1, rng.integers(0, num_classes, num_images), true)
    labels[:num_classes] = np.arange(num_classes)
    return labels, exponentials / exponentials.sum(1, keepdims=True)


@given(st.integers(0, 10_000))
def test_label_quality_is_that_of_cleanlab(seed: int) -> None:
    rank = pytest.importorskip("cleanlab.rank")
    filters = pytest.importorskip("cleanlab.filter")
    labels, probabilities = draw_outputs(seed)
    quality = rank.get_label_quality_scores(labels, probabilities, method="self_confidence")
    np.testing.assert_allclose(self_confidence(labels, probabilities), quality)
    issues = filters.find_label_issues(
        labels, probabilities, filter_by="confident_learning", n_jobs=1
    )
    np.testing.assert_array_equal(find_wrong_labels(labels, probabilities), issues)


def test_predictions_are_those_of_a_discriminant_analysis_of_the_other_folds() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    labels = np.arange(200) % 3
    features = RNG.normal(size=(200, 6)) + 2 * np.eye(6)[labels]
    groups = np.arange(200) - np.arange(200) % 2  # pairs of images
    predictions = cross_val_predict(features, labels, 3, groups)
    for group in np.unique(groups):
        assert len(set(predictions.folds[groups == group])) == 1
    for fold in range(5):
        held_out, train = predictions.folds == fold, predictions.folds != fold
        assert set(labels[held_out]) == {0, 1, 2}
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
        expected = model.fit(features[train], labels[train]).predict_proba(features[held_out])
        np.testing.assert_allclose(predictions.probabilities[held_out], expected, atol=1e-6)


def test_neighbours_and_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    features = RNG.normal(size=(2100, 8)) * np.arange(1, 9)
    indices, distances = find_nearest(features, 5)
    scaled = StandardScaler().fit_transform(features)
    expected = NearestNeighbors(n_neighbors=6, metric="cosine").fit(scaled).kneighbors(scaled)
    # The first neighbour that scikit-learn gives for an image is the image itself.
    np.testing.assert_allclose(distances, expected[0][:, 1:], atol=1e-4)
    assert (indices == expected[1][:, 1:]).mean() > 0.99
    points, name = project_to_2d(features, "pca")
    components = PCA(2).fit_transform(features)
    assert name == "PCA"
    for axis in range(2):
        assert abs(np.corrcoef(points[:, axis], components[:, axis])[0, 1]) > 0.9999
    assert points.min() >= 0
    assert points.max() <= 1


def test_without_umap_learn_the_map_is_pca_and_the_flag_map_umap_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(geometry.importlib.util, "find_spec", lambda name: None)
    features = RNG.normal(size=(60, 4))
    assert project_to_2d(features, "auto")[1] == "PCA"
    with pytest.raises(
        UserError, match=r"--map=umap: umap-learn is not installed; run: pip install"
    ):
        project_to_2d(features, "umap")


# The images that a page shows


def make_explored(labels: np.ndarray, features: np.ndarray, probabilities: np.ndarray) -> Explored:
    """Made-up images for ``review``.

    Images 3, 7 and 11 are near duplicates, image 5 was decided before, and the last image is of poor
    quality.
    """
    count = len(labels)
    facts = Facts(
        np.zeros(count, np.dtype([("high", np.uint64), ("low", np.uint64)])),
        np.zeros(count, np.uint8),
        {count - 1: [("tiny", "8×8 pixels"), ("grey", "")]},
        np.zeros((count, 2), np.int32),
        np.zeros((count, NUM_VIEWS), np.uint64),
        np.zeros((count, NUM_VIEWS, *THUMBNAIL_SHAPE), np.uint8),
        np.tile(np.float32([5, 0, 200, 0, 30]), (count, 1)),
    )
    near_duplicates = np.arange(count)
    near_duplicates[[7, 11]] = 3
    names = tuple(f"class {n}" for n in range(probabilities.shape[1]))
    paths = [f"{number:05d}.png" for number in range(count)]
    return Explored(
        Catalog(Path("d"), paths, labels.astype(np.int32), names),
        facts,
        near_duplicates,
        features,
        probabilities,
        tuple("fold 1" if number == 11 else "fold 0" for number in range(count)),
        tuple(f"plant {number // 50}" for number in range(count)),
        np.arange(count) == 5,
        (),
        lambda indices, classes: iter([None] * len(indices)),
        "a test",
    )


def test_flipped_labels_come_first() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 1000)
    features = rng.normal(size=(1000, 12)) + 2.5 * np.eye(12)[true]
    flipped = rng.choice(1000, 50, replace=False)
    labels = true.copy()
    labels[flipped] = (true[flipped] + rng.integers(1, 5, 50)) % 5
    predictions = cross_val_predict(features, labels, 5, np.arange(1000))
    reviewed = review(make_explored(labels, features, predictions.probabilities))
    first = set(reviewed.ranking[:80].tolist())
    assert len(first & set(flipped.tolist())) >= 40
    assert (reviewed.proposed[flipped] == true[flipped]).mean() > 0.8
    assert reviewed.near_duplicates == [[3, 7, 11]]
    assert reviewed.across == [True]  # image 11 is in another fold than 3 and 7
    assert reviewed.poor == {999: [("tiny", "8×8 pixels")]}
    assert 5 not in reviewed.suspects  # image 5 was decided before
    assert len(reviewed.groups) == 20


@given(st.integers(0, 2**31 - 1), st.integers(2, 4), st.integers(2, 60))
def test_no_group_is_divided_between_two_folds(seed: int, classes: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(80) % classes)
    group_of = np.concatenate([[0, 1], rng.integers(0, groups, 78)])
    predictions = cross_val_predict(rng.normal(size=(80, 3)), labels, classes, group_of)
    assert all(len(set(predictions.folds[group_of == group])) == 1 for group in set(group_of))
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)


def test_judge_flips_counts_flipped_labels_and_compares_accuracies(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "judge_flips.py"
    tables = {
        "fixes.csv": "path,action,label\na/1,relabel,a\nb/1,relabel,b\n",
        "explore.csv": "path,label\nb/1,a\n"
        + "".join(f"a/{n},a\n" for n in range(2, 50))
        + "a/1,b\n",
        "one.csv": "path,top1\na/1,b\nb/1,b\na/2,b\na/3,a\n",
        "two.csv": "file,label,net logistic,net kNN\na/1,b,a,b\nb/1,b,b,a\na/2,a,a,b\na/3,a,a,b\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    fixes, explored, *predictions = (str(tmp_path / name) for name in tables)
    counts = runpy.run_path(str(script))["found"](fixes, explored)
    assert counts[0].startswith("first 2%: 1 images, 1 flipped, 50.0% of all flipped")
    assert counts[-1].startswith("first 20%: 10 images, 1 flipped, 50.0%")
    assert counts[-1].endswith("precision 10.0%")
    lines = runpy.run_path(str(script))["accuracy"](fixes, *predictions)
    assert lines[0].startswith("all images: 4 images, 0.5000 (")
    assert "difference +0.5000 (" in lines[0]
    assert "difference +0.5000 (" in lines[1]
    assert lines[2].startswith("flipped: 2 images, 0.5000 (")


@given(st.integers(0, 100), st.integers(150, 399))
def test_a_limited_page_shows_suspects_outliers_near_duplicates_and_every_class(
    seed: int, limit: int
) -> None:
    labels, probabilities = draw_outputs(seed, 400, 3)
    features = np.random.default_rng(seed).normal(size=(400, 4))
    explored = make_explored(labels, features, probabilities)
    reviewed = review(explored)
    shown = choose_shown(explored, reviewed, limit)
    assert len(shown) == limit
    assert np.array_equal(np.unique(shown), shown)
    near_duplicates, poor = {3, 7, 11}, {399}
    notable = {*reviewed.suspects, *reviewed.outliers} | near_duplicates | poor
    # Each suspect is shown together with its 3 nearest neighbours.
    if len(notable) + 3 * len(reviewed.suspects) <= limit:
        assert notable <= set(shown.tolist())
    assert set(reviewed.suspects.tolist()) <= set(shown.tolist())
    assert set(labels[shown]) == {0, 1, 2}
    lines = list(csv.DictReader(table_lines(explored, reviewed, np.zeros((limit, 2)), shown)))
    assert len(lines) == 400
    assert list(lines[0]) == list(COLUMNS)
    assert [float(line["quality"]) for line in lines] == sorted(
        float(line["quality"]) for line in lines
    )
    assert sum(line["on_page"] == "1" for line in lines) == limit
    assert len(choose_shown(explored, reviewed)) == 400  # the default limit is higher


# A folder, a cross-validation, and their pages


def draw(color: tuple[int, int, int], number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    noise = rng.normal(0, 60, (6, 6, 1))
    coarse = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)


def make_data(root: Path) -> Path:
    for label, (name, color) in enumerate(CLASSES.items()):
        (root / name).mkdir(parents=True)
        for number in range(14):
            draw(color, 100 * label + number).save(root / name / f"{number}.png")
    draw(CLASSES["elm & <b>"], 555).save(root / MISPLACED)
    draw(CLASSES["öland, rye"], 203).resize((56, 56)).save(root / "öland, rye" / "copy.png")
    (root / "alder" / "bad.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("explore") / "data")


@pytest.fixture(scope="module")
def page(data: Path) -> Path:
    out = data.parent / "page"
    arguments = [str(data), *FLAGS, f"--out={out}", "--group_regex=/(\\d)"]
    assert run_command("explore", arguments) == 0
    return out / "index.html"


def test_the_misplaced_image_comes_first_and_every_image_is_in_the_table(page: Path) -> None:
    with (page.parent / "explore.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 14 + 2
    assert rows[0]["path"] == MISPLACED
    assert rows[0]["proposed"] == "elm & <b>"
    twins = [row["path"] for row in rows if row["twins"]]
    assert sorted(twins) == ["öland, rye/3.png", "öland, rye/copy.png"]
    assert {row["on_page"] for row in rows} == {"1"}


def test_a_page_without_room_for_all_suspects_says_so(
    data: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(page_module, "choose_shown", lambda *given: choose_shown(*given, 3))
    out = tmp_path / "few"
    # The features are read from the cache, where the fixture ``page`` has put them.
    assert run_command("explore", [str(data), *FLAGS, f"--out={out}"]) == 0
    console, text = capsys.readouterr().out, (out / "index.html").read_text()
    assert "the page has 3 of 44 images: first the suspects" in console
    assert "This page shows 3 of them: first the suspects" in text
    assert console.count("as far as there is room") == text.count("as far as there is room") == 1


# JavaScript for the facts of a page. ``sets`` is the number of sets of near duplicates, and ``wide`` is
# the number of pixels by which the page is wider than the window.
FACTS = """({
  cards: document.querySelectorAll(".suspects .card").length,
  pictures: [...document.images].filter(image => image.complete && image.naturalWidth > 1).length,
  broken: [...document.images].filter(image => image.complete && !image.naturalWidth).length,
  dots: document.querySelectorAll(".plane circle:not(.cursor)").length,
  sections: [...document.querySelectorAll("main h2")].map(each => each.textContent),
  wide: document.documentElement.scrollWidth - innerWidth,
  first: document.querySelector(".suspects .path").textContent,
  background: getComputedStyle(document.querySelector(".suspects .card")).backgroundColor,
  policy: document.querySelector("meta[http-equiv]").content,
  buttons: document.querySelectorAll(".suspects button").length,
  sets: document.querySelectorAll(".set").length,
})"""


def evaluate(browser: Browser, script: str) -> object:
    value = browser.call("Runtime.evaluate", expression=f"JSON.stringify({script})")["result"]
    return json.loads(value["value"]) if "value" in value else None


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key)


def reload(browser: Browser) -> None:
    browser.events.clear()
    browser.call("Page.reload")
    browser.wait_for("Page.loadEventFired")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def test_the_page_requests_nothing_and_fits_every_window(browser: Browser, page: Path) -> None:
    colors = set()
    for width, height, dark in ((1280, 900, False), (390, 844, True)):
        seen = browser.open_page(page, FACTS, width=width, height=height, dark=dark)
        requested = [url for url in seen.requests if not url.startswith("data:")]
        assert requested == [page.resolve().as_uri()]
        assert seen.messages == []
        assert seen.facts["first"] == MISPLACED
        assert seen.facts["cards"] >= 1
        # Each card has an image and its heat map.
        assert seen.facts["pictures"] == 2 * seen.facts["cards"]
        assert seen.facts["broken"] == 0
        assert seen.facts["dots"] == 44
        assert seen.facts["buttons"] == 3 * seen.facts["cards"]
        assert seen.facts["wide"] <= 0
        assert seen.facts["sets"] == 1
        assert "default-src 'none'" in seen.facts["policy"]
        colors.add(seen.facts["background"])
    assert len(colors) == 2
    assert page.stat().st_size < 1_000_000


def test_the_page_can_be_read_without_scripts(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        seen = browser.open_page(page, FACTS, width=1280, height=900, dark=False)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert seen.facts["pictures"] == 2 * seen.facts["cards"]
    assert seen.facts["dots"] == 44
    assert seen.facts["buttons"] == 0
    sections = ["To decide", "Map", "Near duplicates", "Outliers", "Quality", "Groups"]
    assert seen.facts["sections"] == sections


@pytest.mark.parametrize("with_storage", [True, False])
def test_decisions_by_key_survive_a_reload_and_are_saved(
    browser: Browser, page: Path, tmp_path: Path, data: Path, with_storage: bool
) -> None:
    no_storage = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})"
    script = "" if with_storage else no_storage
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    try:
        browser.open_page(page, "1", width=1280, height=900, dark=False)
        evaluate(browser, "document.querySelector('.suspects .card').focus()")
        press(browser, "r")  # relabels the misplaced image as proposed
        evaluate(browser, "document.querySelector('.set .card').focus()")
        press(browser, "k")  # keeps the image, and moves the focus to its copy
        press(browser, "d")  # drops the copy
        press(browser, "u")  # undoes the last decision
        evaluate(browser, "document.querySelectorAll('.set .card')[1].focus()")
        press(browser, "d")
        reload(browser)
        status = evaluate(browser, "document.querySelector('footer').textContent")
        assert "3 decided: 1 relabelled, 1 kept, 1 dropped" in status
        action = evaluate(browser, "document.querySelector('.suspects .card').dataset.action")
        assert action == "relabel"
        folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
        browser.call("Page.setDownloadBehavior", **folder)
        evaluate(browser, "document.getElementById('save').click()")
        saved = tmp_path / "fixes.csv"
        for _ in range(100):
            if saved.exists() and saved.stat().st_size:
                break
            time.sleep(0.05)
        evaluate(browser, "(confirm = () => true, document.getElementById('clear').click())")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **added)
    fixes = FixTable(saved).find(scan_folder(data))
    catalog = fixes.relabel(scan_folder(data))
    index = list(catalog.paths).index(MISPLACED)
    assert catalog.class_names[catalog.labels[index]] == "elm & <b>"
    dropped = [path for path, drop in zip(catalog.paths, fixes.dropped, strict=True) if drop]
    assert dropped == ["öland, rye/copy.png"]
    assert fixes.num_kept == 1


def test_the_map_shows_a_tooltip_and_selects_images(browser: Browser, page: Path) -> None:
    browser.open_page(page, "1", width=1280, height=900, dark=False)
    evaluate(browser, "svg.scrollIntoView()")
    box = evaluate(browser, "svg.getBoundingClientRect().toJSON()")
    target = evaluate(browser, "DATA.images[0].slice(2, 4)")
    x, y = (
        box[axis] + value * box["width"] / 1000 for axis, value in zip("xy", target, strict=True)
    )

    def mouse(kind: str, x: float, y: float) -> None:
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    mouse("mouseMoved", x, y)
    assert evaluate(browser, "tip.hidden") is False
    assert evaluate(browser, "tip.querySelector('.path').textContent").endswith(".png")
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    mouse("mousePressed", box["x"] + 1, box["y"] + 1)
    for right, down in corners:
        mouse("mouseMoved", box["x"] + right * box["width"], box["y"] + down * box["height"])
    mouse("mouseReleased", box["x"] + 1, box["y"] + box["height"] - 1)
    assert evaluate(browser, "document.querySelectorAll('#selection .card').length") == 44
    evaluate(browser, "svg.focus()")
    press(browser, "ArrowRight")
    press(browser, "Enter")
    # Enter selects the 12 images that are nearest to the cursor.
    assert evaluate(browser, "document.querySelectorAll('#selection .card').length") == 12
    assert evaluate(browser, "document.activeElement.closest('#selection') !== null")


def test_earlier_decisions_are_not_asked_again_and_stay_in_the_table(
    data: Path, tmp_path: Path, browser: Browser
) -> None:
    fixes = tmp_path / "fixes.csv"
    fixes.write_text(f"path,action,label\n{MISPLACED},keep,\nalder/1.png,drop,\n")
    out = tmp_path / "again"
    assert run_command("explore", [str(data), *FLAGS, f"--fixes={fixes}", f"--out={out}"]) == 0
    with (out / "explore.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert "alder/1.png" not in paths
    script = "[table(), [...document.querySelectorAll('.suspects .path')].map(e => e.textContent)]"
    seen = browser.open_page(out / "index.html", script, width=800, height=600, dark=False)
    table, asked = seen.facts
    assert sorted(table.splitlines()) == sorted(fixes.read_text().splitlines())
    assert MISPLACED not in asked


def test_folds_are_explored_by_their_out_of_fold_predictions(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "two"
    paths, catalog = FoldsPaths(folder), scan_folder(data)
    names = catalog.class_names
    usable = [index for index, path in enumerate(catalog.paths) if path != "alder/bad.png"]
    rng = np.random.default_rng(0)
    predicted = {index: rng.dirichlet(np.ones(3)) for index in usable}
    paths.claims.mkdir(parents=True)
    paths.write_settings(2, TrainConfig(data_dir=str(data)).as_dict())
    paths.classes.write_text(format_class_names(names))
    for number in range(2):
        run = make_run(paths.fold(number).root, data, seed=number)
        settings = json.loads((run / "config.json").read_text())
        # This limit is below the 1,600 pixels of an image. The limit given to open_folds must apply.
        settings |= {"fit": "pad", "max_pixels": 1024}
        (run / "config.json").write_text(json.dumps(settings))
        paths.done(f"fold-{number}").touch()
    paths.write_table(
        FoldRow(catalog.paths[i], names[catalog.labels[i]], str(i % 2), f"g{i % 5}") for i in usable
    )
    header = csv_line("path", "true", "fold", *(f"p:{name}" for name in names))
    rows = [
        csv_line(
            catalog.paths[i], names[catalog.labels[i]], str(i % 2), *map(str, predicted[i].tolist())
        )
        for i in usable
    ]
    paths.predictions.write_text(header + "".join(rows))
    explored = open_folds(folder, max_pixels=10**6)
    assert list(explored.catalog.paths) == [catalog.paths[i] for i in usable]
    np.testing.assert_allclose(explored.probabilities, np.array([predicted[i] for i in usable]))
    assert explored.features.shape == (len(usable), 2 * 64)
    assert explored.sides[:2] == (f"fold {usable[0] % 2}", f"fold {usable[1] % 2}")
    found = review(explored)
    assert {name for name, *_ in found.groups} == {f"g{n}" for n in range(5)}
    maps = list(explored.compute_heatmaps([0, 1, 2], np.array([0, 1, 2])))
    assert [each.shape for each in maps] == [(2, 2)] * 3
    # The image below a heat map is the square that the networks see.
    seen = []
    monkeypatch.setattr(page_module, "read_thumbnail", lambda path, *given: seen.append(given))
    write_page(explored, found, tmp_path, title="two", method="pca", max_pixels=10**6)
    assert len(seen) == len(found.suspects) > 0
    assert {given[1:] for given in seen} == {("pad", 10**6)}
    # The features come from the runs of the folds, so that --model is refused.
    assert run_command("explore", [str(folder), "--model=tiny"]) == 2


# Refusals


@pytest.fixture
def _working_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with the images in ``data``, and with a folder ``full`` that holds a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "data").symlink_to(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "no such folder"),
        (["data", *FLAGS, "--image_size=-8"], "--image_size=-8: out of range; pass 0 to 2048"),
        (["data", "--layout=flat", "--labels_csv=x"], "excludes --labels_csv"),
        (["data", *FLAGS, "--out=full"], "already exists"),
        (["data", *FLAGS, "--fixes=none.csv"], "no such file"),
        (["data", *FLAGS, "--group_regex=([.]png)"], "all 44 images are in one group"),
    ],
)
@pytest.mark.usefixtures("_working_folder")
def test_a_wrong_folder_or_flag_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_command("explore", arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]
