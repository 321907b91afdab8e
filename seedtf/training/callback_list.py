"""Builds the list of Keras callbacks of one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from seedtf.config.optim_flags import SWA
from seedtf.files import write_text
from seedtf.runs.paths import RunPaths
from seedtf.training import callbacks as cb
from seedtf.training.distributed.sync import WorkerSync
from seedtf.training.optim.ema import MovingAverage
from seedtf.training.plan import Plan
from seedtf.training.state import TrainState
from seedtf.training.stop_signal import StopSignal

__all__ = ["RunCallbacks", "SessionHooks", "make_callbacks", "planned_snapshot_epochs"]

# Enough that a GPU has a call queued while the host prepares the next one.
_CALLS_AHEAD = 2


@dataclass(frozen=True)
class SessionHooks:
    """The functions of a session that its callbacks call.

    Attributes:
        save_state: saves the state; called with (model, completed epochs, completed steps of the next
            epoch).
        save_model: called with (model, path); copies the weights, which are written to ``path`` with
            the next state.
        writing: returns whether files are being written.
        postpone: called at the end of an epoch whose state is not saved.
        batch_files: returns the names of the images in a batch, given epoch and step from 0.
        epoch_batches: returns the training batches of an epoch, counted from 0.
        draw_preview: draws the sample of augmented images.
        data_wait: returns the seconds that training has waited for data since the last call.
    """

    save_state: Callable[[Any, int, int], None]
    save_model: Callable[[Any, Path], None]
    writing: Callable[[], bool]
    postpone: Callable[[], None]
    batch_files: Callable[[int, int], Sequence[str]]
    epoch_batches: Callable[[int], Iterable[tuple[Any, Any]]]
    draw_preview: Callable[[], None]
    data_wait: Callable[[], float]


@dataclass(frozen=True)
class RunCallbacks:
    """The callbacks of a run, and those of them that the session uses by name.

    Attributes:
        each_step: all of them, in order; they see every step.
        per_call: the number of steps that one batch of ``fit`` runs.
        ahead: calls of the train function that may be queued on a GPU; 0 without one.
        timer: duration and throughput of epochs.
        log: the history so far.
        strength: the factor by which every augmentation range of an epoch is multiplied.
        limits: what can end the run early.
        console: the line of each epoch.
        curves: curves.png and live.html.
        preview: draws the sample of augmented images in the background.
        track: tells the trackers of ``--track``; None without them, and on another worker than the
            chief.
    """

    each_step: list[keras.callbacks.Callback]
    per_call: int
    ahead: int
    timer: cb.EpochTimer
    log: cb.HistoryLog
    strength: cb.AugmentStrength
    limits: Sequence[cb.Patience | cb.TimeLimit]
    console: cb.ConsoleLine
    curves: cb.LiveCurves
    preview: cb.AfterFirstStep
    track: cb.Track | None

    @property
    def stop_reason(self) -> str:
        """Why the run ended early; empty unless a limit was reached."""
        return _stop_reason(self.limits)

    def for_fit(self, steps: int) -> list[keras.callbacks.Callback]:
        """The callbacks of a ``fit`` whose epochs have so many steps."""
        if self.per_call == 1 and not self.ahead:
            return self.each_step
        return [cb.EachStep(self.each_step, steps=steps, per_call=self.per_call, ahead=self.ahead)]

    def finish(self, ending: str) -> None:
        """Removes the bar of an unfinished epoch, writes the last live page and ends the run in its
        trackers. Call it on the chief only.

        Args:
            ending: how training ended, for the page.
        """
        self.console.close()
        self.curves.finish(ending)
        if self.track is not None:
            self.track.finish(ending)


def make_callbacks(
    plan: Plan,
    paths: RunPaths,
    hooks: SessionHooks,
    *,
    strength_variable: tf.Variable,
    state: TrainState | None,
    chief: bool,
    average: MovingAverage | None,
    stop: StopSignal,
    sync: WorkerSync | None,
    resume_dir: str,
) -> RunCallbacks:
    """Creates the callbacks that the flags ask for, and the files history.csv and timing.csv.

    For a resumed run, both files contain its completed epochs; for a new run, only their header.

    Args:
        plan: what the run will do.
        paths: the run folder; a temporary folder on a worker that is not the chief.
        hooks: functions of the session.
        strength_variable: float32 scalar, the factor by which every augmentation range is multiplied.
        state: the state that the run resumes from, if any.
        chief: whether this process writes the run folder.
        average: the exponential moving average of the weights, if any.
        stop: the signals that this process received.
        sync: what several workers agree on before every step; None for a single process.
        resume_dir: the folder to name in ``--resume=...`` messages.
    """
    config, settings = plan.config, plan.settings
    resumed = (state.epoch, state.step) if state else (0, 0)
    position = cb.Position(*resumed)
    timer = cb.EpochTimer(config.batch_size, data_wait=hooks.data_wait)
    augment_strength = cb.AugmentStrength(config, strength_variable)
    if state is not None:
        write_text(paths.history, state.facts["history"])
    log = cb.HistoryLog(
        paths.history,
        paths.timing,
        timer,
        completed_epochs=resumed[0],
        strength=augment_strength.factor,
    )
    # The log records the factor, and `auto` computes the factor from the rows of the log.
    augment_strength.rows = log.rows
    learning_rate = cb.LearningRate(
        settings.schedule,
        per_step=settings.lr_per_step,
        steps_per_epoch=plan.steps_per_epoch,
        position=position,
    )
    clock = sync.clock if sync else time.monotonic
    limits: list[cb.Patience | cb.TimeLimit] = []
    if config.patience:
        limits.append(cb.Patience(config.patience, log))
    if config.time_limit:
        limits.append(cb.TimeLimit(config.time_limit, position, clock))
    signal = sync or stop
    ends = cb.EpochEnds(
        config.epochs,
        # A GPU may train an epoch faster than it is written. Workers have to save at the same steps.
        busy=hooks.writing if settings.gpus and not sync else lambda: False,
        stopping=lambda: bool(signal.name or _stop_reason(limits)),
    )
    save_state = cb.SaveState(
        hooks.save_state,
        signal,
        lambda: _stop_reason(limits),
        position,
        ends=ends,
        postpone=hooks.postpone,
        minutes=config.save_minutes,
        run_dir=resume_dir,
        clock=clock,
    )
    curves = cb.LiveCurves(
        paths,
        log,
        title=paths.root.name,
        planned_lr=learning_rate.planned(config.epochs),
        show=config.show and chief,
    )
    preview = cb.AfterFirstStep(hooks.draw_preview)
    console = cb.ConsoleLine(
        log, position, epochs=config.epochs, steps_per_epoch=plan.steps_per_epoch
    )
    track = cb.Track(config, paths, log) if config.trackers and chief else None
    chief_only = [
        console,
        cb.BestCheckpoint(paths.best, hooks.save_model, log),
        cb.LastCheckpoint(paths.last, hooks.save_model, ends),
        cb.Snapshots(paths, hooks.save_model, planned_snapshot_epochs(plan)),
        curves,
        preview,
        *([track] if track else []),
    ]
    # The state is written last, so that history and checkpoints of the epoch are on disk before it.
    each_step = [
        position,
        *([sync] if sync else []),  # before those that read its clock
        timer,
        learning_rate,
        augment_strength,
        cb.StopOnNaN(position, learning_rate.rate, hooks.batch_files),
        log,
        *limits,  # before the checkpoints, which are saved if the run ends
        *(chief_only if chief else []),
        # At the end of an epoch these put the trained weights back. So they come after the checkpoints,
        # which hold the averaged weights, and before the state, which holds the trained ones.
        *([cb.AveragedWeights(hooks.epoch_batches, position)] if config.optimizer == SWA else []),
        *([cb.EmaWeights(average)] if average else []),
        save_state,
    ]
    return RunCallbacks(
        each_step=each_step,
        per_call=plan.steps_per_execution,
        ahead=_CALLS_AHEAD if settings.gpus and not settings.keras_2 else 0,
        timer=timer,
        log=log,
        strength=augment_strength,
        limits=limits,
        console=console,
        curves=curves,
        preview=preview,
        track=track,
    )


def planned_snapshot_epochs(plan: Plan) -> list[int]:
    """The epochs, from 1, after which ``--snapshots`` saves the model; empty without that flag."""
    config = plan.config
    if not config.snapshots:
        return []
    return cb.snapshot_epochs(
        config.cycle_epochs, config.epochs, per_step=plan.settings.lr_per_step
    )


def _stop_reason(limits: Iterable[cb.Patience | cb.TimeLimit]) -> str:
    return next((limit.reason for limit in limits if limit.reason), "")
