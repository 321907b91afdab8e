"""Compares the accuracies of two runs on the same images, with an interval and McNemar's test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from seedtf.data.fixes import RELABELLED
from seedtf.data.table_text import read_csv
from seedtf.errors import UserError
from seedtf.evaluation.metrics import mcnemar_p
from seedtf.intervals import paired_difference_interval
from seedtf.report import format_count
from seedtf.runs.folds import is_folds, read_folds
from seedtf.runs.paths import ReportPaths, RunPaths

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Runs A and B on the images that both have predicted.

    Attributes:
        shared: number of images that are compared: images in both tables that were not relabelled.
        only_in_a, only_in_b: number of images in only one of the tables; they are not compared.
        relabelled: number of images in both tables that ``--fixes`` relabelled for at least one of the
            runs; they are not compared.
        accuracy_a, accuracy_b: the accuracies on the shared images, in [0, 1].
        difference: ``accuracy_b - accuracy_a``.
        interval: the 95 % interval of ``difference`` (Agresti and Min 2005).
        both_right, only_a_right, only_b_right, both_wrong: counts that add up to ``shared``.
        mcnemar_p: two-sided p-value of McNemar's test that the accuracies are equal.
    """

    shared: int
    only_in_a: int
    only_in_b: int
    relabelled: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: tuple[float, float]
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    mcnemar_p: float


def compare(run_a: str | os.PathLike[str], run_b: str | os.PathLike[str]) -> Comparison:
    """Compares the predictions of two runs, or of two report folders, image by image.

    Args:
        run_a, run_b: run folders that ``seedtf evaluate`` has evaluated, or report folders.

    Raises:
        UserError: a run has no report; the runs share no images, or only relabelled images; or an image
            has different labels in the two runs although ``--fixes`` did not relabel it.

    Example:
        >>> header = "path,true,top1"
        >>> for name, top1 in (("a", "oak"), ("b", "elm")):
        ...     Path(name).mkdir()
        ...     rows = ["1.png,oak,oak", f"2.png,oak,{top1}"]
        ...     _ = ReportPaths(Path(name)).predictions.write_text("\\n".join([header, *rows]))
        >>> comparison = compare("a", "b")
        >>> comparison.accuracy_a, comparison.accuracy_b, comparison.only_a_right
        (1.0, 0.5, 1)
    """
    a, b = _read_predictions(run_a), _read_predictions(run_b)
    in_both = a.keys() & b.keys()
    # A run that was trained or evaluated with corrected labels has an advantage on relabelled images.
    relabelled = in_both & (_read_relabelled(run_a) | _read_relabelled(run_b))
    shared = in_both - relabelled
    if not in_both:
        raise UserError(
            f"{run_b}: shares no file with {run_a}; evaluate both on the same images with "
            "seedtf evaluate --data_dir"
        )
    if not shared:
        raise UserError(
            f"{run_b}: --fixes relabelled all images that it shares with {run_a} "
            f"({format_count(len(in_both), 'image')}); evaluate both on more images with "
            "seedtf evaluate --data_dir"
        )
    conflicts = sorted(path for path in shared if a[path][0] != b[path][0])
    if conflicts:
        path = conflicts[0]
        raise UserError(
            f"{run_b}: labels {path!r} as {b[path][0]!r}, but {run_a} labels it as {a[path][0]!r} "
            f"({format_count(len(conflicts), 'such image')}); evaluate both with the same labels"
        )
    correct = [(a[path][0] == a[path][1], b[path][0] == b[path][1]) for path in shared]
    num_shared, num_both = len(correct), correct.count((True, True))
    only_a, only_b = correct.count((True, False)), correct.count((False, True))
    return Comparison(
        shared=num_shared,
        only_in_a=len(a.keys() - b.keys()),
        only_in_b=len(b.keys() - a.keys()),
        relabelled=len(relabelled),
        accuracy_a=(num_both + only_a) / num_shared,
        accuracy_b=(num_both + only_b) / num_shared,
        difference=(only_b - only_a) / num_shared,
        interval=paired_difference_interval(only_a, only_b, num_shared),
        both_right=num_both,
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=num_shared - num_both - only_a - only_b,
        mcnemar_p=mcnemar_p(only_a, only_b),
    )


def _read_relabelled(run: str | os.PathLike[str]) -> set[str]:
    """Reads from data_report.csv which images ``--fixes`` relabelled for a run or for its report.

    ``run`` may also be a report folder, such as ``report`` or ``report/test`` in a run folder. So the
    tables in the two parent folders of ``run`` are read too.
    """
    folder = Path(run)
    candidates = (folder, *folder.resolve().parents[:2])
    tables = [RunPaths(candidate).data_report for candidate in candidates]
    tables += [RunPaths(folder).report.data_report]
    if is_folds(folder):
        tables += [RunPaths(fold.root).data_report for fold in read_folds(folder)]
    columns = ("path", "fault")
    rows = (read_csv(table, columns) for table in tables if table.is_file())
    return {path for table in rows for path, fault in table if fault == RELABELLED}


def _read_predictions(run: str | os.PathLike[str]) -> dict[str, tuple[str, str]]:
    """Reads the label and the predicted class of each image, by its path."""
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; pass the folder that seedtf train printed")
    tables = (RunPaths(folder).report.predictions, ReportPaths(folder).predictions)
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        missing = tables[0].relative_to(folder)
        raise UserError(f"{folder}: no {missing}; run seedtf evaluate {folder} first")
    rows = read_csv(table, ("path", "true", "top1"))
    return {path: (true, predicted) for path, true, predicted in rows}
