"""Writes a ``Report``: an HTML page for people, a JSON file and a CSV table for programs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from seedtf.data.catalog import Fault
from seedtf.data.paths import Folder, read_file
from seedtf.evaluation import metrics
from seedtf.evaluation.evaluate import Report, top_classes, top_losses
from seedtf.files import csv_line, write_bytes, write_lines, write_text
from seedtf.images.decode import decode_image, resize_image
from seedtf.images.header import MAX_PIXELS, STRETCH, RefusedError, read_header
from seedtf.images.transcode import to_decodable
from seedtf.plots.base import figure_png
from seedtf.plots.heatmap import draw_heatmap, encode_image
from seedtf.plots.page import image_uri, render_page
from seedtf.plots.report import draw_confusion, draw_reliability
from seedtf.runs.paths import ReportPaths, RunPaths

__all__ = [
    "OUT_OF_FOLD",
    "TEST",
    "VALIDATION",
    "ReportContext",
    "format_probability",
    "read_thumbnail",
    "report_values",
    "write_report",
]

VALIDATION, TEST, OUT_OF_FOLD = "validation", "test", "out-of-fold"

MAX_TOP_CLASSES = 5
MAX_TOP_LOSSES = 36
MAX_CONFUSED_PAIRS = 12
MAX_JSON_CLASSES = 1000
"""With more classes, report.json has no confusion matrix (null); confusion_matrix.csv is complete."""
THUMBNAIL_SIZE = 192
"""Largest side of an image on the page, in pixels."""


@dataclass(frozen=True)
class ReportContext:
    """What a report is about: the run, the model and the images.

    Attributes:
        run_dir: the run folder; the page shows the curves in it, if any.
        data: ``VALIDATION``, ``TEST`` or ``OUT_OF_FOLD`` for images of the run itself, otherwise the
            folder or archive that the user passed.
        data_root: the folder that the paths of the predictions are relative to.
        labels_csv: the table with the labels of ``data``; empty if there is none.
        model: the network, its checkpoint and the number of averaged models, as text.
        image_size: the side of the model's input in pixels.
        tta: 1, or 8 if eight views were averaged.
        skipped: images that could not be used and are not part of the metrics.
        fit: how the run made images square, see ``images.decode.resize_image``.
        max_pixels: the largest width × height of an image that the run decodes.
    """

    run_dir: Path
    data: str
    data_root: Folder
    model: str
    image_size: int
    tta: int
    skipped: tuple[Fault, ...]
    labels_csv: str = ""
    fit: str = STRETCH
    max_pixels: int = MAX_PIXELS

    @property
    def source(self) -> dict[str, str]:
        """``data_root`` and ``labels_csv`` as in report.json: absolute paths or URLs."""
        root = self.data_root
        folder = os.path.abspath(root) if isinstance(root, Path) else str(root)
        table = self.labels_csv and os.path.abspath(self.labels_csv)
        return {"data_root": folder, "labels_csv": table}


def write_report(
    report: Report,
    context: ReportContext,
    folder: Path,
    *,
    test: Report | None = None,
    heatmaps: Sequence[np.ndarray] = (),
    folds: dict[str, Any] | None = None,
) -> Path:
    """Writes index.html, report.json, predictions_val.csv and the confusion matrix into ``folder``.

    If the computation fails, no file is written, and an older report in ``folder`` is not changed.

    Args:
        report: the metrics to show.
        context: what ``report`` is about.
        folder: created if it does not exist.
        test: the metrics of the test images, which are shown as well; None if there are no such images.
        heatmaps: class activation maps, each float ``[h, w]``, in the order of ``top_losses``.
        folds: the metrics of each fold, from ``folds_values``.

    Returns:
        The path of the page.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    title = f"{context.run_dir.resolve().name}: accuracy {report.accuracy:.4f}"
    matrix_png = figure_png(
        draw_confusion(report.confusion, report.predictions.class_names, title=title)
    )
    values = {
        **report_values(report, context),
        "test": _test_values(test),
        "cross_validation": folds,
    }
    page = _render_page(report, context, values, matrix_png, heatmaps)
    table = "".join(prediction_lines(report))
    folder.mkdir(parents=True, exist_ok=True)
    paths = ReportPaths(folder)
    write_text(paths.predictions, table)
    write_bytes(paths.confusion_matrix, matrix_png)
    write_lines(paths.confusion_table, confusion_lines(report))
    write_text(paths.page, page)
    write_text(paths.report_json, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return paths.page


def report_values(report: Report, context: ReportContext) -> dict[str, Any]:
    """The content of report.json; rates are floats in [0, 1], and None where they are 0/0."""
    names, scores = report.predictions.class_names, report.scores
    columns = (scores.precision, scores.recall, scores.f1, scores.support)
    per_class = zip(names, *(column.tolist() for column in columns), strict=True)
    keys = ("class", "precision", "recall", "f1", "support")
    confused = metrics.most_confused(report.confusion, MAX_CONFUSED_PAIRS)
    scaled = report.reliability_scaled
    return {
        "format": 1,
        "run": context.run_dir.resolve().name,
        "data": context.data,
        **context.source,
        "tta": context.tta,
        "images": len(report.predictions.labels),
        "correct": int(report.confusion.trace()),
        "accuracy": report.accuracy,
        "accuracy_interval_95": list(report.accuracy_interval),
        "macro_f1": _none_for_nan(report.macro_f1),
        "loss": report.loss,
        "temperature": report.temperature,
        "ece": {"before": report.reliability.ece, "after": None if scaled is None else scaled.ece},
        "reject": _reject_values(report, report.reject),
        "reject_with_temperature": _reject_values(report, report.reject_scaled),
        "class_names": list(names),
        "per_class": [
            {key: _none_for_nan(cell) for key, cell in zip(keys, row, strict=True)}
            for row in per_class
        ],
        "most_confused": [
            {"true": names[pair.true], "predicted": names[pair.predicted], "count": pair.count}
            for pair in confused
        ],
        "confusion_matrix": None if len(names) > MAX_JSON_CLASSES else report.confusion.tolist(),
        "reliability": _reliability_values(report.reliability),
        "skipped": [{"path": fault.path, "fault": fault.fault} for fault in context.skipped],
    }


def _test_values(test: Report | None) -> dict[str, Any] | None:
    """The metrics of the test images, which a report on the validation images also has."""
    if test is None:
        return None
    scaled = test.reliability_scaled
    return {
        "images": len(test.losses),
        "accuracy": test.accuracy,
        "accuracy_interval_95": list(test.accuracy_interval),
        "macro_f1": _none_for_nan(test.macro_f1),
        "loss": test.loss,
        "ece": {"before": test.reliability.ece, "after": None if scaled is None else scaled.ece},
    }


def confusion_lines(report: Report) -> Iterable[str]:
    """Lines of confusion_matrix.csv: true class, predicted class and count of every nonzero cell."""
    names = report.predictions.class_names
    yield csv_line("true", "predicted", "count")
    for true, predicted, count in metrics.nonzero_cells(report.confusion).tolist():
        yield csv_line(names[true], names[predicted], str(count))


def prediction_lines(report: Report) -> Iterable[str]:
    """Lines of predictions_val.csv: path, true, top1, p1, … (up to five classes), loss, margin."""
    predictions = report.predictions
    names, probabilities = predictions.class_names, predictions.probabilities
    top = top_classes(probabilities, MAX_TOP_CLASSES)
    ranks = range(1, top.shape[1] + 1)
    headings = [cell for rank in ranks for cell in (f"top{rank}", f"p{rank}")]
    yield csv_line("path", "true", *headings, "loss", "margin")
    for row, path in enumerate(predictions.paths):
        cells = [path, names[predictions.labels[row]]]
        for index in top[row]:
            cells += [names[index], format_probability(probabilities[row, index])]
        yield csv_line(*cells, f"{report.losses[row]:.6g}", f"{report.margins[row]:.6g}")


def format_probability(probability: np.float32) -> str:
    """The shortest decimal number that gives the same float32 when it is parsed.

    Example:
        >>> format_probability(np.float32(0.1))
        '0.1'
    """
    return str(np.float32(probability))


def _none_for_nan(value: Any) -> Any:
    """``value``, but None for NaN, which JSON cannot represent."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _reject_values(report: Report, rejection: metrics.RejectionThreshold | None) -> dict[str, Any]:
    values: dict[str, Any] = {"precision_target": report.precision_target}
    if rejection is None:
        return {**values, "threshold": None, "kept": 0, "kept_share": 0.0, "precision": None}
    return {
        **values,
        # Rounded like p1 in a table, so that ``p1 >= threshold`` selects the same images there.
        "threshold": float(format_probability(np.float32(rejection.threshold))),
        "kept": rejection.kept,
        "kept_share": rejection.kept / len(report.predictions.labels),
        "precision": rejection.kept_correct / rejection.kept,
    }


def _reliability_values(diagram: metrics.Reliability) -> list[dict[str, Any]]:
    columns = (diagram.counts, diagram.confidence, diagram.accuracy)
    bins = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"count": count, "confidence": _none_for_nan(mean), "accuracy": _none_for_nan(accuracy)}
        for count, mean, accuracy in bins
    ]


def _render_page(
    report: Report,
    context: ReportContext,
    values: dict[str, Any],
    matrix_png: bytes,
    heatmaps: Sequence[np.ndarray],
) -> str:
    calibration_figure = draw_reliability(
        report.reliability, report.reliability_scaled, title="confidence and accuracy"
    )
    return render_page(
        __package__,
        "report.html.jinja",
        report=values,
        context=context,
        run_name=context.run_dir.resolve().name,
        matrix=image_uri(matrix_png),
        calibration=image_uri(figure_png(calibration_figure)),
        figures=_read_figures(context.run_dir),
        top_losses=_top_loss_cards(report, context, heatmaps),
        has_heatmaps=len(heatmaps) > 0,
        num_wrong=values["images"] - values["correct"],
    )


def _read_figures(run_dir: Path) -> list[tuple[str, str]]:
    """Caption and data URI of each figure that the training drew: curves, learning-rate schedule."""
    paths = RunPaths(run_dir)
    figures = {
        "Training and validation, epoch by epoch": paths.curves,
        "Learning rate": paths.planned_lr,
    }
    return [
        (caption, image_uri(path.read_bytes()))
        for caption, path in figures.items()
        if path.is_file()
    ]


def _top_loss_cards(
    report: Report, context: ReportContext, heatmaps: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """What the page shows for each image in ``top_losses``."""
    predictions = report.predictions
    names, probabilities = predictions.class_names, predictions.probabilities
    classes = predictions.classes
    cards = []
    for rank, index in enumerate(top_losses(report, MAX_TOP_LOSSES)):
        path = context.data_root / predictions.paths[index]
        thumbnail = read_thumbnail(path, THUMBNAIL_SIZE, context.fit, context.max_pixels)
        overlay = None
        if thumbnail is not None and rank < len(heatmaps):
            overlay = draw_heatmap(thumbnail, heatmaps[rank])
        label, predicted = predictions.labels[index], classes[index]
        cards.append(
            {
                "path": predictions.paths[index],
                "true": names[label],
                "predicted": names[predicted],
                "true_probability": float(probabilities[index, label]),
                "confidence": float(probabilities[index, predicted]),
                "loss": float(report.losses[index]),
                "image": _jpeg_uri(thumbnail),
                "heatmap": _jpeg_uri(overlay),
            }
        )
    return cards


def _jpeg_uri(image: np.ndarray | None) -> str | None:
    return None if image is None else image_uri(encode_image(image, "JPEG"), "jpeg")


def read_thumbnail(
    path: str | os.PathLike[str], size: int, fit: str, max_pixels: int
) -> np.ndarray | None:
    """Reads an image with the decoder that training uses, and resizes it to a thumbnail.

    Args:
        path: a file, a URL, or an image in a packed folder.
        size: the longer side of the thumbnail in pixels.
        fit: how the run makes images square. If it pads or crops them, the thumbnail is the square that
            the model sees. If it stretches them, the thumbnail keeps the aspect ratio of the image.
        max_pixels: the largest width × height that is read.

    Returns:
        uint8 ``[h, w, 3]``; None if the file cannot be read or is larger than ``max_pixels``.
    """
    try:
        data = read_file(os.fspath(path), max_pixels)
        decodable, header = to_decodable(data, read_header(data, max_pixels), max_pixels)
        image = decode_image(tf.constant(decodable), tf.constant(header))
    except (OSError, RefusedError, tf.errors.OpError):
        return None
    if fit != STRETCH:
        return resize_image(image, size, fit).numpy()
    small = tf.image.resize(image, [size, size], preserve_aspect_ratio=True, antialias=True)
    return tf.saturate_cast(tf.round(small), tf.uint8).numpy()
