"""Classifies one image for ``seedtf demo``: probabilities, a verdict and a heat map."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier, open_classifier
from seedtf.evaluation.metrics import scale_probabilities
from seedtf.evaluation.report import read_thumbnail
from seedtf.images.header import RefusedError
from seedtf.plots.heatmap import draw_heatmap
from seedtf.report import warn
from seedtf.runs.ensembles import is_ensemble
from seedtf.runs.folder import read_temperature
from seedtf.runs.folds import is_folds
from seedtf.runs.paths import RunPaths
from seedtf.runs.saved_model import newest_saved_model

__all__ = ["Answer", "Demo"]

_MAX_CLASSES = 5
_HEATMAP_SIZE = 512


@dataclass(frozen=True)
class Answer:
    """What the page shows for one image.

    Attributes:
        probabilities: up to five classes, best first, and their probabilities. They are scaled by the
            temperature if it is known, except for the mean of several runs. Empty if the file was
            refused.
        verdict: whether the best class is accepted or rejected, and why; or why there is no verdict.
        heatmap: the image with the class activation map of the best class drawn over it, uint8
            ``[H, W, 3]``; None if the file was refused, or if the model has no such map.
    """

    probabilities: dict[str, float]
    verdict: str
    heatmap: np.ndarray | None


class Demo:
    """Classifies one image at a time with a run or an export.

    Args:
        path: the folder of a run, of ``seedtf folds``, of ``seedtf ensemble`` or of an export.
        threshold: the confidence, 0 to 1, below which the best class is rejected. None for the
            threshold in the report of the run. An export has such a report only if it is in the
            ``export`` folder of its run.

    Attributes:
        threshold: the threshold in use; None if none was passed and no report has one.

    Raises:
        UserError: ``path`` is neither a run nor an export, or is damaged.

    Example:
        >>> answer = Demo("runs/seedlings").answer("leaf.png")
        >>> len(answer.probabilities), answer.verdict.partition(":")[0]
        (2, 'no verdict')
    """

    def __init__(self, path: str | os.PathLike[str], threshold: float | None = None) -> None:
        is_run = newest_saved_model(Path(path)) is None
        self._classifier = _open(path, is_run)
        run_paths = RunPaths.of(path) if is_run else _run_of_export(Path(path))
        # The temperature of a cross-validation was fitted on its single runs, and does not suit their
        # mean. An ensemble has no temperature.
        is_scaled = not (is_folds(path) or is_ensemble(path))
        self._temperature: float | None = None
        if is_run and is_scaled:
            # An export contains the temperature; the model of a run does not.
            self._temperature = read_temperature(RunPaths.of(path).report)
        self.threshold = threshold
        if threshold is None and run_paths is not None:
            self.threshold = _read_threshold(run_paths, is_scaled=is_scaled)

    def answer(self, file: str | os.PathLike[str]) -> Answer:
        """Classifies an image file. For a file that is refused, the answer has no classes."""
        try:
            prediction = self._classifier.predict(Path(file), k=self._classifier.num_classes)
        except RefusedError as error:
            detail = error.detail.removeprefix(f"{os.fspath(file)}: ")
            return Answer({}, f"not classified: {error.fault} ({detail})", None)
        values = np.asarray(prediction.probabilities)
        if self._temperature is not None:
            values = scale_probabilities(values[None], self._temperature)[0]
        best = zip(prediction.names[:_MAX_CLASSES], values[:_MAX_CLASSES].tolist(), strict=True)
        heat = prediction.heatmap
        heatmap = None if heat is None else self._draw(file, heat)
        return Answer(dict(best), self._verdict(float(values[0])), heatmap)

    def _draw(self, file: str | os.PathLike[str], heat: np.ndarray) -> np.ndarray | None:
        classifier = self._classifier
        image = read_thumbnail(file, _HEATMAP_SIZE, classifier.fit, classifier.max_pixels)
        return None if image is None else draw_heatmap(image, heat)

    def _verdict(self, confidence: float) -> str:
        if self.threshold is None:
            return "no verdict: no report has a threshold; run seedtf evaluate, or pass --threshold"
        if confidence >= self.threshold:
            return f"accepted: {confidence:.4f} is not below the threshold {self.threshold:.4f}"
        return f"rejected: {confidence:.4f} is below the threshold {self.threshold:.4f}"


def _open(path: str | os.PathLike[str], is_run: bool) -> Classifier:
    if not is_run:
        return open_classifier(path)
    try:
        return open_classifier(path, heatmaps=True)
    except UserError as error:
        if not str(error).startswith("--heatmaps"):
            raise
        warn(f"no heat maps: {str(error).partition(': ')[2]}")
        return open_classifier(path)


def _run_of_export(path: Path) -> RunPaths | None:
    """The run whose folder ``export`` contains the export at ``path``; None if no run does."""
    export = path.resolve()
    for folder in (export.parent, export.parent.parent):
        paths = RunPaths(folder)
        if paths.config.is_file() and export.is_relative_to(paths.export):
            return paths
    return None


def _read_threshold(paths: RunPaths, *, is_scaled: bool) -> float | None:
    """Reads the threshold from a run's report; None if there is no report, or no threshold in it.

    Args:
        paths: the run.
        is_scaled: whether a temperature in the report is applied to the probabilities. If so, and if
            the report has a temperature, the threshold for scaled probabilities is read.
    """
    try:
        values = json.loads(paths.report.report_json.read_text(encoding="utf-8"))
        has_temperature = is_scaled and values.get("temperature") is not None
        threshold = values["reject_with_temperature" if has_temperature else "reject"]["threshold"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if threshold is None else float(threshold)
