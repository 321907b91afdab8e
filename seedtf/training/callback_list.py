"""Creates the Keras callbacks of a run, in the order in which they have to be called."""

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

# The largest number of calls of the train function that are queued on a GPU. With two calls, the GPU
# runs one of them while the host prepares the other.
_CALLS_AHEAD = 2


@dataclass(frozen=True)
class SessionHooks:
    """The functions of a session that its callbacks call.

    Attributes:
        save_state: saves the state; called with (model, completed epochs, completed steps of the next
            epoch).
        save_model: called with (model, path); copies the weights. The copies are written to ``path``
            together with the next state.
        is_writing: returns whether files are being written.
        skip_state: called at the end of an epoch whose state is not saved; see ``Saver.skip_state``.
        batch_files: returns the paths of the images in a batch; called with (epoch, step), from 0.
        epoch_batches: returns the training batches of an epoch, counted from 0.
        draw_preview: draws augmented.png, the sample of augmented images.
        take_data_wait: returns the seconds that training has waited for data since the previous call.
    """

    save_state: Callable[[Any, int, int], None]
    save_model: Callable[[Any, Path], None]
    is_writing: Callable[[], bool]
    skip_state: Callable[[], None]
    batch_files: Callable[[int, int], Sequence[str]]
    epoch_batches: Callable[[int], Iterable[tuple[Any, Any]]]
    draw_preview: Callable[[], None]
    take_data_wait: Callable[[], float]


@dataclass(frozen=True)
class RunCallbacks:
    """The callbacks of a run. Those that a session itself uses also have attributes of their own.

    Attributes:
        all_callbacks: all callbacks, in the order in which they are called.
        steps_per_call: the largest number of steps in a call of the train function.
        calls_ahead: the number of calls of the train function that may be queued on a GPU; 0 without a
            GPU and with Keras 2.15.
        timer: measures the duration and the throughput of epochs.
        log: records the history.
        strength: sets the factor on the augmentation ranges at the start of an epoch.
        limits: the callbacks that can end the run early.
        console: prints the line of each epoch.
        curves: draws curves.png and live.html.
        preview: draws the sample of augmented images in the background.
        track: records the run in the trackers of ``--track``; None without the flag and on every worker
            but the chief, which is the worker that writes the run folder.
    """

    all_callbacks: list[keras.callbacks.Callback]
    steps_per_call: int
    calls_ahead: int
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
        """Why the run ended early; empty if no limit was reached."""
        return _stop_reason(self.limits)

    def for_fit(self, steps: int) -> list[keras.callbacks.Callback]:
        """The callbacks to pass to a ``fit`` in which an epoch has ``steps`` steps."""
        if self.steps_per_call == 1 and not self.calls_ahead:
            return self.all_callbacks
        return [
            cb.EachStep(
                self.all_callbacks,
                steps=steps,
                steps_per_call=self.steps_per_call,
                calls_ahead=self.calls_ahead,
            )
        ]

    def finish(self, ending: str) -> None:
        """Removes the progress bar, writes the last live page and ends the run in its trackers.

        Call it on the chief only.

        Args:
            ending: how training ended, for the page and the trackers.
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
        plan: the settings of the run.
        paths: the run folder; a temporary folder on a worker that is not the chief.
        hooks: functions of the session.
        strength_variable: float32 scalar, the factor by which every augmentation range is multiplied.
        state: the state that the run resumes from; None for a new run.
        chief: whether this process writes the run folder.
        average: the exponential moving average of the weights; None without ``--ema_horizon``.
        stop: records the signals that this process receives.
        sync: shares signals and the clock between several workers; None for a single process.
        resume_dir: the run folder as messages show it, after ``--resume=``.
    """
    config, settings = plan.config, plan.settings
    completed_epochs, completed_steps = (state.epoch, state.step) if state else (0, 0)
    position = cb.Position(completed_epochs, completed_steps)
    timer = cb.EpochTimer(config.batch_size, take_data_wait=hooks.take_data_wait)
    augment_strength = cb.AugmentStrength(config, strength_variable)
    if state is not None:
        write_text(paths.history, state.facts["history"])
    log = cb.HistoryLog(
        paths.history,
        paths.timing,
        timer,
        completed_epochs=completed_epochs,
        strength=augment_strength.factor,
    )
    # The two callbacks need each other: the log records the factor of each epoch, and with `auto` the
    # factor is computed from the rows of the log.
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
    received_signal = sync or stop  # both have ``signal_name``
    policy = cb.SavePolicy(
        config.epochs,
        # On a GPU an epoch may take less time than writing its files, so some epochs are not saved.
        # Several workers save every epoch, because all workers have to save after the same epochs.
        busy=hooks.is_writing if settings.num_gpus and not sync else lambda: False,
        stopping=lambda: bool(received_signal.signal_name or _stop_reason(limits)),
    )
    save_state = cb.SaveState(
        hooks.save_state,
        received_signal,
        lambda: _stop_reason(limits),
        position,
        policy=policy,
        skip_state=hooks.skip_state,
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
        cb.LastCheckpoint(paths.last, hooks.save_model, policy),
        cb.Snapshots(paths, hooks.save_model, planned_snapshot_epochs(plan)),
        curves,
        preview,
        *([track] if track else []),
    ]
    # `SaveState` is last, because the history and the checkpoints of an epoch have to be on disk before
    # the state of this epoch.
    all_callbacks = [
        position,
        *([sync] if sync else []),  # before the callbacks that read its clock
        timer,
        learning_rate,
        augment_strength,
        cb.StopOnNaN(position, learning_rate.rate, hooks.batch_files),
        log,
        *limits,  # before the checkpoints, which must be saved if a limit ends the run
        *(chief_only if chief else []),
        # At the end of an epoch, `AveragedWeights` and `EmaWeights` put the trained weights back into
        # the network. So they come after the checkpoints, which hold the averaged weights, and before
        # `SaveState`, which saves the trained weights.
        *([cb.AveragedWeights(hooks.epoch_batches, position)] if config.optimizer == SWA else []),
        *([cb.EmaWeights(average)] if average else []),
        save_state,
    ]
    return RunCallbacks(
        all_callbacks=all_callbacks,
        steps_per_call=plan.steps_per_execution,
        calls_ahead=_CALLS_AHEAD if settings.num_gpus and not settings.keras_2 else 0,
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
