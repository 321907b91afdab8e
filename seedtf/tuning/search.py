"""A search from its first trial to its last: asks Optuna, trains, reports, prunes, goes on."""

from __future__ import annotations

import fcntl
import math
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from seedtf.compat.optuna import reopen_trial
from seedtf.config.train_config import TrainConfig
from seedtf.errors import DivergedError, StoppedError, UserError
from seedtf.files import write_text
from seedtf.runs.folder import is_run_locked
from seedtf.runs.paths import RunPaths
from seedtf.training.stop_signal import StopSignal
from seedtf.tuning.records import Console, print_best, trial_config, write_records
from seedtf.tuning.space import Dimension
from seedtf.tuning.study import (
    check_same_search,
    import_optuna,
    importances,
    masked,
    open_study,
    storage_errors,
    suggest,
)
from seedtf.tuning.trial_process import (
    TRAIN,
    Epoch,
    TrialProcess,
    best_of,
    last_error_line,
    read_epochs,
)
from seedtf.tuning.trial_row import TrialRow, best_row

__all__ = ["Search", "search"]

_DONE, _PRUNED, _DIVERGED, _FAILED = "done", "pruned", "diverged", "failed"
_POLL_SECONDS = 0.2
# a full disk or a broken driver fails every trial; a sample of values that does not, fails some
_MOST_FAILURES = 3


