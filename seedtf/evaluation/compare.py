"""Two runs judged on the same images: is one better than the other by more than chance?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from seedtf.data.layouts import read_csv
from seedtf.errors import UserError
from seedtf.evaluation.metrics import mcnemar_p, paired_difference_interval
from seedtf.runs.paths import ReportPaths, RunPaths

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """A and B on the images that both have answered.

    Attributes:
        shared: images in both tables; ``only_in_a`` and ``only_in_b`` are left out.
        accuracy_a, accuracy_b: on the shared images, in [0, 1].
        difference: B less A; ``interval`` is its 95 % interval.
        both_right, only_a_right, only_b_right, both_wrong: counts that add up to ``shared``.
        mcnemar_p: two-sided p of no difference.
    """

    shared: int
    only_in_a: int
    only_in_b: int
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
    """Compares the predictions of two runs, or of two report folders, file by file.

    Raises:
        UserError: a run has no report, the two share no files, or call the same file differently.
    """
    a, b = _read(run_a), _read(run_b)
    shared = a.keys() & b.keys()
    if not shared:
        raise UserError(
            f"{run_b}: shares no file with {run_a}; judge both on the same images with "
            "seedtf evaluate --data_dir"
        )
    differing = sorted(path for path in shared if a[path][0] != b[path][0])
    if differing:
        path = differing[0]
        raise UserError(
            f"{run_b}: calls {path!r} {b[path][0]!r}, {run_a} calls it {a[path][0]!r} "
            f"({len(differing)} such); judge both on the same labels"
        )
    right = [(a[path][0] == a[path][1], b[path][0] == b[path][1]) for path in shared]
    n, only_a, only_b = len(right), right.count((True, False)), right.count((False, True))
    both = right.count((True, True))
    return Comparison(
        shared=n,
        only_in_a=len(a) - n,
        only_in_b=len(b) - n,
        accuracy_a=(both + only_a) / n,
        accuracy_b=(both + only_b) / n,
        difference=(only_b - only_a) / n,
        interval=paired_difference_interval(only_a, only_b, n),
        both_right=both,
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=n - both - only_a - only_b,
        mcnemar_p=mcnemar_p(only_a, only_b),
    )


def _read(run: str | os.PathLike[str]) -> dict[str, tuple[str, str]]:
    """True and predicted class by path."""
    folder = Path(run)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; pass the folder that seedtf train printed")
    tables = (RunPaths(folder).report.predictions, ReportPaths(folder).predictions)
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        missing = tables[0].relative_to(folder)
        raise UserError(f"{folder}: no {missing}; run seedtf evaluate {folder} first")
    rows = read_csv(table, ("path", "true", "top1"), "predictions")
    return {path: (true, answer) for path, true, answer in rows}
