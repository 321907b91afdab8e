"""Judges a run from its folder: opens, predicts, fits the temperature, writes the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.evaluation.ensemble import make_ensemble
from seedtf.evaluation.evaluate import Report, compute_report, predict_store
from seedtf.evaluation.metrics import fit_temperature
from seedtf.evaluation.report import ReportContext, write_report
from seedtf.runs.folder import read_temperature
from seedtf.runs.open import Run, load_run, open_labelled, open_validation

__all__ = ["Evaluation", "evaluate_run"]


@dataclass(frozen=True)
class Evaluation:
    """A written report: where its page is, what it says and of what.

    Attributes:
        page, report, subject: these three.
        snapshots: of how many snapshots the answers are the mean; 0 for those of the best model.
    """

    page: Path
    report: Report
    subject: ReportContext
    snapshots: int = 0


def evaluate_run(
    run_dir: str,
    *,
    data_dir: str = "",
    labels_csv: str = "",
    tta: int = 1,
    snapshots: bool = False,
    precision_target: float = 0.95,
    batch_size: int = 64,
    out: str = "",
    overwrite: bool = False,
) -> Evaluation:
    """Judges a run on its validation images, or on those of ``data_dir``, and writes the report.

    The temperature is fitted on the validation images only; for others the one in the run's report
    is taken, and none where there is no such report.

    Args:
        run_dir: a run's folder.
        data_dir, labels_csv: other labelled images, as for training.
        tta: 1, or 8 for the mean over the eight turns and mirror images.
        snapshots: whether all snapshots of the run answer, by their mean, rather than its best model.
        precision_target: share of right answers wanted among those kept.
        batch_size: images at a time; changes speed, not answers.
        out: the report's folder. By default ``report`` in the run, behind it ``-<name of data_dir>``,
            ``-snapshots`` and ``-tta8`` where these were asked for; it is replaced.
        overwrite: whether ``out`` may hold files already.

    Raises:
        UserError: whatever the user can mend, naming the flag or file.
    """
    run = load_run(run_dir)
    if labels_csv and not data_dir:
        raise UserError(f"--labels_csv={labels_csv}: needs --data_dir, the folder of its images")
    paths = run.paths.report_on(data_dir, tta=tta, snapshots=snapshots)
    folder = _free_folder(out, overwrite) if out else paths.root
    models = run.load_members(snapshots)
    store, records = open_labelled(run, data_dir, labels_csv) if data_dir else open_validation(run)
    predictions = predict_store(make_ensemble(models, tta), store, records, batch_size)
    if data_dir:
        temperature = read_temperature(run.paths.report_on(tta=tta, snapshots=snapshots))
    else:
        temperature = fit_temperature(predictions.probabilities, predictions.labels)
    report = compute_report(predictions, precision_target=precision_target, temperature=temperature)
    members = f", mean of {len(models)} snapshots" if snapshots else ""
    subject = _subject(run, store, data_dir, tta, members)
    try:
        page = write_report(report, subject, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror or error}; pass another folder as --out"
        ) from None
    return Evaluation(page, report, subject, len(models) if snapshots else 0)


def _free_folder(out: str, overwrite: bool) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder}: is a file; pass a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"--out={folder}: is there already; pass another folder or --overwrite")
    return folder


def _subject(run: Run, store: Store, data_dir: str, tta: int, members: str) -> ReportContext:
    return ReportContext(
        run_dir=run.run_dir,
        data=data_dir or "validation",
        data_root=store.catalog.root,
        model=f"{run.settings['model']}{members}",
        image_size=run.image_size,
        tta=tta,
        skipped=store.catalog.faults,
    )