@dataclass(frozen=True)
class Search:
    """What to search and how.

    Attributes:
        config: the fixed flags; ``run_dir`` and ``resume`` are empty.
        space: the searched flags, at least one.
        trials: how many are to end, pruned ones included and failed ones not, over all machines.
        study: its name in the database.
        storage: a database URL; empty for a file in ``tune_dir``.
        tune_dir: folder of the trials and results; made where it is not there.
        pruner: median, hyperband or none.
        keep_models: keep the models and states of all trials, not of the best alone.
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
    plan: Search, *, command: Sequence[str] = TRAIN, stream: TextIO | None = None
) -> list[TrialRow]:
    """Runs trials until ``plan.trials`` have ended, going on where an earlier process stopped.

    A trial that was cut off trains on from its own state, so that a search that was interrupted ends
    as one that was not: what is drawn for a trial follows from the seed, its number and the trials
    before it. Only the validation images judge; a trial's value is its lowest validation loss, that
    of the model it keeps.

    Args:
        plan: what to search.
        command: what trains, given ``--flagfile=`` or ``--resume=``.
        stream: where to write; standard output by default.

    Returns:
        All trials of the study that have ended, by number.

    Raises:
        UserError: flags that no trial can train with, a storage or folder that cannot be used or is
            lost, several failures in a row, optuna is not installed.
        StoppedError: SIGTERM or SIGINT came; the same command goes on.
    """
    optuna = import_optuna()
    console = Console(sys.stdout if stream is None else stream, plan.trials)
    with (
        _alone_in(plan.tune_dir),
        StopSignal("the trial saves after its step").listening() as stop,
        storage_errors(optuna, plan.storage, plan.tune_dir),
    ):
        study = open_study(
            optuna,
            name=plan.study,
            storage=plan.storage,
            tune_dir=plan.tune_dir,
            pruner=plan.pruner,
            seed=plan.config.seed,
            epochs=plan.config.epochs,
        )
        check_same_search(study, plan.config, list(plan.space))
        tools = {"optuna": optuna, "study": study, "console": console, "stop": stop}
        return _Searcher(plan, command=tuple(command), **tools).run()


class _Searcher:
    """The loop over the trials."""

    def __init__(
        self,
        plan: Search,
        *,
        optuna: Any,
        study: Any,
        command: tuple[str, ...],
        console: Console,
        stop: StopSignal,
    ) -> None:
        self._optuna, self._study, self._plan = optuna, study, plan
        self._command, self._console, self._stop = command, console, stop
        self._states = optuna.trial.TrialState
        self._owner = _owner(plan.tune_dir)
        self._failures = 0

    def run(self) -> list[TrialRow]:
        """All trials; then the last lines."""
        plan, console = self._plan, self._console
        rows = self._rows()
        place = masked(plan.storage) if plan.storage else str(plan.tune_dir / "study.db")
        console.say("search", ", ".join(map(str, plan.space)))
        console.say(
            "study", f"{plan.study} in {place}, {_ended(rows)} of {plan.trials} trials ended"
        )
        for trial in self._cut_off():
            console.say("going on", f"with trial {trial.number}, which was cut off")
            self._one(trial)
        while _ended(self._rows()) < plan.trials:
            self._check_stop("between two trials")
            self._one(self._study.ask())
        rows = self._rows()
        self._write(rows)
        print_best(console, plan.tune_dir, plan.study, rows)
        return rows

    def _cut_off(self) -> Iterator[Any]:
        """Trials of this folder that run nowhere: the lock on the folder says that they cannot."""
        for frozen in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            # one without an owner was cut off as it was made; in a file of our own it can only be ours
            owner = frozen.user_attrs.get("owner", "" if self._plan.storage else self._owner)
            if owner == self._owner or not self._plan.storage:
                yield reopen_trial(self._study, frozen)

    def _one(self, trial: Any) -> None:
        """One trial from where it is to its end, its line and the records."""
        trial.set_user_attr("owner", self._owner)
        values = {each.name: each.written(suggest(trial, each)) for each in self._plan.space}
        before, began = trial.user_attrs.get("seconds", 0.0), time.monotonic()
        try:
            outcome, epochs, reason = self._train(trial, values)
        finally:
            trial.set_user_attr("seconds", before + time.monotonic() - began)
        self._tell(trial, outcome, epochs)
        rows = self._rows()
        self._console.trial(next(row for row in rows if row.number == trial.number), rows)
        if outcome == _FAILED:
            self._judge_failure(trial.number, epochs, reason, rows)
        else:
            self._failures = 0
        self._write(rows)

    def _train(self, trial: Any, values: dict[str, Any]) -> tuple[str, list[Epoch], str]:
        """How the trial's training ended: outcome, epochs, the line of a failure."""
        folder, log = self._folder(trial.number), self._beside(trial.number, ".log")
        if self._should_prune(trial):  # decided, but cut off before it could be told
            return _PRUNED, read_epochs(RunPaths(folder).history), ""
        told = -1
        with TrialProcess([*self._command, *self._arguments(trial.number, values)], log) as process:
            while True:
                # first the code, then the rows: so the last ones are seen
                code = process.poll()
                epochs = read_epochs(RunPaths(folder).history)
                if len(epochs) != told and self._report(trial, epochs):
                    process.end()
                    return _PRUNED, epochs, ""
                told = len(epochs)
                if code is not None:
                    break
                if self._stop.name:
                    process.end()
                    self._check_stop(self._where(trial.number))
                self._console.progress(self._progress(trial.number, epochs))
                time.sleep(_POLL_SECONDS)
        if code == StoppedError.exit_code:  # by a signal to it alone
            self._stop.name = self._stop.name or "a signal"
            self._check_stop(self._where(trial.number))
        if code == DivergedError.exit_code:
            return _DIVERGED, epochs, ""
        if code == 0 and best_of(epochs) is not None:
            return _DONE, epochs, ""
        return _FAILED, epochs, last_error_line(log) or f"exit code {code}"

    def _arguments(self, number: int, values: dict[str, Any]) -> list[str]:
        """A new run's, or those of one that goes on."""
        folder = self._folder(number)
        while is_run_locked(folder):  # left by a search that was killed, and saving
            self._check_stop(f"while trial {number} was still training by itself")
            self._console.progress(f"trial {number}: its process of before is still training there")
            time.sleep(_POLL_SECONDS)
        if RunPaths(folder).config.exists():
            return [f"--resume={folder}"]
        shutil.rmtree(folder, ignore_errors=True)
        config = trial_config(self._plan.config, values, folder)
        flagfile = self._beside(number, ".txt")
        write_text(flagfile, f"{config.flagfile()}--run_dir={folder}\n")
        return [f"--flagfile={flagfile}"]

    def _report(self, trial: Any, epochs: Sequence[Epoch]) -> bool:
        """Tells Optuna the epochs that it does not know; whether to prune after one of them."""
        known = self._known_steps(trial)
        for epoch in epochs:
            if epoch.epoch in known:
                continue
            trial.report(epoch.val_loss, epoch.epoch)
            if self._should_prune(trial):
                return True
        return False

    def _should_prune(self, trial: Any) -> bool:
        """After the last epoch there is nothing to be saved."""
        known = self._known_steps(trial)
        return bool(known) and max(known) < self._plan.config.epochs and trial.should_prune()

    def _known_steps(self, trial: Any) -> set[int]:
        trials = self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        frozen = next((each for each in trials if each.number == trial.number), None)
        return set(frozen.intermediate_values) if frozen else set()

    def _tell(self, trial: Any, outcome: str, epochs: Sequence[Epoch]) -> None:
        known = {each.epoch: each for each in epochs}
        best = best_of(epochs)
        if outcome == _PRUNED:
            best = known.get(max(self._known_steps(trial)))
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("epochs", best.epoch if outcome == _PRUNED and best else len(epochs))
        if best is not None and math.isfinite(best.val_loss):
            trial.set_user_attr("val_loss", best.val_loss)
            trial.set_user_attr("val_accuracy", best.val_accuracy)
        if outcome == _DONE and best is not None:
            self._study.tell(trial, best.val_loss)
        elif outcome == _FAILED:
            self._study.tell(trial, state=self._states.FAIL)
        else:  # to have diverged says as much about the values as a bad loss does
            self._study.tell(trial, state=self._states.PRUNED)

    def _judge_failure(
        self, number: int, epochs: Sequence[Epoch], reason: str, rows: Sequence[TrialRow]
    ) -> None:
        """Ends the search where the next trial would fail too."""
        self._failures += 1
        if not epochs and not _ended(rows):
            raise UserError(f"the first trial could not train: {reason}")
        log = self._beside(number, ".log")
        if self._failures >= _MOST_FAILURES:
            raise UserError(
                f"{self._failures} trials failed in a row, the last one with: {reason} (see {log}); "
                "mend that, then go on with the same command"
            )
        self._console.say("failed", f"trial {number}: {reason} (see {log})")

    def _rows(self) -> list[TrialRow]:
        states = (self._states.COMPLETE, self._states.PRUNED, self._states.FAIL)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return [self._row(trial) for trial in trials]

    def _row(self, frozen: Any) -> TrialRow:
        noted = frozen.user_attrs
        return TrialRow(
            number=frozen.number,
            outcome=noted.get("outcome", _FAILED),
            val_loss=noted.get("val_loss", math.nan),
            val_accuracy=noted.get("val_accuracy", math.nan),
            epochs=noted.get("epochs", 0),
            seconds=noted.get("seconds", 0.0),
            values={
                each.name: each.written(frozen.params[each.name])
                for each in self._plan.space
                if each.name in frozen.params
            },
        )

    def _write(self, rows: Sequence[TrialRow]) -> None:
        plan = self._plan
        shares = importances(self._optuna, self._study, plan.space)
        title = f"{plan.study}: {_ended(rows)} trials of {plan.config.model}"
        try:
            write_records(plan.tune_dir, plan.config, plan.space, rows, shares, title=title)
        except OSError as error:
            raise UserError(
                f"--tune_dir={plan.tune_dir}: cannot be written ({error.strerror or error}); make "
                "room, then go on with the same command"
            ) from error
        if not plan.keep_models:
            self._remove_models(rows)

    def _remove_models(self, rows: Sequence[TrialRow]) -> None:
        """A hundred trials of ResNet-50 would hold 70 GB; only the best one's model is of use."""
        best = best_row(rows)
        for row in rows:
            if best is not None and row.number == best.number:
                continue
            paths = RunPaths(self._folder(row.number))
            for folder in (paths.checkpoints, paths.state):
                shutil.rmtree(folder, ignore_errors=True)

    def _progress(self, number: int, epochs: Sequence[Epoch]) -> str:
        text = f"trial {number}  epoch {len(epochs) + 1}/{self._plan.config.epochs}"
        return f"{text}  val_loss {epochs[-1].val_loss:.4f}" if epochs else text

    def _where(self, number: int) -> str:
        done = len(read_epochs(RunPaths(self._folder(number)).history))
        return f"in trial {number} after epoch {done} of {self._plan.config.epochs}, which is kept"

    def _check_stop(self, where: str) -> None:
        if self._stop.name:
            self._console.clear()
            raise StoppedError(f"{self._stop.name}: stopped {where}; go on with the same command")

    def _folder(self, number: int) -> Path:
        return self._plan.tune_dir / f"trial-{number:04d}"

    def _beside(self, number: int, suffix: str) -> Path:
        return self._plan.tune_dir / f"trial-{number:04d}{suffix}"


def _ended(rows: Sequence[TrialRow]) -> int:
    return sum(row.outcome != _FAILED for row in rows)


@contextmanager
def _alone_in(tune_dir: Path) -> Iterator[None]:
    """Makes the folder and holds it; the kernel lets go of it however the process ends.

    Raises:
        UserError: it cannot be written, or another search holds it.
    """
    try:
        tune_dir.mkdir(parents=True, exist_ok=True)
        file = (tune_dir / "lock").open("w")
    except OSError as error:
        raise UserError(f"--tune_dir={tune_dir}: {error.strerror}; pass another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--tune_dir={tune_dir}: another search is at work there; wait, or join it with the "
                "same --storage and --study and another --tune_dir"
            ) from None
        yield


def _owner(tune_dir: Path) -> str:
    """The folder's own name among all folders of all machines, whatever path or host it is seen by."""
    path = tune_dir / "owner"
    if not path.exists():
        write_text(path, f"{uuid.uuid4()}\n")
    return path.read_text(encoding="utf-8").strip()
