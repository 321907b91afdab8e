"""A ``Report`` as files: one page for people, one JSON file and one table for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from seedtf.data.catalog import Fault
from seedtf.data.paths import Folder
from seedtf.evaluation import metrics
from seedtf.evaluation.evaluate import Report, top_classes, top_losses
from seedtf.files import csv_line, write_bytes, write_text
from seedtf.images.decode import decode_image
from seedtf.images.header import RefusedError, read_header
from seedtf.plots.base import figure_png
from seedtf.plots.page import image_uri, render_page
from seedtf.plots.report import draw_confusion, draw_reliability
from seedtf.runs.paths import ReportPaths, RunPaths

__all__ = ["ReportContext", "number", "report_values", "write_report"]

TOP = 5
WORST = 36
CONFUSED = 12
THUMBNAIL = 192  # pixels


@dataclass(frozen=True)
class ReportContext:
    """What was judged, in words and places.

    Attributes:
        run_dir: the run's folder; its curves are shown where they exist.
        data: ``"validation"`` for the run's own validation images, else the folder as given.
        data_root: the folder that the predictions' paths are relative to.
        model: the network's name; ``image_size`` its side in pixels.
        tta: 1, or 8 where eight views were averaged.
        skipped: images that could not be decoded and are not judged.
    """

    run_dir: Path
    data: str
    data_root: Folder
    model: str
    image_size: int
    tta: int
    skipped: tuple[Fault, ...]


def write_report(report: Report, subject: ReportContext, folder: Path) -> Path:
    """Writes index.html, confusion_matrix.png, predictions_val.csv and report.json into ``folder``.

    Everything is made first and then put in place, each file whole; an older report is replaced.

    Returns:
        The path of the page.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    title = f"{subject.run_dir.resolve().name}: accuracy {report.accuracy:.4f}"
    matrix = figure_png(
        draw_confusion(report.confusion, report.predictions.class_names, title=title)
    )
    values = report_values(report, subject)
    page = _render_page(report, subject, values, matrix)
    table = "".join(prediction_lines(report))
    folder.mkdir(parents=True, exist_ok=True)
    paths = ReportPaths(folder)
    write_text(paths.predictions, table)
    write_bytes(paths.confusion_matrix, matrix)
    write_text(paths.page, page)
    write_text(paths.values, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return paths.page


def report_values(report: Report, subject: ReportContext) -> dict[str, Any]:
    """What report.json holds; rates are floats in [0, 1] and None where 0/0."""
    names, scores = report.predictions.class_names, report.scores
    columns = (scores.precision, scores.recall, scores.f1, scores.support)
    per_class = zip(names, *(column.tolist() for column in columns), strict=True)
    keys = ("class", "precision", "recall", "f1", "support")
    confused = metrics.most_confused(report.confusion, CONFUSED)
    scaled = report.reliability_scaled
    return {
        "format": 1,
        "run": subject.run_dir.resolve().name,
        "data": subject.data,
        "tta": subject.tta,
        "images": len(report.predictions.labels),
        "correct": int(report.confusion.trace()),
        "accuracy": report.accuracy,
        "accuracy_interval_95": list(report.accuracy_interval),
        "macro_f1": _known(report.macro_f1),
        "loss": report.loss,
        "temperature": report.temperature,
        "ece": {"before": report.reliability.ece, "after": None if scaled is None else scaled.ece},
        "reject": _reject_values(report, report.reject),
        "reject_with_temperature": _reject_values(report, report.reject_scaled),
        "class_names": list(names),
        "per_class": [
            {key: _known(cell) for key, cell in zip(keys, row, strict=True)} for row in per_class
        ],
        "most_confused": [
            {"true": names[pair.true], "predicted": names[pair.predicted], "count": pair.count}
            for pair in confused
        ],
        "confusion_matrix": report.confusion.tolist(),
        "reliability": _reliability_values(report.reliability),
        "skipped": [{"path": fault.path, "fault": fault.fault} for fault in subject.skipped],
    }


def prediction_lines(report: Report) -> Iterable[str]:
    """Lines of predictions_val.csv: path, true, top1, p1, … top5, p5, loss, margin."""
    found = report.predictions
    names = found.class_names
    top = top_classes(found.probabilities, TOP)
    pairs = [cell for rank in range(1, top.shape[1] + 1) for cell in (f"top{rank}", f"p{rank}")]
    yield csv_line("path", "true", *pairs, "loss", "margin")
    for row, path in enumerate(found.paths):
        cells = [path, names[found.labels[row]]]
        for index in top[row]:
            cells += [names[index], number(found.probabilities[row, index])]
        yield csv_line(*cells, f"{report.losses[row]:.6g}", f"{report.margins[row]:.6g}")


def number(probability: np.float32) -> str:
    """The shortest decimal that reads back as the same float32."""
    return str(np.float32(probability))


def _known(value: Any) -> Any:
    """None for NaN, which JSON cannot hold."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _reject_values(report: Report, rule: metrics.RejectRule | None) -> dict[str, Any]:
    values: dict[str, Any] = {"precision_target": report.precision_target}
    if rule is None:
        return {**values, "threshold": None, "kept": 0, "kept_share": 0.0, "precision": None}
    return {
        **values,
        # as the tables print it, so that comparing with their cells keeps the same images
        "threshold": float(number(np.float32(rule.threshold))),
        "kept": rule.kept,
        "kept_share": rule.kept / len(report.predictions.labels),
        "precision": rule.kept_correct / rule.kept,
    }


def _reliability_values(found: metrics.Reliability) -> list[dict[str, Any]]:
    bins = zip(
        found.counts.tolist(), found.confidence.tolist(), found.accuracy.tolist(), strict=True
    )
    return [
        {"count": count, "confidence": _known(stated), "accuracy": _known(right)}
        for count, stated, right in bins
    ]


def _render_page(
    report: Report, subject: ReportContext, values: dict[str, Any], matrix: bytes
) -> str:
    calibration = draw_reliability(
        report.reliability, report.reliability_scaled, title="stated and true confidence"
    )
    return render_page(
        __package__,
        "report.html.jinja",
        report=values,
        subject=subject,
        run_name=subject.run_dir.resolve().name,
        matrix=image_uri(matrix),
        calibration=image_uri(figure_png(calibration)),
        figures=_run_images(subject.run_dir),
        mistakes=_mistakes(report, subject.data_root),
        wrong=values["images"] - values["correct"],
    )


def _run_images(run_dir: Path) -> list[tuple[str, str]]:
    """Caption and data URI of the images that training left, as far as they exist."""
    paths = RunPaths(run_dir)
    wanted = {
        "Training and validation, epoch by epoch": paths.curves,
        "Learning rate": paths.planned_lr,
    }
    return [
        (caption, image_uri(path.read_bytes()))
        for caption, path in wanted.items()
        if path.is_file()
    ]


def _mistakes(report: Report, root: Folder) -> list[dict[str, Any]]:
    found = report.predictions
    rows = []
    for index in top_losses(report, WORST):
        answer = int(found.answers[index])
        rows.append(
            {
                "path": found.paths[index],
                "true": found.class_names[found.labels[index]],
                "predicted": found.class_names[answer],
                "confidence": float(found.probabilities[index, answer]),
                "own": float(found.probabilities[index, found.labels[index]]),
                "image": _thumbnail(root / found.paths[index]),
            }
        )
    return rows


def _thumbnail(path: Folder) -> str | None:
    """The image as the model's decoder shows it, aspect kept, as a JPEG data URI; None if it left."""
    try:
        data = path.read_bytes()
        header = read_header(data)
        image = decode_image(tf.constant(data), tf.constant(header.for_decoder))
    except (OSError, RefusedError, tf.errors.OpError):
        return None
    size = [THUMBNAIL, THUMBNAIL]
    small = tf.image.resize(image, size, preserve_aspect_ratio=True, antialias=True)
    pixels = tf.saturate_cast(tf.round(small), tf.uint8)
    return image_uri(tf.io.encode_jpeg(pixels, quality=85).numpy(), "jpeg")
