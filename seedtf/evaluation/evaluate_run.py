"""Evaluates a run: predicts its validation images, fits the temperature, writes the report."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from seedtf.config.data_flags import check_has_data_dir
from seedtf.data.catalog import Catalog, Fault
from seedtf.data.columns import Columns
from seedtf.data.dataset import write_data_report
from seedtf.data.fixes import FixTable
from seedtf.errors import UserError
from seedtf.evaluation.evaluate import Report, compute_report
from seedtf.evaluation.folds_report import folds_values, write_out_of_fold
from seedtf.evaluation.labelled import (
    LabelledPredictions,
    predict_labelled,
    predict_out_of_fold,
    warn_of_training_images,
)
from seedtf.evaluation.metrics import fit_temperature
from seedtf.evaluation.report import (
    MAX_TOP_LOSSES,
    OUT_OF_FOLD,
    TEST,
    VALIDATION,
    ReportContext,
    write_report,
)
from seedtf.files import check_out_folder, numbered_names
from seedtf.model.families import short_name
from seedtf.report import report as report_line
from seedtf.runs.folder import read_temperature
from seedtf.runs.open import Run, load_run, open_labelled, open_test, open_validation
from seedtf.runs.paths import ReportPaths
from seedtf.training.trackers.group import attach_files

__all__ = ["Evaluation", "evaluate_run"]


@dataclass(frozen=True)
class Evaluation:
    """A report that was written.

    Attributes:
        page: the path of the HTML page.
        report: the metrics.
        context: the run, the model and the images that the report is about.
        num_snapshots: number of snapshots that were averaged; 0 if no snapshots were requested.
        test: the evaluation on the test images of the run. None if the run has no test images, or if
            ``data_dir`` was passed.
    """

    page: Path
    report: Report
    context: ReportContext
    num_snapshots: int = 0
    test: Evaluation | None = None


def evaluate_run(
    run_dir: str,
    *,
    data_dir: str = "",
    labels_csv: str = "",
    file_column: str = "",
    label_column: str = "",
    split_column: str = "",
    layout: str = "auto",
    fixes: str = "",
    tta: int = 1,
    snapshots: bool = False,
    precision_target: float = 0.95,
    batch_size: int = 64,
    out: str = "",
    overwrite: bool = False,
) -> Evaluation:
    """Evaluates a run on its validation images, or on the images in ``data_dir``; writes the report.

    If the run has test images, they are evaluated last, with the temperature that was fitted on the
    validation images. The report of the test images is written to the folder ``test`` in the folder of
    the report.

    In a folder of ``seedtf folds``, every image is predicted by the run that did not train on it, and
    ``oof.csv`` is written. Test images and images in ``data_dir`` are predicted by the mean of all
    runs.

    The temperature is fitted on the validation images only. For images in ``data_dir``, it is read from
    the report on the validation images. The probabilities are not scaled if there is no such report, or
    if they are the mean of several runs, for which no temperature is fitted.

    Args:
        run_dir: a run folder, or a checkpoint inside one, such as ``RUN/checkpoints/last.keras``.
        data_dir, labels_csv: other labelled images, as for training. If the table ``labels_csv`` has
            test rows, only these rows are evaluated.
        file_column, label_column, split_column: columns of the table, by header or by number from 1.
        layout: the layout of ``data_dir``, as for training.
        fixes: a table of labels to change and images to leave out, for this report only. The report is
            written to a folder with the suffix ``-fixes``, so that ``report``, from which exports read
            the temperature, does not change. ``oof.csv`` is not written.
        tta: test-time augmentation: 1 for none, or 8 for the mean over the eight rotations and
            reflections of the square. With 8, ``oof.csv`` has these means, too.
        snapshots: whether to average all snapshots of the run instead of using its best model; only
            for a single run.
        precision_target: wanted fraction of correct predictions among the accepted predictions.
        batch_size: images per batch; changes the speed, not the predictions.
        out: the folder of the report. The default is ``report`` in the run folder, followed by
            ``-<name of data_dir>``, ``-<checkpoint>``, ``-snapshots``, ``-tta8`` and ``-fixes`` as far
            as they apply. If the default folder has a report on the same images, this older report is
            replaced. If it has a report on other images, ``-2``, ``-3``, … is appended.
        overwrite: whether ``out`` may already contain files.

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
    check_has_data_dir(
        data_dir,
        labels_csv=labels_csv,
        file_column=file_column,
        label_column=label_column,
        split_column=split_column,
        layout=layout,
    )
    checkpoint = run.checkpoint.stem if run.checkpoint else ""
    report_paths = functools.partial(
        run.paths.report_paths, checkpoint=checkpoint, tta=tta, snapshots=snapshots
    )
    fix_table = FixTable(fixes) if fixes else None
    default_folder = report_paths(data_dir, fixes=bool(fixes)).root
    if out:
        check_out_folder(out, "--out", overwrite=overwrite)
    columns = Columns(file_column, label_column, split_column)
    is_out_of_fold = run.is_folds and not data_dir
    if run.members and not run.is_folds and not data_dir:
        raise UserError(
            f"{run.run_dir}: an ensemble has no images of its own; pass --data_dir with labelled images"
        )
    # predict_out_of_fold loads its models itself. With snapshots, load_members refuses the folder.
    models = [] if is_out_of_fold and not snapshots else run.load_members(snapshots)
    predict = functools.partial(
        predict_labelled, tta=tta, batch_size=batch_size, weights=run.weights
    )
    if is_out_of_fold:
        labelled = predict_out_of_fold(run, tta=tta, batch_size=batch_size)
    elif data_dir:
        store, records = open_labelled(run, data_dir, labels_csv, columns, layout)
        warn_of_training_images(run, store.catalog)
        labelled = predict(models, store, records)
    else:
        labelled = predict(models, *open_validation(run))
    labelled, changes = _apply_fixes(labelled, fix_table, data_dir)
    if data_dir:
        # The temperature of a cross-validation was fitted on single runs and does not suit their mean.
        # An ensemble has no images to fit a temperature on.
        temperature = None if run.members else read_temperature(report_paths())
    else:
        predictions = labelled.predictions
        temperature = fit_temperature(predictions.probabilities, predictions.labels)
    context = ReportContext(
        run_dir=run.run_dir,
        data=data_dir or (OUT_OF_FOLD if is_out_of_fold else VALIDATION),
        data_root=labelled.data_root,
        model=_describe_model(run, models, snapshots),
        image_size=run.image_size,
        tta=tta,
        skipped=labelled.faults,
        labels_csv=labels_csv,
        fit=run.fit,
        max_pixels=run.max_pixels,
    )
    folder = Path(out) if out else default_folder
    if data_dir and not out:
        folder = _choose_folder(run, default_folder, context)
    writer = _ReportWriter(
        folder,
        precision_target,
        batch_size,
        len(models) if snapshots else 0,
        changes,
    )
    # The test images are evaluated last, because nothing may be chosen or fitted on them. For a single
    # run, their probabilities are scaled by the temperature of the validation images. The mean of
    # several runs has no temperature.
    test_images = None if data_dir else open_test(run)
    if test_images is None:
        return writer.write(run, labelled, context, temperature)
    models = models or run.load_members(use_snapshots=False)
    labelled_test, test_changes = _apply_fixes(predict(models, *test_images), fix_table)
    test_context = replace(
        context,
        data=TEST,
        skipped=labelled_test.faults,
        model=_describe_model(run, models, snapshots),
    )
    test_folder = ReportPaths(writer.folder).test.root
    test_writer = replace(writer, folder=test_folder, changes=test_changes)
    test_temperature = None if run.members else temperature
    test = test_writer.write(run, labelled_test, test_context, test_temperature)
    return writer.write(run, labelled, context, temperature, test)


