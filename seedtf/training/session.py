"""``Session``: runs the ``fit`` calls of a training, from the start or from a saved state."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from seedtf.compat.keras import KERAS_2, build_metrics, build_optimizer
from seedtf.config.optim_flags import SWA
from seedtf.data.dataset import Dataset
from seedtf.errors import StoppedError, WorkerLostError
from seedtf.model.network import set_body_trainable
from seedtf.runs.paths import RunPaths
from seedtf.training import callbacks as cb
from seedtf.training import state as states
from seedtf.training.batches import TrainBatches
from seedtf.training.callback_list import SessionHooks, make_callbacks
from seedtf.training.distributed.devices import Devices, DistributedTrainer
from seedtf.training.distributed.sync import WorkerSync
from seedtf.training.optim.ema import MovingAverage
from seedtf.training.optim.step_rates import StepRates
from seedtf.training.plan import Plan
from seedtf.training.preview import draw_run_preview
from seedtf.training.saver import Saver
from seedtf.training.segments import Segment
from seedtf.training.setup import make_phase_optimizer
from seedtf.training.state import TrainState
from seedtf.training.stop_signal import StopSignal
from seedtf.training.trainer import Trainer

__all__ = ["Session"]


class Session:
    """Trains a built network as planned, from the start or from a state.

    Attributes:
        plan: the settings of the run.
        dataset: the images of the run.
        devices: the devices on which the run trains.
        network: the network to train, with its initial weights.
        trainer: the ``keras.Model`` that wraps ``network`` and is compiled and fitted.
        batches: training and validation batches.
        image_size: the current side of the training images in pixels.
        callbacks: the callbacks of every ``fit``.
        paths: the run folder; a temporary folder for a dry run and on a worker that is not the chief.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        network: keras.Model,
        paths: RunPaths,
        *,
        devices: Devices,
        identity: dict[str, Any],
        state: TrainState | None = None,
    ) -> None:
        """Prepares the trainer, the batches and the callbacks.

        ``identity``, from ``run_identity``, is recorded in every state. ``state`` is the state to
        resume from; None starts at epoch 1. The other arguments are the attributes of the same name.
        """
        self.plan, self.dataset, self.network, self.paths = plan, dataset, network, paths
        self.devices, self._identity, self._state = devices, identity, state
        self._first_position = (state.epoch, state.step) if state else (0, 0)
        config = plan.config
        self.batches = TrainBatches(plan, dataset, devices.shard)
        self.trainer = devices.make_trainer(network)
        # With `enabled`, XLA compiles the whole step; with `halves`, each replica's step in two halves.
        if plan.settings.num_gpus and plan.settings.compilation.enabled:
            self.trainer.pad_validation_to = config.batch_size
        if plan.settings.compilation.halves and isinstance(self.trainer, DistributedTrainer):
            self.trainer.jit_halves = True
        self.trainer.lazy_metrics = plan.settings.num_gpus > 0
        self.trainer.steps_per_call = plan.steps_per_execution
        if plan.settings.lr_per_step and devices.strategy is None and not KERAS_2:
            self.trainer.rates = StepRates(plan.steps_per_epoch)
        if config.ema_horizon:
            steps = config.epochs * plan.steps_per_epoch
            self.trainer.average = MovingAverage(network, config.ema_horizon, steps)
        self._compiled_phase: int | None = None
        self.image_size = config.image_size
        self._stop = StopSignal()
        self._resume_dir = str(paths.root) if devices.chief else "<the chief's run folder>"
        self._saver = Saver(
            states.StateFolder(paths.state, state),
            averaged=config.optimizer == SWA or config.ema_horizon > 0,
        )
        self.callbacks = make_callbacks(
            plan,
            paths,
            _make_hooks(self, self._saver, self._save_state),
            strength_variable=self.batches.strength,
            state=state,
            chief=devices.chief,
            average=self.trainer.average,
            stop=self._stop,
            sync=WorkerSync(devices.cluster, self._stop) if devices.cluster else None,
            resume_dir=self._resume_dir,
        )

    def train(self) -> str:
        """Runs all remaining ``fit`` calls; returns why training ended early, or an empty string.

        Raises:
            DivergedError: the loss or a value of a state is not finite.
            StoppedError: a signal arrived; the state is saved.
            WorkerLostError: another worker has died.
            UserError, OSError: a file cannot be written, for example because the disk is full or the
                run folder has been removed.
        """
        with _record_signals_and_finish(self, self._saver, self._stop, self._resume_dir):
            if self._state is not None:
                states.restore_weights(self.network, self._state)
                states.restore_average(self.trainer, self._state)
            for segment in self.plan.segments(*self._first_position):
                if not self.callbacks.stop_reason:
                    self._fit(segment)
        return self.callbacks.stop_reason

    def compile_phase(self, phase_start: int) -> None:
        """Compiles the trainer with a new optimizer for the phase that starts at this epoch."""
        with self.devices.scope():
            settings = self.plan.settings
            optimizer = make_phase_optimizer(self.plan, self.network, phase_start=phase_start)
            self.trainer.compile_for(optimizer, jit_compile=settings.compilation.enabled)
            # The variables of optimizer and metrics are created here and not in the first step, for
            # three reasons. A function that creates variables is traced twice. A function that XLA
            # compiles, or a loop inside a graph, cannot create variables. And a function that is not
            # compiled would check in each step whether the variables exist, which waits for the GPU.
            if not KERAS_2:
                build_optimizer(optimizer, self.trainer.trainable_variables)
                if self.devices.strategy is None:  # DistributedTrainer itself builds its metrics
                    build_metrics(self.trainer)
        self._compiled_phase = phase_start

    def set_image_size(self, size: int) -> None:
        """Makes the train step train on images of ``size``² pixels; the step is traced again."""
        self.image_size = size
        self.trainer.prepare = self.batches.make_prepare(size)
        # Without force=True the old function would be kept. Then training would go on with the old
        # size, or TensorFlow would trace the function again for images of unknown size.
        self.trainer.make_train_function(force=True)

    def train_batches(self, start_step: int) -> Any:
        """The training batches for ``fit`` from ``start_step`` on, which is counted over all epochs."""
        # A strategy prefetches in a thread of its own, so the time that training waits is not measured.
        if self.devices.strategy is not None:
            return self.devices.distribute(lambda: self.batches.train(self.image_size, start_step))
        return self.batches.measure_wait(self.batches.train(self.image_size, start_step))

    def val_batches(self) -> Any:
        """The validation batches for ``fit``."""
        return self.devices.distribute(self.batches.validation)

    def _fit(self, segment: Segment) -> None:
        if segment.phase_start != self._compiled_phase:
            self._start_phase(segment)
        elif segment.image_size != self.image_size:
            self.set_image_size(segment.image_size)
        # Set the strength before `fit`, because the pipeline starts to prefetch batches before the
        # callbacks are called.
        self.callbacks.strength.set(segment.first_epoch)
        steps = self.batches.steps_per_epoch
        steps_left = steps - segment.start_step
        self.trainer.fit(
            self.train_batches(segment.first_epoch * steps + segment.start_step),
            validation_data=self.val_batches(),
            validation_steps=self.batches.val_steps,
            steps_per_epoch=math.ceil(steps_left / self.plan.steps_per_execution),
            initial_epoch=segment.first_epoch,
            epochs=segment.end_epoch,
            callbacks=[
                *_callbacks_that_restore(self, segment, self._state),
                *self.callbacks.for_fit(steps_left),
            ],
            shuffle=False,  # Keras cannot shuffle a dataset, and would warn
            verbose=0,
        )

    def _start_phase(self, segment: Segment) -> None:
        """Compiles the trainer for the phase of ``segment``, and restores the optimizer if needed."""
        # Wait for the writer before layers are frozen or unfrozen, because a checkpoint records which
        # layers are trainable.
        self._saver.wait()
        set_body_trainable(self.network, segment.train_body)
        self.compile_phase(segment.phase_start)
        self.set_image_size(segment.image_size)
        if self._state is None:
            return
        if "optimizer" in segment.restore:
            with self.devices.scope():
                states.restore_optimizer(self.trainer, self._state)
        if "metrics" not in segment.restore:
            # Free the arrays of the state, which are as large as the model and its optimizer.
            self._state.arrays.clear()

    def _save_state(self, trainer: Any, epoch: int, step: int) -> None:
        facts = {
            "identity": self._identity,
            "history": self.paths.history.read_text(encoding="utf-8"),
            "replicas": self.devices.replicas,
        }
        if self.devices.chief:
            self._saver.save_state(trainer, epoch=epoch, step=step, facts=facts)
        else:  # reading the metric sums is a collective operation, so every worker must do it
            states.capture_state(trainer, epoch=epoch, step=step, facts=facts)


