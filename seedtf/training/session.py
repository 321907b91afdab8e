"""The fits of one run: its callbacks, its phases, and the state it may go on from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.config.train_config import AUTO, TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.data.pipeline import DataWaitTimer, eval_dataset
from seedtf.errors import StoppedError, WorkerLostError
from seedtf.model.network import set_body_trainable
from seedtf.runs.paths import RunPaths
from seedtf.training import state as states
from seedtf.training.batches import TrainBatches, make_order
from seedtf.training.callback_list import SessionHooks, make_callbacks, snapshots_of
from seedtf.training.callbacks import LimitReachedError
from seedtf.training.distributed.devices import Devices
from seedtf.training.distributed.sync import WorkerSync
from seedtf.training.dry_run.forecast import Forecast
from seedtf.training.dry_run.timing import TimedStage, process_age, time_training
from seedtf.training.optim.ema import MovingAverage
from seedtf.training.optim.optimizers import AVERAGED, first_averaged
from seedtf.training.plan import Plan
from seedtf.training.saver import Saver
from seedtf.training.setup import planned_optimizer
from seedtf.training.sizes import Stage
from seedtf.training.stop_signal import StopSignal
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
        judged: the number of validation images.
        timer: the clock of the epochs.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        plan: Plan,
        model: keras.Model,
        run_dir: Path,
        *,
        devices: Devices,
        identity: dict[str, Any],
        state: states.TrainState | None,
        draw_preview: Callable[[], None],
    ) -> None:
        """Puts the callbacks together.

        Args:
            config: what the user asked for.
            intake: the data.
            plan: what it came to.
            model: a network whose first weights are loaded.
            run_dir: an existing run folder with ``checkpoints`` and ``state`` in it; any folder on a
                worker that is not the chief.
            devices: what to train on; the network was built in its scope.
            identity: what a resumed run must agree with, kept in every state.
            state: where to go on; None for the start.
            draw_preview: draws the images of the augmentation, beside training; the chief's work.
        """
        self._config, self._intake, self._plan = config, dataset, plan
        self._network, self._run_dir = model, run_dir
        self._devices = devices
        self._identity, self._state = identity, state
        self._order = make_order(config, dataset)
        self._feed = TrainBatches(config, dataset, plan)
        self._trainer = devices.make_trainer(model)
        if config.ema_horizon:
            steps = config.epochs * plan.steps_per_epoch
            self._trainer.average = MovingAverage(model, config.ema_horizon, steps)
        self._stage: Stage | None = None
        self._stop = StopSignal()
        self._place = str(run_dir) if devices.chief else "<the chief's run folder>"
        self._saver = Saver(
            states.StateFolder(RunPaths(run_dir).state, state),
            averaged=config.optimizer == AVERAGED or config.ema_horizon > 0,
        )
        self._wait = DataWaitTimer()
        self.num_val_images = len(dataset.split.val)
        self._callbacks = make_callbacks(
            config,
            plan,
            RunPaths(run_dir),
            SessionHooks(
                save_state=self._save,
                save_model=self._save_network,
                batch_files=self._batch_files,
                epoch_batches=self._epoch_batches,
                draw_preview=draw_preview,
                data_wait=self._wait.take,
            ),
            strength=self._feed.strength,
            state=state,
            chief=devices.chief,
            average=self._trainer.average,
            stop=self._stop,
            sync=WorkerSync(devices.cluster, self._stop) if devices.cluster else None,
            resume_dir=self._place,
        )
        self.timer, self.log = self._callbacks.timer, self._callbacks.log

    @property
    def _restarts(self) -> bool:
        """Whether every epoch begins with new batches, for those made ahead had the old strength."""
        return self._config.augment_strength == AUTO and self._feed.works_ahead

    def forecast(self) -> Forecast:
        """Times a few steps of every stage; the training is spoilt by it, and no file is written.

        Epochs that train the head alone count as whole ones.
        """
        store = self._intake.store
        self._compile(0)
        return time_training(
            self._trainer,
            [self._timed(stage) for stage in self._plan.stages],
            steps_per_epoch=self._plan.steps_per_epoch,
            val_steps=self._val_steps,
            startup=process_age(),
            snapshots=len(snapshots_of(self._config, self._plan)),
            cache=len(store.catalog) * store.size**2 * 3 if store.mode == "disk" else 0,
        )

    def _timed(self, stage: Stage) -> TimedStage:
        return TimedStage(
            stage.size,
            stage.last - stage.first,
            train=lambda: self._devices.distribute(lambda: self._step_batches(0)),
            val=lambda: self._devices.distribute(self._val_batches),
            enter=lambda: self._enter(stage),
            restarts=self._restarts,
        )

    def train(self) -> str:
        """Runs every phase that is left; returns why training ended early, else an empty string.

        Raises:
            DivergedError: the loss is no longer a number.
            StoppedError: a signal came; the state is saved.
            WorkerLostError: another worker is gone.
            UserError: the disk is full or the run folder is gone.
        """
        ending = "failed"
        try:
            with self._stop.listening(), self._devices.watching(f" with --resume={self._place}"):
                with contextlib.suppress(LimitReachedError):
                    self._phases()
                self._saver.wait()
                self._callbacks.preview.wait()
            ending = self._callbacks.stop_reason or "finished"
        except (KeyboardInterrupt, StoppedError, WorkerLostError):
            self._saver.wait()
            ending = "interrupted"
            raise
        finally:
            self._saver.close()
            if self._devices.chief:
                self._callbacks.curves.finish(ending)
        return self._callbacks.stop_reason

    def _phases(self) -> None:
        """The head alone for ``freeze_epochs``, then everything."""
        if self._state is not None:
            states.restore_weights(self._network, self._state)
            states.restore_average(self._trainer, self._state)
        frozen, epochs = self._config.freeze_epochs, self._config.epochs
        for first, last, whole in ((0, frozen, False), (frozen, epochs, True)):
            done = self._state.epoch if self._state else 0
            if first < last and done < last and not self._callbacks.stop_reason:
                self._saver.wait()  # a checkpoint also says which layers are trainable
                set_body_trainable(self._network, whole)
                self._phase(first, last)

    def _phase(self, first: int, last: int) -> None:
        self._compile(first)
        state, segment = self._state, _Segment(first, last, 0)
        if state is not None and (state.epoch, state.step) > (first, 0):
            # a state from inside this phase; one from its very start has another phase's optimizer
            with self._devices.scope():
                states.restore_optimizer(self._trainer, state)
            segment = _Segment(state.epoch, last, state.step)
        if segment.step:
            self._build_metrics()
            self._fit(_Segment(segment.first, segment.first + 1, segment.step), state)
            segment = _Segment(segment.first + 1, last, 0)
        if state is not None:
            state.arrays.clear()  # they have served, and are as large as the model and optimizer
        for part in self._parts(segment):
            if not self._callbacks.stop_reason:
                self._fit(part, None)

    def _compile(self, first: int) -> None:
        with self._devices.scope():
            self._trainer.compile_for(
                self._optimizer(first), jit_compile=self._plan.compilation.enabled
            )
        self._stage = None  # compiled anew, it has to be traced anew

    def _parts(self, segment: _Segment) -> Iterator[_Segment]:
        """Cut where the size of the images changes, and where batches have to be made anew."""
        for stage in self._plan.stages:
            first, last = max(segment.first, stage.first), min(segment.last, stage.last)
            length = 1 if self._restarts else max(last - first, 1)
            for begin in range(first, last, length):
                yield _Segment(begin, begin + length, 0)

    def _enter(self, stage: Stage) -> None:
        """Feeds images of this stage's size from now on."""
        if stage == self._stage:
            return
        self._stage = stage
        self._trainer.prepare = self._feed.prepare(stage.size)
        # traced anew, for Keras would trace this step for images of any size
        self._trainer.make_train_function(force=True)

    def _optimizer(self, first: int) -> keras.optimizers.Optimizer:
        """A new optimizer for the phase that begins with epoch ``first``."""
        begun = max(first_averaged(self._config.epochs) - first, 0)
        return planned_optimizer(
            self._config, self._plan, self._network, self._plan.lr, averaged_from=begun
        )

    def _fit(self, segment: _Segment, state: states.TrainState | None) -> None:
        self._enter(next(s for s in self._plan.stages if s.first <= segment.first < s.last))
        self._callbacks.strength.set(segment.first)  # batches are made before the epoch begins
        steps = self._order.steps_per_epoch
        start_step = segment.first * steps + segment.step
        resuming = [_RestoreMetrics(state)] if state is not None else []
        self._trainer.fit(
            self._devices.distribute(lambda: self._clocked(self._step_batches(start_step))),
            validation_data=self._devices.distribute(self._val_batches),
            validation_steps=self._val_steps,
            steps_per_epoch=steps - segment.step,
            initial_epoch=segment.first,
            epochs=segment.last,
            callbacks=[*resuming, *self._callbacks.fit],
            shuffle=False,  # the order is ours; Keras warns otherwise
            verbose=0,
        )

    def _step_batches(self, start_step: int) -> tf.data.Dataset:
        """What the train step is fed: whole batches, or what it needs to make them."""
        return self._feed.batches(self._size, self._order, start_step, self._devices.shard)

    def _train_batches(self, start_step: int) -> tf.data.Dataset:
        """Made on the host, whatever feeds the step."""
        return self._feed.made_on_host(self._size, self._order, start_step, self._devices.shard)

    @property
    def _size(self) -> int:
        return self._config.image_size if self._stage is None else self._stage.size

    def _val_batches(self) -> tf.data.Dataset:
        dataset, size = self._intake, self._config.batch_size
        return eval_dataset(dataset.store, dataset.split.val, size, self._devices.shard)

    @property
    def _val_steps(self) -> int:
        return self._devices.shard.steps(len(self._intake.split.val), self._config.batch_size)

    def _clocked(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """With the time spent waiting for data measured, where that can be done.

        In deterministic mode TensorFlow refuses to read its clock; a strategy fetches ahead, so that
        its own thread, not training, does the waiting.
        """
        measurable = not self._config.deterministic and self._devices.strategy is None
        return self._wait.attach(batches) if measurable else batches

    def _epoch_batches(self, epoch: int) -> tf.data.Dataset:
        """What an epoch trains on, once more."""
        steps = self._order.steps_per_epoch
        return self._train_batches(epoch * steps).take(steps)

    def _build_metrics(self) -> None:
        """Makes Keras create the metrics' variables, so that there is something to put sums back to."""
        size = self._config.image_size
        image, label = np.zeros((1, size, size, 3), np.float32), np.zeros(1, np.int32)
        self._trainer.test_on_batch(image, label)

    def _save(self, model: Trainer, epoch: int, step: int) -> None:
        history = RunPaths(self._run_dir).history.read_text(encoding="utf-8")
        replicas = self._devices.replicas
        facts = {"identity": self._identity, "history": history, "replicas": replicas}
        if self._devices.chief:
            self._saver.state(model, epoch=epoch, step=step, facts=facts)
        else:  # the chief cannot read the sums of the metrics without all others
            states.capture_state(model, epoch=epoch, step=step, facts=facts)

    def _save_network(self, trainer: Trainer, path: Path) -> None:
        self._saver.checkpoint(trainer.network, path)

    def _batch_files(self, epoch: int, step: int) -> list[str]:
        """The images of a batch: a function of (seed, step), so they need not be kept."""
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