def _apply_fixes(
    labelled: LabelledPredictions, fix_table: FixTable | None, data_dir: str = ""
) -> tuple[LabelledPredictions, tuple[Fault, ...] | None]:
    """Applies ``--fixes`` to the labels.

    Returns:
        The predictions with the new labels, and the changes, as rows of data_report.csv. If
        ``fix_table`` is None, the unchanged predictions and None.
    """
    if fix_table is None:
        return labelled, None
    fixes = fix_table.find(labelled.catalog, data_dir, others_allowed=True)
    path = fix_table.source.removeprefix("--fixes=")
    report_line("fixes", f"{path}: {fixes.describe()}")
    if fixes.dropped.all():
        raise UserError(
            f"{fix_table.source}: leaves out all {len(fixes.dropped)} images; keep some"
        )
    return labelled.with_fixes(fixes), fixes.changes


@dataclass(frozen=True)
class _ReportWriter:
    """Computes the metrics of a report and writes its folder.

    Attributes:
        folder: the folder of the report.
        precision_target, batch_size: as for ``evaluate_run``.
        num_snapshots: number of snapshots that were averaged; 0 if no snapshots were requested.
        changes: what ``--fixes`` changed, as rows of data_report.csv; None without ``--fixes``.
    """

    folder: Path
    precision_target: float
    batch_size: int
    num_snapshots: int
    changes: tuple[Fault, ...] | None = None

    def write(
        self,
        run: Run,
        labelled: LabelledPredictions,
        context: ReportContext,
        temperature: float | None,
        test: Evaluation | None = None,
    ) -> Evaluation:
        """Writes the report on ``labelled``, whose page also shows the metrics of ``test``."""
        is_out_of_fold = context.data == OUT_OF_FOLD
        report = compute_report(
            labelled.predictions, precision_target=self.precision_target, temperature=temperature
        )
        try:
            page = write_report(
                report,
                context,
                self.folder,
                test=test.report if test else None,
                heatmaps=labelled.compute_heatmaps(report, MAX_TOP_LOSSES, self.batch_size),
                folds=folds_values(run, report) if is_out_of_fold else None,
            )
            if self.changes is not None:
                # write_data_report writes the faults of a catalog, so the changes are passed as such.
                changed = Catalog(labelled.data_root, (), np.empty(0, np.int32), (), self.changes)
                write_data_report(ReportPaths(self.folder).data_report, changed)
            elif is_out_of_fold:
                write_out_of_fold(run, labelled.predictions)
        except OSError as error:
            raise UserError(
                f"{self.folder}: {error.strerror or error}; pass another folder as --out"
            ) from None
        _send_to_trackers(run, self.folder)
        return Evaluation(page, report, context, self.num_snapshots, test)


