"""Trains the runs of all folds and writes the report, on one machine or on several machines together.

This process does not import TensorFlow. It does each task by starting a ``seedtf`` command: it divides
the images, trains a run for each fold, and evaluates the runs. While a command is running, this process
touches the claim of the task, so that no other process takes the task (see ``claims``).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedtf.config.recipes import BEFORE_FLAG
from seedtf.config.train_config import TrainConfig
from seedtf.errors import DivergedError, StoppedError, UserError
from seedtf.files import write_text
from seedtf.folds.claims import Claim, Claims
from seedtf.report import is_silent, report
from seedtf.runs.folds import GROUPS, TABLE_FLAGS, FoldsPaths, table_digest
from seedtf.runs.history import best_epoch
from seedtf.runs.saved_config import RESUME_MAY_CHANGE
from seedtf.training.process import (
    POLL_SECONDS,
    TRAIN_COMMAND,
    TrainProcess,
    finished_epochs,
    flags_to_train,
    last_error_line,
)
from seedtf.training.stop_signal import StopSignal

__all__ = ["SEEDTF", "Commands", "train_folds"]

SEEDTF = (sys.executable, "-m", "seedtf")
REPORT = "report"


@dataclass(frozen=True)
class Commands:
    """The commands that do the tasks, without their arguments. Tests replace the commands.

    Attributes:
        divide: the command that divides the images; the arguments of ``seedtf folds`` are appended.
        train: the command that trains a run; the flags of the run are appended.
        evaluate: the command that writes the report; the folder is appended.
    """

    divide: Sequence[str] = (*SEEDTF, "folds", "--divide_only")
    train: Sequence[str] = TRAIN_COMMAND
    evaluate: Sequence[str] = (*SEEDTF, "evaluate")


def train_folds(
    config: TrainConfig,
    folds: str,
    arguments: Sequence[str],
    folder: Path,
    *,
    takeover_seconds: float = 120.0,
    commands: Commands | None = None,
) -> None:
    """Divides the images, trains every fold that no other process trains, and writes the report.

    This function returns when the report is complete, even if another process wrote it. After an
    interruption, the same call continues the work. In the end, ``oof.csv`` and the histories have the
    same bytes as without the interruption.

    Args:
        config: the flags of training.
        folds: the number of folds, or ``groups``.
        arguments: the command line of ``seedtf folds``, for the process that divides the images.
        folder: the folder of the cross-validation; it is created if it does not exist.
        takeover_seconds: the timeout of ``Claims``: after so many seconds without a sign of a process
            on another machine, this process takes its task.
        commands: the commands that do the tasks; None for the commands of seedtf.

    Raises:
        UserError: the folder cannot be created; the flags differ from those with which the folder was
            started; a command fails; or another process took a task of this process.
        StoppedError: a signal arrived. If a run was being trained, its state is saved.
    """
    stop = StopSignal()
    paths = FoldsPaths(folder)
    _make_folder(paths)
    tasks = _Tasks(
        config, paths, Claims(paths.claims, takeover_seconds), commands or Commands(), stop
    )
    with stop.listening():
        if paths.table.is_file():
            _check_flags(paths, config, folds)
        tasks.run_all(["divide"], lambda name, claim: tasks.divide(arguments, claim))
        count = paths.read_settings()["folds"]
        tasks.run_all([f"fold-{number}" for number in range(count)], tasks.train)
        tasks.run_all([REPORT], tasks.evaluate)


def _make_folder(paths: FoldsPaths) -> None:
    try:
        paths.claims.mkdir(parents=True, exist_ok=True)
        paths.log("").parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={paths.root}: {error.strerror}; pass another folder") from error


def _check_flags(paths: FoldsPaths, config: TrainConfig, folds: str) -> None:
    """Raises UserError if a flag that changes the results differs from the flag saved in the folder."""
    settings = paths.read_settings()
    saved = settings["flags"]
    divided_by = saved.get("folds", folds)  # older releases did not save --folds
    if (folds == GROUPS) != (divided_by == GROUPS):
        raise UserError(
            f"--folds={folds}: {paths.root} was divided with --folds={divided_by}; pass that, or "
            "another --out"
        )
    if folds.isdecimal() and int(folds) != settings["folds"]:
        raise UserError(
            f"--folds={folds}: {paths.root} is divided into {settings['folds']} folds; pass that "
            "number, or another --out"
        )
    for name in TABLE_FLAGS:
        if saved.get(f"{name}_digest", "") != table_digest(config.as_dict(), name):
            raise UserError(
                f"--{name}={getattr(config, name)}: is not the table with which {paths.root} was "
                "divided; restore it, or pass another --out"
            )
    flags = json.loads(json.dumps(config.as_dict()))
    saved = BEFORE_FLAG | saved
    for name, value in flags.items():
        if name not in RESUME_MAY_CHANGE and saved.get(name, value) != value:
            raise UserError(
                f"--{name}={value}: the folds in {paths.root} have {saved[name]!r}; pass that, or "
                "another --out"
            )


@dataclass
class _Tasks:
    """Does the tasks of ``seedtf folds``: the division of the images, each fold, and the report."""

    config: TrainConfig
    paths: FoldsPaths
    claims: Claims
    commands: Commands
    stop: StopSignal

    def run_all(self, names: Sequence[str], run: Callable[[str, Claim], dict[str, Any]]) -> None:
        """Does each task that no other process has taken, and waits until all tasks are done.

        Args:
            names: the names of the tasks.
            run: does a task, given its name and its claim, and returns what is written to the file
                that marks the task as done.
        """
        last_reported = ""
        while pending := [name for name in names if not self.paths.done(name).is_file()]:
            for name in pending:
                claim = self.claims.take(name)
                if claim is None:
                    continue
                try:
                    self._run_task(name, claim, run)
                finally:
                    claim.release()
                break
            else:
                waiting = ", ".join(
                    f"{name} by {self.claims.describe_owner(name)}" for name in pending
                )
                if waiting != last_reported:
                    report("waiting", f"for {waiting}")
                    last_reported = waiting
                self._check_stop("while other processes were working")
                time.sleep(POLL_SECONDS)

    def _run_task(
        self, name: str, claim: Claim, run: Callable[[str, Claim], dict[str, Any]]
    ) -> None:
        # Another process may have finished the task just before this process took it.
        if self.paths.done(name).is_file():
            return
        result = run(name, claim)
        if not claim.is_lost():
            write_text(self.paths.done(name), json.dumps(result, indent=1) + "\n")

    def divide(self, arguments: Sequence[str], claim: Claim) -> dict[str, Any]:
        """Divides the images in a process of its own."""
        report("divide", f"opens the images, once for all folds; log in {self.paths.log('divide')}")
        command = [*self.commands.divide, *arguments, f"--out={self.paths.root}"]
        self._run_command(command, "divide", claim)
        report(
            "folds", f"{self.paths.read_settings()['folds']} folds, listed in {self.paths.table}"
        )
        return {"folds": self.paths.read_settings()["folds"]}

    def train(self, name: str, claim: Claim) -> dict[str, Any]:
        """Trains the run of a fold; resumes it if it was interrupted."""
        number = int(name.rpartition("-")[2])
        run = self.paths.fold(number)
        action = "continues" if run.config.exists() else "trains"
        report(name, f"{action}; log in {self.paths.log(name)}")
        self._run_command([*self.commands.train, *self._train_flags(number, claim)], name, claim)
        rows = finished_epochs(run.root)
        best = best_epoch(rows)
        if best is None:
            raise UserError(f"{run.root}: no epoch had a finite validation loss; lower --lr")
        accuracy = rows[best - 1]["val_accuracy"]
        report(name, f"accuracy {accuracy:.4f} in epoch {best} of {len(rows)}; {run.root}")
        return {"epochs": len(rows), "best_epoch": best, "val_accuracy": accuracy}

    def evaluate(self, name: str, claim: Claim) -> dict[str, Any]:
        """Evaluates all runs and writes the report, in a process of its own."""
        self._run_command([*self.commands.evaluate, str(self.paths.root)], name, claim)
        return {"report": str(self.paths.predictions)}

    def _train_flags(self, number: int, claim: Claim) -> list[str]:
        """The flags that start the run of a fold; if it was interrupted, the flags that resume it."""
        run = self.paths.fold(number)
        split = str(self.paths.split(number))
        config = replace(self.config, run_dir=str(run.root), split_csv=split, test_fraction=0.0)

        def while_locked() -> None:
            claim.heartbeat()
            self._check_stop(f"while another process was still training fold {number}")

        return flags_to_train(config, run.root, self.paths.flags(number), while_locked)

    def _run_command(self, command: Sequence[str], name: str, claim: Claim) -> None:
        """Runs a command to its end, writes its output to a log, and keeps the claim of the task."""
        log = self.paths.log(name)
        with (
            _make_progress_bar(name, self.config.epochs) as bar,
            TrainProcess(command, log) as process,
        ):
            while (code := process.poll()) is None:
                claim.heartbeat()
                if self.stop.signal_name or claim.is_lost():
                    process.end()
                    self._check_stop(_describe_stop(name))
                    raise UserError(f"{self.paths.root}: another process took over {name}")
                if name.startswith("fold-"):
                    bar.n = len(finished_epochs(self.paths.root / name))
                    bar.refresh()
                time.sleep(POLL_SECONDS)
        if code == StoppedError.exit_code:  # only the started process received the signal
            self.stop.signal_name = self.stop.signal_name or "a signal"
            self._check_stop(_describe_stop(name))
        if code:
            error_type = DivergedError if code == DivergedError.exit_code else UserError
            reason = last_error_line(log) or f"exit code {code}"
            raise error_type(f"{name}: {reason} (see {log})")

    def _check_stop(self, where: str) -> None:
        if self.stop.signal_name:
            raise StoppedError(
                f"{self.stop.signal_name}: stopped {where}; repeat the same command to continue"
            )


def _describe_stop(name: str) -> str:
    """The end of the message of a stopped task. Only the training of a fold has a saved state."""
    kept = (
        "whose state is kept" if name.startswith("fold-") else "which will start from its beginning"
    )
    return f"in {name}, {kept}"


def _make_progress_bar(name: str, epochs: int) -> tqdm:
    """A progress bar over the epochs of a fold. For another task, it shows only the time."""
    total = epochs if name.startswith("fold-") else None
    hidden = is_silent() or None
    return tqdm(desc=name, total=total, unit="epoch", leave=False, disable=hidden)
