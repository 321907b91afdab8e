"""Evaluates a run: predicts its validation images, fits the temperature, writes the report."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

from seedtf.data.columns import Columns
from seedtf.errors import UserError
from seedtf.evaluation.evaluate import Report, compute_report, make_ensemble, predict_store
from seedtf.evaluation.metrics import fit_temperature
from seedtf.evaluation.report import ReportContext, write_report
from seedtf.files import numbered_names
from seedtf.runs.folder import read_temperature
from seedtf.runs.open import Run, load_run, open_labelled, open_validation
from seedtf.runs.paths import ReportPaths

__all__ = ["Evaluation", "evaluate_run"]


@dataclass(frozen=True)
class Evaluation:
    """A written report.

    Attributes:
        page: the path of its page.
        report: its metrics.
        context: the run and the images that it is about.
        snapshots: number of snapshots that were averaged; 0 for the best model.
    """

    page: Path
    report: Report
    context: ReportContext
    snapshots: int = 0


def evaluate_run(
    run_dir: str,
    *,
    data_dir: str = "",
    labels_csv: str = "",
    file_column: str = "",
    label_column: str = "",
    split_column: str = "",
    tta: int = 1,
    snapshots: bool = False,
    precision_target: float = 0.95,
    batch_size: int = 64,
    out: str = "",
    overwrite: bool = False,
) -> Evaluation:
    """Evaluates a run on its validation images, or on those in ``data_dir``, and writes the report.

    The temperature is fitted on the validation images only. For other images it is read from the
    report on the validation images; where there is none, nothing is scaled.

    Args:
        run_dir: a run folder, or a checkpoint inside one, such as ``RUN/checkpoints/last.keras``.
        data_dir, labels_csv: other labelled images, as for training. If a table has test rows, only
            these are evaluated.
        file_column, label_column, split_column: columns of the table, by header or by number from 1.
        tta: 1, or 8 for the mean over the eight rotations and reflections of the square.
        snapshots: whether to average all snapshots of the run instead of using its best model.
        precision_target: wanted fraction of correct predictions among the accepted ones.
        batch_size: images per batch; changes the speed, not the predictions.
        out: the folder of the report. The default is ``report`` in the run, with the suffixes
            ``-<name of data_dir>``, ``-<checkpoint>``, ``-snapshots`` and ``-tta8`` that apply. An
            older report on the same images is replaced; where that folder holds a report on other
            images, ``-2``, ``-3``, … is appended.
        overwrite: whether ``out`` may already hold files.

    Raises:
        UserError: a mistake that the user can correct; the message names the flag or file.

    Example:
        >>> evaluation = evaluate_run("runs/seedlings")
        >>> evaluation.page.as_posix()
        'runs/seedlings/report/index.html'
        >>> low, high = evaluation.report.accuracy_interval
        >>> low <= evaluation.report.accuracy <= high
        True
    """
    run = load_run(run_dir)
    if labels_csv and not data_dir:
        raise UserError(f"--labels_csv={labels_csv}: needs --data_dir, the folder of its images")
    checkpoint = run.checkpoint.stem if run.checkpoint else ""
    report_paths = functools.partial(
        run.paths.report_paths, checkpoint=checkpoint, tta=tta, snapshots=snapshots
    )
    base = report_paths(data_dir).root
    if out:
        _check_out(out, overwrite)
    models = run.load_members(snapshots)
    columns = Columns(file_column, label_column, split_column)
    if data_dir:
        store, records = open_labelled(run, data_dir, labels_csv, columns)
    else:
        store, records = open_validation(run)
    predictions = predict_store(make_ensemble(models, tta), store, records, batch_size)
    if data_dir:
        temperature = read_temperature(report_paths())
    else:
        temperature = fit_temperature(predictions.probabilities, predictions.labels)
    report = compute_report(predictions, precision_target=precision_target, temperature=temperature)
    ensemble = f", mean of {len(models)} snapshots" if snapshots else ""
    file = f", {run.checkpoint.name}" if run.checkpoint else ""
    context = ReportContext(
        run_dir=run.run_dir,
        data=data_dir or "validation",
        data_root=store.catalog.root,
        model=f"{run.settings['model']}{file}{ensemble}",
        image_size=run.image_size,
        tta=tta,
        skipped=store.catalog.faults,
        labels_csv=labels_csv,
    )
    folder = Path(out) if out else _report_folder(run, base, context) if data_dir else base
    try:
        page = write_report(report, context, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}; pass another folder as --out"
        ) from None
    return Evaluation(page, report, context, len(models) if snapshots else 0)


def _report_folder(run: Run, base: Path, context: ReportContext) -> Path:
    """The first of ``base``, ``base-2``, … that is free or holds a report on the same images."""
    reports = numbered_names(base)
    suffixes = ["snapshots", "tta8", "snapshots-tta8"]
    suffixes += [path.stem for path in run.paths.checkpoints.glob("*.keras")]
    # Reports on the validation images have these names, so other images never take them.
    if base.name in {f"report-{suffix}" for suffix in suffixes}:
        next(reports)
    return next(folder for folder in reports if _may_replace(ReportPaths(folder), context))


def _may_replace(report: ReportPaths, context: ReportContext) -> bool:
    try:
        values = json.loads(report.values.read_text(encoding="utf-8"))
        # Reports of older releases have no data_root.
        folder = values.get("data_root") or os.path.abspath(values["data"])
        return {"data_root": folder, "labels_csv": values.get("labels_csv", "")} == context.source
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False


def _check_out(out: str, overwrite: bool) -> None:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder}: is a file; pass a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"--out={folder}: already exists; pass another folder or --overwrite")