def _send_to_trackers(run: Run, folder: Path) -> None:
    """Uploads a report that is in the run folder to the trackers of the run (``--track``)."""
    root, paths = run.paths.root.resolve(), ReportPaths(folder)
    if not folder.resolve().is_relative_to(root):
        return
    files = (paths.page, paths.report_json, paths.predictions, paths.confusion_matrix)
    name = folder.resolve().relative_to(root).as_posix()
    attach_files(root, [path for path in files if path.is_file()], name)


def _describe_model(run: Run, models: Sequence[keras.Model], snapshots: bool) -> str:
    """Names the network, its checkpoint, and how many models predicted each image."""
    file = f", {run.checkpoint.name}" if run.checkpoint else ""
    name = f"{short_name(run.settings['model'])}{file}"
    if run.members and not models:
        return f"{name}, {len(run.members)} runs, each on the images of its fold"
    members = "snapshots" if snapshots else "runs" if run.members else ""
    return f"{name}, mean of {len(models)} {members}" if members else name


def _choose_folder(run: Run, default: Path, context: ReportContext) -> Path:
    """Chooses the first of ``default``, ``default-2``, … that has no report on other images."""
    folders = numbered_names(default)
    suffixes = ["snapshots", "tta8", "snapshots-tta8", "fixes"]
    suffixes += [path.stem for path in run.paths.checkpoints.glob("*.keras")]
    # A report on images in a folder with such a name, for example ``tta8``, would have the name of a
    # report on the validation images. So the numbers of its folder start with 2.
    if default.name in {f"report-{suffix}" for suffix in suffixes}:
        next(folders)
    return next(folder for folder in folders if _may_replace(ReportPaths(folder), context))


def _may_replace(paths: ReportPaths, context: ReportContext) -> bool:
    """Whether the folder has no report, or a report on the images of ``context``."""
    try:
        values = json.loads(paths.report_json.read_text(encoding="utf-8"))
        # Reports by older versions of seedtf have no data_root.
        data_root = values.get("data_root") or os.path.abspath(values["data"])
        source = {"data_root": data_root, "labels_csv": values.get("labels_csv", "")}
        return source == context.source
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return False
