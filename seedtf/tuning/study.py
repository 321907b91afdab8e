"""Draws the values of trials with Optuna, and records values and results in Optuna's database."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seedtf.compat.optuna import reopen_trial
from seedtf.config.optim_flags import DEFAULT_BATCH_SIZE
from seedtf.config.recipes import BEFORE_FLAG
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.saved_config import RESUME_MAY_CHANGE
from seedtf.tuning.space import Dimension, first_values
from seedtf.tuning.trial import DONE, FAILED, PRUNED, History, TrialRow, lowest_loss_row

__all__ = ["Study"]

# Importances are computed from at least this many completed trials, because they compare the best
# trials with all trials.
_MIN_TRIALS_FOR_IMPORTANCE = 4


class Study:
    """An Optuna study of the validation loss, whose trials are ``seedtf train`` runs.

    Args:
        optuna: the module ``optuna``.
        study: an ``optuna.study.Study``.
        space: the searched flags.
        epochs: the number of epochs of a trial that is not pruned.
    """

    def __init__(self, optuna: Any, study: Any, space: Sequence[Dimension], epochs: int) -> None:
        self._optuna, self._study = optuna, study
        self._states = optuna.trial.TrialState
        self._space = space
        self._epochs = epochs

    def start_or_continue(self, config: TrainConfig) -> None:
        """Starts a new study, or checks that an existing study has the same flags and ranges.

        A new study records its flags and ranges. Its first trial gets the possible values that are
        nearest to ``config``. A study whose trials have all failed counts as new. Flags that do not
        change the results may differ from the recorded flags; for example, the folder of the images may
        have another path on another machine.

        Raises:
            UserError: the study was started with other flags or ranges.
        """
        names = {dimension.name for dimension in self._space}
        flags = {
            name: value
            for name, value in config.as_dict().items()
            if name not in RESUME_MAY_CHANGE and name not in names
        }
        if "batch_size" in flags:
            flags["batch_size"] = config.batch_size or DEFAULT_BATCH_SIZE
        ranges = {dimension.name: str(dimension) for dimension in self._space}
        states = {trial.state.name for trial in self._study.get_trials(deepcopy=False)}
        if states & {"RUNNING", "COMPLETE", "PRUNED"}:
            self._check_equal(json.loads(json.dumps(flags)), ranges)
            return
        self._study.set_user_attr("flags", flags)
        self._study.set_user_attr("ranges", ranges)
        if "WAITING" not in states:
            self._study.enqueue_trial(first_values(self._space, config))

    def interrupted_trials(self, owner: str, *, shared: bool) -> Iterator[Any]:
        """Yields the trials of ``owner`` that were interrupted.

        Args:
            owner: the identifier of a search folder. The caller has locked the folder, so no trial of
                this folder is running.
            shared: whether other search folders may use the same database. If False, every trial in
                the database belongs to this folder, including a trial that was interrupted before it
                recorded its owner.
        """
        for frozen in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            if not shared or frozen.user_attrs.get("owner", "") == owner:
                yield reopen_trial(self._study, frozen)

    def ask(self) -> Any:
        """Starts a new ``optuna.trial.Trial``."""
        return self._study.ask()

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The values of the searched flags for a trial; every call for it returns the same values."""
        return {
            dimension.name: dimension.round_for_flag(_suggest(trial, dimension))
            for dimension in self._space
        }

    def report(self, trial: Any, history: History) -> bool:
        """Reports the losses of new epochs to Optuna, and returns whether to prune the trial."""
        reported = self._reported_epochs(trial)
        for row in history:
            if row["epoch"] in reported:
                continue
            trial.report(row["val_loss"], int(row["epoch"]))
            if self.should_prune(trial):
                return True
        return False

    def should_prune(self, trial: Any) -> bool:
        """Whether to prune a trial now; False after the last epoch, when pruning saves no time."""
        reported = self._reported_epochs(trial)
        return bool(reported) and max(reported) < self._epochs and trial.should_prune()

    def tell(self, trial: Any, outcome: str, history: History) -> None:
        """Records how a trial ended.

        For a trial that is ``done``, the lowest validation loss is the value that Optuna minimizes.
        """
        row = lowest_loss_row(history)
        if outcome == PRUNED:
            last_reported = max(self._reported_epochs(trial))
            row = next((row for row in history if row["epoch"] == last_reported), None)
        epochs = int(row["epoch"]) if outcome == PRUNED and row else len(history)
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("epochs", epochs)
        if row is not None and math.isfinite(row["val_loss"]):
            trial.set_user_attr("val_loss", row["val_loss"])
            trial.set_user_attr("val_accuracy", row["val_accuracy"])
        if outcome == DONE and row is not None:
            self._study.tell(trial, row["val_loss"])
        elif outcome == FAILED:
            self._study.tell(trial, state=self._states.FAIL)
        else:
            # A diverged trial is also recorded as pruned, so that Optuna's sampler avoids its values.
            self._study.tell(trial, state=self._states.PRUNED)

    def rows(self) -> list[TrialRow]:
        """All trials that have ended, in the order of their numbers."""
        states = (self._states.COMPLETE, self._states.PRUNED, self._states.FAIL)
        return [self._row(trial) for trial in self._study.get_trials(deepcopy=False, states=states)]

    def importances(self) -> dict[str, float]:
        """The importance of each flag, from 0 to 1. All importances together sum to 1.

        A flag is important if its values in the best trials differ from its values in all completed
        trials (PED-ANOVA: Watanabe, Bansal, Hutter 2023). The best trials are the best tenth of the
        completed trials, at least two. With fewer than four completed trials, the result is empty.
        """
        states = (self._states.COMPLETE,)
        if len(self._study.get_trials(deepcopy=False, states=states)) < _MIN_TRIALS_FOR_IMPORTANCE:
            return {}
        importance = self._optuna.importance
        evaluator = importance.PedAnovaImportanceEvaluator()
        names = [dimension.name for dimension in self._space]
        return dict(
            importance.get_param_importances(self._study, evaluator=evaluator, params=names)
        )

    def _reported_epochs(self, trial: Any) -> set[int]:
        trials = self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
        frozen = next((other for other in trials if other.number == trial.number), None)
        return set(frozen.intermediate_values) if frozen else set()

    def _row(self, frozen: Any) -> TrialRow:
        attributes = frozen.user_attrs
        return TrialRow(
            number=frozen.number,
            outcome=attributes.get("outcome", FAILED),
            val_loss=attributes.get("val_loss", math.nan),
            val_accuracy=attributes.get("val_accuracy", math.nan),
            epochs=attributes.get("epochs", 0),
            seconds=attributes.get("seconds", 0.0),
            values={
                dimension.name: dimension.round_for_flag(frozen.params[dimension.name])
                for dimension in self._space
                if dimension.name in frozen.params
            },
        )

    def _check_equal(self, flags: Mapping[str, Any], ranges: Mapping[str, str]) -> None:
        """Raises UserError if the flags or ranges differ from those that the study has recorded."""
        study_name = repr(self._study.study_name)
        saved_flags = BEFORE_FLAG | self._study.user_attrs.get("flags", {})
        saved_ranges = self._study.user_attrs.get("ranges", {})
        remedy = "use the same value, or start another search with --study and --out"
        for name, value in flags.items():
            if name in saved_flags and saved_flags[name] != value:
                raise UserError(
                    f"--{name}={value}: the study {study_name} has {saved_flags[name]!r}; {remedy}"
                )
        if saved_ranges != ranges:
            raise UserError(
                f"--search={','.join(ranges)}: the study {study_name} searches "
                f"{', '.join(saved_ranges.values())}; {remedy}"
            )


def _suggest(trial: Any, dimension: Dimension) -> Any:
    if dimension.choices:
        return trial.suggest_categorical(dimension.name, dimension.choices)
    return trial.suggest_float(
        dimension.name,
        dimension.low,
        dimension.high,
        step=dimension.step or None,
        log=not dimension.step,
    )
