"""The fits of one run: its callbacks, its phases, and the state it may go on from."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from seedtf.data.intake import Intake
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import WaitClock, eval_dataset, make_augmentation, train_dataset
from seedtf.errors import DivergedError, StoppedError
from seedtf.files import write_text
from seedtf.model.network import save_model, set_body_trainable
from seedtf.training import callbacks as cb
from seedtf.training import state as states
from seedtf.training.config import TrainConfig
from seedtf.training.plan import Plan
from seedtf.training.trainer import Trainer

__all__ = ["Session"]


@dataclass(frozen=True)
class _Segment:
    """One call of ``fit``: epochs ``[first, last)``, the first from ``step`` on."""

    first: int
    last: int
    step: int


class Session:
    """Trains a built network as planned, from the start or from a state.

    Attributes:
        log: the history so far.
        timer: the clock of the epochs.
    """

    def __init__(
        self,
        config: TrainConfig,
        intake: Intake,
        plan: Plan,
        model: keras.Model,
        run_dir: Path,
        *,
        identity: dict[str, Any],
        state: states.TrainState | None,
    ) -> None:
        """Puts the callbacks together.

        Args:
            config: what the user asked for.
            intake: the data.
            plan: what it came to.
            model: a network whose first weights are loaded.
            run_dir: an existing run folder with ``checkpoints`` and ``state`` in it.
            identity: what a resumed run must agree with, kept in every state.
            state: where to go on; None for the start.
        """
        self._config, self._intake, self._plan = config, intake, plan
        self._network, self._run_dir = model, run_dir
        self._trainer = Trainer(model)
        self._identity, self._state = identity, state
        self._order = BatchIndices(len(intake.split.train), config.batch_size, seed=config.seed)
        self._augmentation = make_augmentation(
            plan.policy, config.seed, config.image_size, config.augment_impl
        )
        self._stop = cb.StopSignal()
        self._writer = states.StateWriter(run_dir / "state", state)
        self._wait = WaitClock()
        self.timer = cb.EpochTimer(config.batch_size, data_wait=self._wait.take)
        self.log = self._open_log()
        self._make_callbacks()

    def _open_log(self) -> cb.HistoryLog:
        history = self._run_dir / "history.csv"
        if self._state is not None:
            write_text(history, self._state.facts["history"])
        done = self._state.epoch if self._state else 0
        timing = self._run_dir / "timing.csv"
        return cb.HistoryLog(history, timing, self.timer, completed_epochs=done)

    def _make_callbacks(self) -> None:
        config, run_dir, steps = self._config, self._run_dir, self._plan.steps_per_epoch
        best = cb.best_epoch(self.log.rows) or 0
        low = self.log.rows[best - 1]["val_loss"] if best else math.inf
        checkpoints = run_dir / "checkpoints"
        rate = cb.LearningRate(
            self._plan.schedule, per_step=self._plan.per_step, steps_per_epoch=steps
        )
        finite = cb.StopOnNaN(self._batch_files)
        save = cb.SaveState(
            self._save,
            self._stop,
            self._stopped,
            minutes=config.save_minutes,
            run_dir=str(run_dir),
        )
        self._curves = cb.LiveCurves(
            run_dir,
            self.log,
            title=run_dir.name,
            planned_lr=rate.planned(config.epochs),
            show=config.show,
        )
        self._limits: list[cb.Patience | cb.TimeLimit] = []
        if config.patience:
            self._limits.append(
                cb.Patience(
                    config.patience, best=low, best_epoch=best, completed_epochs=len(self.log.rows)
                )
            )
        if config.time_limit:
            self._limits.append(cb.TimeLimit(config.time_limit))
        line = cb.ConsoleLine(self.log, epochs=config.epochs, steps_per_epoch=steps)
        self._counting = (rate, finite, line, save)  # these count steps through a resumed epoch
        self._callbacks = [
            self.timer,
            rate,
            finite,
            self.log,
            line,
            cb.BestCheckpoint(checkpoints / "best.keras", _save_network, best=low, best_epoch=best),
            cb.LastCheckpoint(checkpoints / "last.keras", _save_network),
            *([cb.tensorboard_callback(run_dir / "tensorboard")] if config.tensorboard else []),
            self._curves,
            *self._limits,
            save,  # last: its state says that all of the above is done
        ]

    def train(self) -> str:
        """Runs every phase that is left; returns why training ended early, else an empty string.

        Raises:
            DivergedError: the loss is no longer a number.
            StoppedError: a signal came; the state is saved.
            UserError: the disk is full or the run folder is gone.
        """
        ending = "failed"
        try:
            with self._stop.listening():
                with contextlib.suppress(cb.LimitReachedError):
                    self._phases()
                self._writer.wait()
            ending = self._stopped() or "finished"
        except (KeyboardInterrupt, StoppedError):
            self._writer.wait()
            ending = "interrupted"
            raise
        finally:
            self._writer.close()
            self._curves.finish(ending)
        return self._stopped()

    def _phases(self) -> None:
        """The head alone for ``freeze_epochs``, then everything."""
        if self._state is not None:
            states.restore_weights(self._network, self._state)
        frozen, epochs = self._config.freeze_epochs, self._config.epochs
        for first, last, whole in ((0, frozen, False), (frozen, epochs, True)):
            done = self._state.epoch if self._state else 0
            if first < last and done < last and not self._stopped():
                set_body_trainable(self._network, whole)
                self._phase(first, last)

    def _phase(self, first: int, last: int) -> None:
        self._trainer.compile(
            optimizer=_optimizer(self._config.optimizer, self._plan.lr),
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=self._plan.compilation.enabled,
        )
        state, segment = self._state, _Segment(first, last, 0)
        if state is not None and (state.epoch, state.step) > (first, 0):
            # a state from inside this phase; one from its very start has another phase's optimizer
            states.restore_optimizer(self._trainer, state)
            segment = _Segment(state.epoch, last, state.step)
        if segment.step:
            self._build_metrics()
            self._fit(_Segment(segment.first, segment.first + 1, segment.step), state)
            segment = _Segment(segment.first + 1, last, 0)
        if state is not None:
            state.arrays.clear()  # they have served, and are as large as the model and optimizer
        if segment.first < last and not self._stopped():
            self._fit(segment, None)

    def _fit(self, segment: _Segment, state: states.TrainState | None) -> None:
        store, split, config = self._intake.store, self._intake.split, self._config
        steps = self._order.steps_per_epoch
        start_step = segment.first * steps + segment.step
        batches = train_dataset(
            store, split.train, self._order, self._augmentation, start_step=start_step
        )
        for callback in self._counting:
            callback.first_step = segment.step
        resuming = [_RestoreMetrics(state)] if state is not None else []
        if not config.deterministic:  # TensorFlow then refuses to read its clock
            batches = self._wait.attach(batches)
        self._trainer.fit(
            batches,
            validation_data=eval_dataset(store, split.val, config.batch_size),
            steps_per_epoch=steps - segment.step,
            initial_epoch=segment.first,
            epochs=segment.last,
            callbacks=[*resuming, *self._callbacks],
            shuffle=False,  # the order is ours; Keras warns otherwise
            verbose=0,
        )

    def _build_metrics(self) -> None:
        """Makes Keras create the metrics' variables, so that there is something to put sums back to."""
        size = self._config.image_size
        picture, label = np.zeros((1, size, size, 3), np.float32), np.zeros(1, np.int32)
        self._trainer.test_on_batch(picture, label)

    def _stopped(self) -> str:
        return next((limit.reason for limit in self._limits if limit.reason), "")

    def _save(self, model: Trainer, epoch: int, step: int) -> None:
        history = (self._run_dir / "history.csv").read_text(encoding="utf-8")
        facts = {"identity": self._identity, "history": history}
        state = states.capture_state(model, epoch=epoch, step=step, facts=facts)
        arrays = [array for group in state.arrays.values() for array in group]
        if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
            raise DivergedError(
                f"epoch {epoch + 1}, step {step}: a weight is no longer a number; the last good "
                "state is kept: lower --lr, or train with --precision=float32"
            )
        self._writer.save(state)

    def _batch_files(self, epoch: int, step: int) -> list[str]:
        """The pictures of a batch: a function of (seed, step), so they need not be kept."""
        size = self._order.batch_size
        positions = self._order.epoch_order(epoch).numpy()[step * size : (step + 1) * size]
        paths = self._intake.store.catalog.paths
        return [paths[record] for record in self._intake.split.train[positions]]


class _RestoreMetrics(keras.callbacks.Callback):
    """Puts back the sums of an epoch under way; Keras has just set them to zero."""

    def __init__(self, state: states.TrainState) -> None:
        super().__init__()
        self._state = state

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        states.restore_metrics(self.model, self._state)


def _save_network(trainer: Trainer, path: Path) -> None:
    save_model(trainer.network, path)


def _optimizer(name: str, lr: float) -> keras.optimizers.Optimizer:
    if name == "sgd":
        return keras.optimizers.SGD(lr, momentum=0.9, nesterov=True)
    kinds = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
    }
    return kinds[name](lr)
