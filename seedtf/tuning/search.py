"""Runs a hyperparameter search: draws values, trains and prunes trials, and writes the results."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from seedtf.config.train_config import TrainConfig
from seedtf.errors import DivergedError, StoppedError, UserError
from seedtf.files import lock_folder, write_text
from seedtf.model.families import short_name
from seedtf.runs.paths import RunPaths
from seedtf.training.process import (
    POLL_SECONDS,
    TRAIN_COMMAND,
    TrainProcess,
    finished_epochs,
    flags_to_train,
    last_error_line,
)
from seedtf.training.stop_signal import StopSignal
from seedtf.tuning.records import (
    Console,
    print_best,
    result_files,
    trial_config,
    write_results,
)
from seedtf.tuning.space import Dimension
from seedtf.tuning.storage import import_optuna, mask_password, open_study, storage_errors
from seedtf.tuning.study import Study
from seedtf.tuning.tracking import SearchTracking
from seedtf.tuning.trial import (
    DIVERGED,
    DONE,
    FAILED,
    PRUNED,
    History,
    TrialRow,
    best_row,
    lowest_loss_row,
)

__all__ = ["SearchSettings", "search"]

# The search ends after this many failed trials in a row. A bad combination of values makes only one
# trial fail, so the cause is probably another one, such as a full disk or a broken driver.
_MAX_FAILURES_IN_A_ROW = 3


@dataclass(frozen=True)
class SearchSettings:
    """The settings of a search.

    Attributes:
        config: the flags that are the same in all trials; ``run_dir`` and ``resume`` are empty.
        space: the searched flags, at least one.
        trials: the number of trials to run on all machines together. Pruned trials count, but failed
            trials do not count.
        study: the name of the study in the database.
        storage: a database URL; empty for a file in ``tune_dir``.
        tune_dir: the folder of trials and results; it is created if it does not exist.
        pruner: median, hyperband or none.
        keep_models: whether to keep the models and states of all trials. If False, only those of the
            best trial are kept.
    """

    config: TrainConfig
    space: Sequence[Dimension]
    trials: int
    study: str
    storage: str
    tune_dir: Path
    pruner: str
    keep_models: bool = False


def search(
    settings: SearchSettings,
    *,
    command: Sequence[str] = TRAIN_COMMAND,
    stream: TextIO | None = None,
) -> list[TrialRow]:
    """Runs trials until ``settings.trials`` have ended. An earlier search of the study is continued.

    An interrupted search ends with the same result as an uninterrupted search: a trial resumes from its
    own state, and its values depend only on the seed, its number and the trials before it. The best
    trial is the trial with the lowest validation loss.

    Args:
        settings: the settings of the search.
        command: the command that trains; ``--flagfile=`` or ``--resume=`` is appended to it.
        stream: where to print; standard output by default.

    Returns:
        All trials of the study that have ended, in the order of their numbers.

    Raises:
        UserError: a trial fails in its first epoch, and all trials before it have failed, too; several
            trials fail in a row; the study has other flags; the database or the folder cannot be used;
            or a package is missing.
        StoppedError: SIGTERM or SIGINT was received; the same command continues the search.
    """
    optuna = import_optuna()
    console = Console(sys.stdout if stream is None else stream, settings.trials)
    with (
        _lock_tune_dir(settings.tune_dir),
        StopSignal("the trial saves after its step").listening() as stop,
        storage_errors(optuna, settings.storage, settings.tune_dir),
    ):
        optuna_study = open_study(
            optuna,
            name=settings.study,
            storage=settings.storage,
            tune_dir=settings.tune_dir,
            pruner=settings.pruner,
            seed=settings.config.seed,
            epochs=settings.config.epochs,
        )
        study = Study(optuna, optuna_study, settings.space, settings.config.epochs)
        study.start_or_continue(settings.config)
        return _Searcher(settings, study, tuple(command), console, stop).run()


class _Searcher:
    """Runs the trials of a search, one after the other."""

    def __init__(
        self,
        settings: SearchSettings,
        study: Study,
        command: tuple[str, ...],
        console: Console,
        stop: StopSignal,
    ) -> None:
        self._settings, self._study = settings, study
        self._command, self._console, self._stop = command, console, stop
        self._owner = _read_owner(settings.tune_dir)
        self._tracking = SearchTracking(
            settings.config, settings.space, settings.tune_dir, settings.study
        )
        self._failures_in_a_row = 0

    def run(self) -> list[TrialRow]:
        """Runs all trials, prints the best one and returns them."""
        interrupted = True
        try:
            rows = self._run_trials()
            interrupted = False
        finally:
            self._tracking.finish(result_files(self._settings.tune_dir), interrupted=interrupted)
        return rows

    def _run_trials(self) -> list[TrialRow]:
        settings, console = self._settings, self._console
        storage = (
            mask_password(settings.storage)
            if settings.storage
            else str(settings.tune_dir / "study.db")
        )
        num_ended = _num_counted(self._study.rows())
        console.print_line("search", ", ".join(map(str, settings.space)))
        console.print_line(
            "study", f"{settings.study} in {storage}, {num_ended} of {settings.trials} trials ended"
        )
        self._tracking.start(self._study.rows())
        for trial in self._study.interrupted_trials(self._owner, shared=bool(settings.storage)):
            console.print_line("resume", f"trial {trial.number}, which was interrupted")
            self._run_trial(trial)
        while _num_counted(self._study.rows()) < settings.trials:
            self._check_stop("between two trials")
            self._run_trial(self._study.ask())
        rows = self._study.rows()
        self._write_results(rows)
        print_best(console, settings.tune_dir, settings.study, rows)
        return rows

    def _run_trial(self, trial: Any) -> None:
        """Trains a new or interrupted trial to its end, prints its line, and writes the results."""
        trial.set_user_attr("owner", self._owner)
        values = self._study.suggest(trial)
        earlier_seconds, started = trial.user_attrs.get("seconds", 0.0), time.monotonic()
        try:
            outcome, history, reason = self._train(trial, values)
        finally:
            trial.set_user_attr("seconds", earlier_seconds + time.monotonic() - started)
        self._study.tell(trial, outcome, history)
        rows = self._study.rows()
        self._console.print_trial(next(row for row in rows if row.number == trial.number), rows)
        self._tracking.log_trial(trial.number, rows)
        if outcome == FAILED:
            self._report_failure(trial.number, history, reason, rows)
        else:
            self._failures_in_a_row = 0
        self._write_results(rows)

    def _train(self, trial: Any, values: dict[str, Any]) -> tuple[str, History, str]:
        """Trains a trial. Returns its outcome, its history, and the reason if it failed."""
        run_dir, log = self._run_dir(trial.number), self._trial_path(trial.number, ".log")
        # An earlier process may have been interrupted between the report of an epoch for which Optuna
        # prunes the trial and the end of the trial.
        if self._study.should_prune(trial):
            return PRUNED, finished_epochs(run_dir), ""
        num_reported = -1
        with TrainProcess([*self._command, *self._arguments(trial.number, values)], log) as process:
            while True:
                # Read the history after the exit code, because an ended process adds no more epochs.
                code = process.poll()
                history = finished_epochs(run_dir)
                if len(history) != num_reported and self._study.report(trial, history):
                    process.end()
                    return PRUNED, history, ""
                num_reported = len(history)
                if code is not None:
                    break
                if self._stop.signal_name:
                    process.end()
                    self._check_stop(self._where_stopped(trial.number))
                self._console.show_progress(self._progress_text(trial.number, history))
                time.sleep(POLL_SECONDS)
        if code == StoppedError.exit_code:  # Only the process of the trial received the signal.
            self._stop.signal_name = self._stop.signal_name or "a signal"
            self._check_stop(self._where_stopped(trial.number))
        if code == DivergedError.exit_code:
            return DIVERGED, history, ""
        if code == 0 and lowest_loss_row(history) is not None:
            return DONE, history, ""
        return FAILED, history, last_error_line(log) or f"exit code {code}"

    def _arguments(self, number: int, values: dict[str, Any]) -> list[str]:
        """The flags that start the run of a trial, or resume it if it was interrupted."""
        run_dir = self._run_dir(number)
        config = trial_config(self._settings.config, values, run_dir)

        def while_locked() -> None:
            self._check_stop(f"while an earlier process was still training trial {number}")
            self._console.show_progress(f"trial {number}: an earlier process is still training it")

        return flags_to_train(config, run_dir, self._trial_path(number, ".txt"), while_locked)

    def _report_failure(
        self, number: int, history: History, reason: str, rows: Sequence[TrialRow]
    ) -> None:
        """Prints why a trial failed. Raises UserError if other trials would probably fail, too."""
        self._failures_in_a_row += 1
        log = self._trial_path(number, ".log")
        if not history and not _num_counted(rows):
            raise UserError(f"trial {number} could not train: {reason} (see {log})")
        if self._failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            raise UserError(
                f"{self._failures_in_a_row} trials failed in a row, the last one with: {reason} (see "
                f"{log}); correct that, then repeat the same command to continue"
            )
        self._console.print_line("failed", f"trial {number}: {reason} (see {log})")

    def _write_results(self, rows: Sequence[TrialRow]) -> None:
        settings = self._settings
        importances = self._study.importances()
        num_counted, network = _num_counted(rows), short_name(settings.config.model)
        title = f"{settings.study}: {num_counted} trials of {network}"
        try:
            write_results(
                settings.tune_dir, settings.config, settings.space, rows, importances, title=title
            )
        except OSError as error:
            raise UserError(
                f"--out={settings.tune_dir}: cannot be written ({error.strerror or error}); free "
                "some space, then repeat the same command to continue"
            ) from error
        if not settings.keep_models:
            self._remove_models(rows)

    def _remove_models(self, rows: Sequence[TrialRow]) -> None:
        """Removes models and states of all ended trials except the best, 0.7 GB each for ResNet-50."""
        best = best_row(rows)
        for row in rows:
            if best is not None and row.number == best.number:
                continue
            paths = RunPaths(self._run_dir(row.number))
            for folder in (paths.checkpoints, paths.state):
                shutil.rmtree(folder, ignore_errors=True)

    def _progress_text(self, number: int, history: History) -> str:
        text = f"trial {number}  epoch {len(history) + 1}/{self._settings.config.epochs}"
        return f"{text}  val_loss {history[-1]['val_loss']:.4f}" if history else text

    def _where_stopped(self, number: int) -> str:
        num_kept = len(finished_epochs(self._run_dir(number)))
        planned = self._settings.config.epochs
        return f"in trial {number}, whose first {num_kept} of {planned} epochs are kept"

    def _check_stop(self, where: str) -> None:
        """Raises StoppedError if a signal was received; its message is "stopped" and ``where``."""
        if self._stop.signal_name:
            self._console.clear_progress()
            raise StoppedError(
                f"{self._stop.signal_name}: stopped {where}; repeat the same command to continue"
            )

    def _run_dir(self, number: int) -> Path:
        return self._trial_path(number, "")

    def _trial_path(self, number: int, suffix: str) -> Path:
        return self._settings.tune_dir / f"trial-{number:04d}{suffix}"


def _num_counted(rows: Sequence[TrialRow]) -> int:
    """The number of trials that ``--trials`` counts: trials that have ended without failing."""
    return sum(row.outcome != FAILED for row in rows)


@contextmanager
def _lock_tune_dir(tune_dir: Path) -> Iterator[None]:
    """Creates the folder of a search and locks it within the ``with`` block.

    Raises:
        UserError: the folder cannot be written, or another search holds its lock.
    """
    with ExitStack() as stack:
        try:
            tune_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_folder(tune_dir))
        except BlockingIOError:
            raise UserError(
                f"--out={tune_dir}: another search is running there; wait, or join it with the "
                "same --storage and --study and another --out"
            ) from None
        except OSError as error:
            message = f"--out={tune_dir}: {error.strerror}; pass another folder"
            raise UserError(message) from error
        yield


def _read_owner(tune_dir: Path) -> str:
    """The identifier in the file ``owner`` of a search folder; the file is created if necessary.

    Each trial records this identifier, not the path of the folder, which may differ between machines.
    """
    path = tune_dir / "owner"
    if not path.exists():
        write_text(path, f"{uuid.uuid4()}\n")
    return path.read_text(encoding="utf-8").strip()
