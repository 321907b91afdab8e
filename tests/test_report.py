"""The files of a report agree with each other; its page escapes names and opens in a browser."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from browser import open_browser
from tiny_run import copy_run, draw_classes, make_run

from seedtf.evaluation.evaluate import Predictions, compute_report
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.evaluation.metrics import reliability
from seedtf.evaluation.report import ReportContext, write_report
from seedtf.plots.base import figure_png
from seedtf.plots.report import draw_confusion, draw_reliability

NAMES = ("<b>&\"'bold", "comma, name", "$x^2$", "öland {{ rye }}", "an-endless-name-" * 6, "plain")
FILES = {
    "index.html",
    "report.json",
    "confusion_matrix.png",
    "confusion_matrix.csv",
    "predictions_val.csv",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "<i>run & co", draw_classes(folder / "data", NAMES, per_class=8))
    # Any figure can replace the curves, which the page only shows.
    figure = draw_reliability(
        reliability(np.array([0.5]), np.array([True])), None, title="instead of the curves"
    )
    (run / "curves.png").write_bytes(figure_png(figure, dpi=40))
    return run


@pytest.fixture(scope="module")
def evaluation(run_dir):
    return evaluate_run(str(run_dir))


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_accuracy_is_the_same_in_every_file(evaluation):
    folder = evaluation.page.parent
    assert {path.name for path in folder.iterdir()} == FILES
    values = json.loads((folder / "report.json").read_text())
    rows = read_table(folder / "predictions_val.csv")
    num_correct = sum(row["true"] == row["top1"] for row in rows)
    trace = sum(row[i] for i, row in enumerate(values["confusion_matrix"]))
    assert len(rows) == values["images"] == sum(map(sum, values["confusion_matrix"])) == 24
    assert num_correct == trace == values["correct"]
    assert values["accuracy"] == num_correct / len(rows) == trace / values["images"]
    assert f"{100 * values['accuracy']:.1f}" in evaluation.page.read_text(encoding="utf-8")
    supports = [row["support"] for row in values["per_class"]]
    assert supports == [sum(row) for row in values["confusion_matrix"]]


def test_the_table_has_the_exact_probabilities(evaluation):
    predictions = evaluation.report.predictions
    rows = read_table(evaluation.page.parent / "predictions_val.csv")
    assert [row["path"] for row in rows] == list(predictions.paths)
    for row, probabilities in zip(rows, predictions.probabilities, strict=True):
        written = {row[f"top{k}"]: np.float32(row[f"p{k}"]) for k in range(1, 6)}
        exact = dict(zip(predictions.class_names, probabilities, strict=True))
        assert written == {name: exact[name] for name in written}
        assert list(written.values()) == sorted(probabilities, reverse=True)[:5]
        p_true = exact[row["true"]]
        assert float(row["loss"]) == pytest.approx(-np.log(p_true), rel=1e-4)
        p_best_other = max(p for name, p in exact.items() if name != row["true"])
        assert float(row["margin"]) == pytest.approx(p_true - p_best_other, abs=1e-5)


def test_the_rows_above_the_threshold_have_the_reported_count_and_precision(evaluation):
    folder = evaluation.page.parent
    easy = evaluate_run(
        str(folder.parent), precision_target=0.1, out=str(folder.parent / "easy"), overwrite=True
    )
    values = json.loads((easy.page.parent / "report.json").read_text())["reject"]
    rows = read_table(easy.page.parent / "predictions_val.csv")
    kept = [row for row in rows if float(row["p1"]) >= values["threshold"]]
    assert len(kept) == values["kept"] > 0
    assert sum(row["true"] == row["top1"] for row in kept) / len(kept) == values["precision"]


def test_the_temperature_is_in_report_json(evaluation):
    values = json.loads((evaluation.page.parent / "report.json").read_text())
    assert values["temperature"] == evaluation.report.temperature > 0
    assert set(values["ece"]) == {"before", "after"}


def test_the_page_escapes_the_names_of_classes_and_of_the_run(evaluation):
    text = evaluation.page.read_text(encoding="utf-8")
    assert "<b>&" not in text
    assert "<i>run" not in text
    assert "&lt;b&gt;&amp;&#34;&#39;bold" in text
    assert "öland {{ rye }}" in text


def test_the_page_is_one_file_without_script(evaluation):
    text = evaluation.page.read_text(encoding="utf-8")
    assert "<script" not in text
    links = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s]*)', text)
    assert len(links) > 5
    assert all(link.startswith("data:") for link in links)


def test_a_repeated_report_has_the_same_bytes(evaluation, run_dir, tmp_path):
    folder = copy_run(run_dir, tmp_path / run_dir.name) / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "report.json").write_text("old")
    evaluate_run(str(folder.parent))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_of_one_image_has_no_mistakes_to_show(tmp_path):
    found = Predictions(
        ("a.png",), np.array([1], np.int32), np.array([[0.2, 0.8]], np.float32), ("x", "y")
    )
    report = compute_report(found, precision_target=1.0)
    context = ReportContext(tmp_path, "elsewhere", tmp_path, "tiny", 16, 8, ())
    page = write_report(report, context, tmp_path / "out").read_text(encoding="utf-8")
    assert "Top losses" not in page
    assert "Most confused" not in page
    assert "eight rotations" in page
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert values["per_class"][0]["recall"] is None
    assert values["temperature"] is None
    (row,) = read_table(tmp_path / "out" / "predictions_val.csv")
    assert list(row) == ["path", "true", "top1", "p1", "top2", "p2", "loss", "margin"]


def test_a_top_loss_without_its_image_is_still_listed(tmp_path):
    found = Predictions(
        ("gone.png",), np.array([0], np.int32), np.array([[0.2, 0.8]], np.float32), ("x", "y")
    )
    report = compute_report(found, precision_target=0.9)
    context = ReportContext(tmp_path, "elsewhere", tmp_path, "tiny", 16, 1, ())
    assert "gone.png" in write_report(report, context, tmp_path / "out").read_text()


def test_the_cells_of_the_confusion_matrix_show_count_and_percentage():
    figure = draw_confusion(np.array([[3, 1], [0, 6]]), ["a", "b"], title="t")
    axes = figure.axes[0]
    cells = {
        (round(text.get_position()[0]), round(text.get_position()[1]), text.get_text())
        for text in axes.texts
    }
    assert cells == {
        (0, 0, "3"),
        (0, 0, "75%"),
        (1, 0, "1"),
        (1, 0, "25%"),
        (1, 1, "6"),
        (1, 1, "100%"),
    }
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize("size", [1, 41, 200])
def test_a_confusion_matrix_of_any_size_is_drawn(size):
    figure = draw_confusion(np.eye(size, dtype=int), [f"${n}" for n in range(size)], title="$t")
    assert figure_png(figure, dpi=30).startswith(b"\x89PNG")
    assert max(figure.get_size_inches()) < 40


def test_the_reliability_diagram_shows_only_bins_with_images():
    before = reliability(np.array([0.95, 0.9, 0.3]), np.array([True, False, False]))
    after = reliability(np.array([0.5, 0.5, 0.4]), np.array([True, False, False]))
    upper = draw_reliability(before, after, title="t").axes[0]
    curves = [line.get_xydata().tolist() for line in upper.get_lines()]
    assert curves[1] == [[0.3, 0.0], [pytest.approx(0.9), 0.0], [pytest.approx(0.95), 1.0]]
    assert curves[2] == [[pytest.approx(0.4), 0.0], [0.5, 0.5]]


FACTS = """{
  title: document.querySelector("h1").textContent,
  cards: document.querySelectorAll("dl.cards dd").length,
  rows: document.querySelectorAll("tbody tr").length,
  mistakes: document.querySelectorAll("ol.mistakes li").length,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  images: document.images.length,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  color: getComputedStyle(document.body).color,
  font: parseFloat(getComputedStyle(document.querySelector("td")).fontSize),
}"""


def test_the_page_opens_in_a_browser_without_messages_requests_or_overflow(evaluation):
    num_mistakes = len(evaluation.report.losses) - int(evaluation.report.confusion.trace())
    text_colors = set()
    with open_browser() as browser:
        for width, height, dark in ((1280, 900, False), (390, 844, True)):
            page = browser.open_page(evaluation.page, FACTS, width=width, height=height, dark=dark)
            outside = [url for url in page.requests if not url.startswith("data:")]
            assert outside == [evaluation.page.resolve().as_uri()]
            assert page.messages == []
            assert page.facts["title"] == "<i>run & co"
            assert page.facts["cards"] == 6
            assert page.facts["rows"] > len(NAMES)
            assert page.facts["mistakes"] == min(36, num_mistakes) > 0
            assert page.facts["broken"] == 0
            # Each mistake has its image and its heat map. The other three are the confusion matrix, the
            # reliability diagram and the curves.
            assert page.facts["images"] == 2 * page.facts["mistakes"] + 3
            assert page.facts["overflow"] <= 0
            assert page.facts["font"] >= 12
            assert page.png.startswith(b"\x89PNG")
            text_colors.add(page.facts["color"])
    assert len(text_colors) == 2  # one for light and one for dark mode


def test_open_page_reports_requests_errors_and_overflow(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<p style='width: 2000px'>wide</p><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('seen'); nothing.at.all</script>"
    )
    facts = "{wide: document.documentElement.scrollWidth > document.documentElement.clientWidth}"
    with open_browser() as browser:
        found = browser.open_page(page, facts, width=390, height=844, dark=False)
    assert "http://127.0.0.1:9/x.png" in found.requests
    assert any("seen" in message for message in found.messages)
    assert any("nothing is not defined" in message for message in found.messages)
