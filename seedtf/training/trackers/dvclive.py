"""Writes the files of DVCLive without the package dvclive; DVC and its VS Code extension read them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedtf.files import write_text
from seedtf.runs.paths import RunPaths
from seedtf.training.trackers.tracker import TrackedRun, Tracker, is_image

__all__ = ["DvcliveTracker"]


class DvcliveTracker(Tracker):
    """Writes to ``dvclive`` in the run folder: ``metrics.json``, ``params.yaml``, ``dvc.yaml``, plots.

    ``plots/metrics/NAME.tsv`` has the columns step and NAME. Images are copied to ``plots/images``. The
    other files of a report stay where they are; ``dvc.yaml`` names their folder.
    """

    def start(self, run: TrackedRun, saved: Mapping[str, Any]) -> dict[str, Any]:
        self.reopen(run, saved)
        # The caller logs every epoch after `last`: those that this process trains again, and completed
        # epochs that are missing in the files. So the rows after `last` are removed.
        last = min(saved.get("last", 0), run.last_epoch)
        for path in self._series_folder.glob("*.tsv"):
            rows = [row for row in _read_series(path) if int(row[0]) <= last]
            _write_series(path, rows)
        if run.flags:
            lines = [f"{name}: {_as_yaml(value)}\n" for name, value in run.flags.items()]
            write_text(self._folder / "params.yaml", "".join(lines))
        self._write_dvc_yaml()
        return {"last": last}

    def reopen(self, run: TrackedRun, saved: Mapping[str, Any]) -> None:
        self._folder = RunPaths(run.folder).dvclive
        self._series_folder = self._folder / "plots" / "metrics"
        self._image_folder = self._folder / "plots" / "images"
        for folder in (self._series_folder, self._image_folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.place = str(self._folder)

    def log_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            path = self._series_folder / f"{name}.tsv"
            rows = _read_series(path) if path.exists() else []
            _write_series(path, [*rows, (str(epoch), repr(value))])
        finite = {name: value for name, value in metrics.items() if not math.isnan(value)}
        text = json.dumps({**finite, "step": epoch}, indent=4)
        write_text(self._folder / "metrics.json", f"{text}\n")

    def log_files(self, files: Sequence[Path], prefix: str = "") -> None:
        for path in filter(is_image, files):
            shutil.copyfile(path, self._image_folder / path.name)
        if prefix and files:
            self._write_dvc_yaml(report_folder=prefix)

    def finish(self, ending: str) -> None:
        """Does nothing, because every file is complete after each epoch."""

    def _write_dvc_yaml(self, report_folder: str = "") -> None:
        plots = "- plots/metrics:\n    x: step\n- plots/images\n"
        text = f"params:\n- params.yaml\nmetrics:\n- metrics.json\nplots:\n{plots}"
        if report_folder:
            name = report_folder.replace("/", "-")
            text += f"artifacts:\n  {name}:\n    path: ../{report_folder}\n"
        write_text(self._folder / "dvc.yaml", text)


def _read_series(path: Path) -> list[tuple[str, str]]:
    """The rows below the header, each with a step and a value."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [(step, value) for step, _, value in (line.partition("\t") for line in lines)]


def _write_series(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    lines = "".join(f"{step}\t{value}\n" for step, value in rows)
    write_text(path, f"step\t{path.stem}\n{lines}")


def _as_yaml(value: Any) -> str:
    """A JSON value as YAML: the same text, except that YAML 1.1 needs 1.0e-05 for the number 1e-05."""
    text = json.dumps(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")
    return text
