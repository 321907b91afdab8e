"""Writes the results of a search (trials.csv, best.txt, importance.png) and its console lines."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from seedtf.config.train_config import TrainConfig
from seedtf.files import csv_line, write_lines, write_text
from seedtf.plots.base import save_figure
from seedtf.plots.importance import draw_importance
from seedtf.report import format_count, format_duration, is_silent
from seedtf.tuning.space import Dimension
from seedtf.tuning.trial import FAILED, OUTCOMES, TrialRow, best_row

__all__ = [
    "Console",
    "as_flags",
    "print_best",
    "result_files",
    "trial_config",
    "write_results",
]


def trial_config(config: TrainConfig, values: Mapping[str, Any], run_dir: Path) -> TrainConfig:
    """A copy of ``config`` with the values and the run folder of one trial.

    Raises:
        UserError: the values conflict with each other or with the fixed flags.
    """
    return dataclasses.replace(config, run_dir=str(run_dir), **values)


def result_files(tune_dir: Path) -> tuple[Path, ...]:
    """The paths of the files that ``write_results`` writes, whether they exist or not."""
    return tuple(tune_dir / name for name in ("trials.csv", "best.txt", "importance.png"))


def write_results(
    tune_dir: Path,
    config: TrainConfig,
    space: Sequence[Dimension],
    rows: Sequence[TrialRow],
    importances: Mapping[str, float],
    *,
    title: str,
) -> None:
    """Writes trials.csv. If a trial has the outcome ``done``, writes best.txt and importance.png, too.

    Args:
        tune_dir: an existing folder.
        config: the flags that are the same in all trials.
        space: the searched flags with their ranges.
        rows: the trials that have ended, in any order.
        importances: the importance of each searched flag, 0 to 1; empty if it is not known yet.
        title: the title of the plot.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    names = [dimension.name for dimension in space]
    columns = ("trial", "outcome", "val_loss", "val_accuracy", "epochs", "seconds", *names)
    lines = [csv_line(*columns)]
    for row in sorted(rows, key=lambda row: row.number):
        result = (row.number, row.outcome, row.val_loss, row.val_accuracy, row.epochs)
        seconds = round(row.seconds, 1)
        values = (row.values.get(name, "") for name in names)
        lines.append(csv_line(*map(str, (*result, seconds, *values))))
    write_lines(tune_dir / "trials.csv", lines)
    best = best_row(rows)
    if best is not None:
        # The flagfile does not contain the run folder, so the empty path has no effect.
        write_text(tune_dir / "best.txt", trial_config(config, best.values, Path()).to_flagfile())
        figure = draw_importance(space, rows, best, importances, title=title)
        save_figure(figure, tune_dir / "importance.png")


class Console:
    """Prints a line for each trial and, on a terminal, the progress of the running trial.

    Nothing is printed inside ``report.silent()``.

    Args:
        stream: the stream to which the lines are written.
        num_trials: the number of trials that the search runs.
    """

    def __init__(self, stream: TextIO, num_trials: int) -> None:
        self._stream = stream
        self._num_trials = num_trials
        self._status: tqdm | None = None

    def print_line(self, label: str, text: str) -> None:
        """Prints ``label``, padded to ten columns as in ``report``, and ``text`` as one line."""
        self.clear_progress()
        if not is_silent():
            self._stream.write(f"{label:10}{text}\n")
            self._stream.flush()

    def show_progress(self, text: str) -> None:
        """Shows ``text`` until another method is called. Without a terminal, nothing is shown."""
        if not self._stream.isatty() or is_silent():
            return
        if self._status is None:
            # tqdm shortens a text to the width of the terminal only if the format has a bar. This
            # format has a bar of width 0.
            layout = "{desc}{bar:0}"
            self._status = tqdm(
                bar_format=layout, dynamic_ncols=True, leave=False, file=self._stream
            )
        self._status.set_description_str(text)

    def print_trial(self, row: TrialRow, rows: Sequence[TrialRow]) -> None:
        """Prints the line of a trial that has just ended.

        Args:
            row: the trial.
            rows: all trials that have ended.
        """
        best = best_row(rows)
        result = [
            f"val_loss {row.val_loss:.4f}" if math.isfinite(row.val_loss) else "val_loss   -   ",
            f"val_acc {row.val_accuracy:.4f}"
            if math.isfinite(row.val_accuracy)
            else "val_acc   -   ",
            f"{row.outcome:8} after {format_count(row.epochs, 'epoch')}",
            f"best {best.val_loss:.4f} in trial {best.number}" if best else "no best yet",
            f"left {format_duration(self._seconds_left(rows))}",
        ]
        self.print_line(f"trial {row.number}", "  ".join([*result, as_flags(row.values)]))

    def clear_progress(self) -> None:
        """Removes the text of ``show_progress``."""
        if self._status is not None:
            self._status.close()
            self._status = None

    def _seconds_left(self, rows: Sequence[TrialRow]) -> float:
        """The estimated seconds to the end of the search; NaN if all trials so far have failed."""
        # ``--trials`` does not count failed trials.
        counted = [row for row in rows if row.outcome != FAILED]
        if not counted:
            return math.nan
        mean = sum(row.seconds for row in counted) / len(counted)
        return mean * max(self._num_trials - len(counted), 0)


def as_flags(values: Mapping[str, Any]) -> str:
    """The values as text in the form of flags, such as ``--lr=0.002 --crop=0.3``."""
    return " ".join(f"--{name}={value}" for name, value in values.items())


def print_best(console: Console, tune_dir: Path, study_name: str, rows: Sequence[TrialRow]) -> None:
    """Prints the best trial, its flags, the files of the search, and then the ``RESULT`` line."""
    best = best_row(rows)
    if best is None:
        console.print_line("best", "no trial has completed its training")
        return
    flagfile = tune_dir / "best.txt"
    counts = {name: sum(row.outcome == name for row in rows) for name in OUTCOMES}
    num_compared = len(rows) - counts[FAILED]
    console.print_line(
        "best",
        f"trial {best.number}: validation accuracy {best.val_accuracy:.4f}, loss "
        f"{best.val_loss:.4f}; it was chosen as the best of {num_compared} trial"
        f"{'' if num_compared == 1 else 's'} that did not fail, so expect a lower accuracy with "
        "another seed",
    )
    console.print_line(
        "flagfile", shlex.join(flagfile.read_text(encoding="utf-8").split("\n")[:-1])
    )
    console.print_line("table", str(tune_dir / "trials.csv"))
    console.print_line("image", str(tune_dir / "importance.png"))
    console.print_line("train", f"seedtf train --flagfile={shlex.quote(str(flagfile))}")
    result = {
        "study": study_name,
        "tune_dir": str(tune_dir),
        "flagfile": str(flagfile),
        "best_trial": best.number,
        "val_loss": best.val_loss,
        "val_accuracy": best.val_accuracy,
        **counts,
    }
    console.print_line("RESULT", json.dumps(result))