def _make_hooks(session: Session, saver: Saver, save_state: Callable[..., None]) -> SessionHooks:
    """Returns the functions of a session that its callbacks call."""
    plan, dataset, batches = session.plan, session.dataset, session.batches
    return SessionHooks(
        save_state=save_state,
        save_model=lambda trainer, path: saver.save_checkpoint(trainer.network, path),
        is_writing=lambda: saver.busy,
        skip_state=saver.skip_state,
        batch_files=batches.files,
        epoch_batches=lambda epoch: batches.epoch(session.image_size, epoch),
        take_data_wait=batches.take_data_wait,
        draw_preview=lambda: draw_run_preview(plan.config, dataset, session.paths.augmented),
    )


def _callbacks_that_restore(
    session: Session, segment: Segment, state: TrainState | None
) -> list[keras.callbacks.Callback]:
    """The callback that restores the metrics, if the segment continues an interrupted epoch."""
    if state is None or "metrics" not in segment.restore:
        return []
    return [_RestoreMetrics(session.trainer, state)]


@contextmanager
def _record_signals_and_finish(
    session: Session, saver: Saver, stop: StopSignal, resume_dir: str
) -> Iterator[None]:
    """Records signals in the ``with`` block; then completes files, live page and tracked run."""
    callbacks, ending = session.callbacks, "failed"
    try:
        with (
            stop.listening(),
            session.devices.report_lost_workers(f" with --resume={resume_dir}"),
        ):
            with contextlib.suppress(cb.LimitReachedError):
                yield
            saver.wait()
            callbacks.preview.wait()
        ending = callbacks.stop_reason or "finished"
    except (KeyboardInterrupt, StoppedError, WorkerLostError):
        saver.wait()
        ending = "interrupted"
        raise
    finally:
        saver.close()
        if session.devices.chief:
            callbacks.finish(ending)


class _RestoreMetrics(keras.callbacks.Callback):
    """Restores the metric sums of an interrupted epoch, after Keras has reset the metrics."""

    def __init__(self, trainer: Trainer, state: TrainState) -> None:
        super().__init__()
        self._state = state
        # Keras would create the variables of the metrics at the first step, after `on_epoch_begin`.
        build_metrics(trainer)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        states.restore_metrics(self.model, self._state)
        self._state.arrays.clear()  # as large as the model and its optimizer
