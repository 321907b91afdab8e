"""One training run from a ``TrainConfig``: composes the stages, adds nothing of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from seedtf.data.intake import Intake, open_data
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import WaitClock, eval_dataset, make_augmentation, train_dataset
from seedtf.errors import UserError
from seedtf.intervals import wilson_interval
from seedtf.model.network import build_network, save_model, set_body_trainable
from seedtf.plots import draw_schedule, save_figure
from seedtf.training import callbacks as cb
from seedtf.training.announce import announce
from seedtf.training.config import TrainConfig
from seedtf.training.plan import Plan, cache_folder, data_folder, make_plan
from seedtf.training.preview import draw_preview
from seedtf.training.run_dir import check_run_dir, create_run_dir, write_records

__all__ = ["TrainConfig", "TrainResult", "train_and_evaluate"]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to; also the ``RESULT`` line.

    Attributes:
        run_dir: the run's folder.
        epochs: epochs trained.
        best_epoch: the one with the lowest validation loss, counted from 1; its model is saved.
        val_loss, val_accuracy: of that epoch; accuracy in [0, 1].
        val_accuracy_interval: Wilson's 95 % interval.
        epoch_seconds: median of the epochs with validation and writing, the first left out.
        images_per_second: median training throughput, the first epoch left out.
        stopped: why training ended before its last epoch, else empty.
    """

    run_dir: str
    epochs: int
    best_epoch: int
    val_loss: float
    val_accuracy: float
    val_accuracy_interval: tuple[float, float]
    epoch_seconds: float
    images_per_second: float
    stopped: str

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def train_and_evaluate(config: TrainConfig) -> TrainResult:
    """Trains as ``config`` says and leaves a run folder; prints what it chose and a line an epoch.

    On a CPU the same ``config`` gives the same ``history.csv``.

    Args:
        config: every choice of the run.

    Returns:
        The figures of the best epoch and where everything is.

    Raises:
        UserError: whatever the user can mend, naming the flag or file.
    """
    check_run_dir(config)
    keras.utils.set_random_seed(config.seed)
    intake = _open_data(config)
    plan = make_plan(config, intake)
    keras.mixed_precision.set_global_policy(plan.precision.policy)
    model = build_network(
        model=config.model,
        num_classes=len(intake.store.catalog.class_names),
        image_size=config.image_size,
        weights=config.weights,
        bn_momentum=plan.bn_momentum,
    )
    run_dir = create_run_dir(config)
    announce(config, intake, plan, model, run_dir)
    _write_first_files(run_dir, config, intake, plan)
    return _Run(config, intake, plan, model, run_dir).train()


class _Run:
    """The callbacks of one run, and its one or two calls of ``fit``."""

    def __init__(
        self,
        config: TrainConfig,
        intake: Intake,
        plan: Plan,
        model: keras.Model,
        run_dir: Path,
    ) -> None:
        self.config, self.intake, self.plan = config, intake, plan
        self.model, self.run_dir = model, run_dir
        self.wait = WaitClock()
        self.timer = cb.EpochTimer(config.batch_size, data_wait=self.wait.take)
        self.rate = cb.LearningRate(
            plan.schedule,
            per_step=plan.per_step,
            steps_per_epoch=plan.steps_per_epoch,
        )
        self.log = cb.HistoryLog(run_dir / "history.csv", run_dir / "timing.csv", self.timer)
        self.curves = cb.LiveCurves(
            run_dir,
            self.log,
            title=run_dir.name,
            planned_lr=self.rate.planned(config.epochs),
            show=config.show,
        )
        self.best = cb.BestCheckpoint(run_dir / "checkpoints" / "best.keras", save_model)
        self.last = cb.LastCheckpoint(run_dir / "checkpoints" / "last.keras", save_model)
        self.limits: list[cb.Patience | cb.TimeLimit] = []
        if config.patience:
            self.limits.append(cb.Patience(config.patience))
        if config.time_limit:
            self.limits.append(cb.TimeLimit(config.time_limit))

    def train(self) -> TrainResult:
        """Trains the head, if asked, then everything; the live page says how it ended."""
        state = "failed"
        try:
            frozen = self.config.freeze_epochs
            if frozen:
                set_body_trainable(self.model, False)
                self._fit(0, frozen)
            if not self._stopped():
                set_body_trainable(self.model, True)
                self._fit(frozen, self.config.epochs)
            state = self._stopped() or "finished"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            self.curves.finish(state)
        return self._result()

    def _fit(self, first_epoch: int, last_epoch: int) -> None:
        self.model.compile(
            optimizer=_optimizer(self.config.optimizer, self.plan.lr),
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=self.plan.compilation.enabled,
        )
        store, split, config = self.intake.store, self.intake.split, self.config
        order = BatchIndices(len(split.train), config.batch_size, seed=config.seed)
        augmentation = make_augmentation(
            self.plan.policy, config.seed, config.image_size, config.augment_impl
        )
        start_step = first_epoch * order.steps_per_epoch
        batches = train_dataset(store, split.train, order, augmentation, start_step=start_step)
        self.model.fit(
            self.wait.attach(batches),
            validation_data=eval_dataset(store, split.val, config.batch_size),
            steps_per_epoch=order.steps_per_epoch,
            initial_epoch=first_epoch,
            epochs=last_epoch,
            callbacks=self._callbacks(),
            shuffle=False,  # the order is ours; Keras warns otherwise
            verbose=0,
        )

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        line = cb.ConsoleLine(
            self.log, epochs=self.config.epochs, steps_per_epoch=self.plan.steps_per_epoch
        )
        callbacks = [self.timer, self.rate, cb.StopOnNaN(), self.log, line, self.best, self.last]
        if self.config.tensorboard:
            callbacks.append(cb.tensorboard_callback(self.run_dir / "tensorboard"))
        return [*callbacks, self.curves, *self.limits]

    def _stopped(self) -> str:
        return next((limit.reason for limit in self.limits if limit.reason), "")

    def _result(self) -> TrainResult:
        rows = self.log.rows
        best = cb.best_epoch(rows)
        if best is None:
            raise UserError("no epoch had a finite validation loss; lower --lr")
        row, judged = rows[best - 1], len(self.intake.split.val)
        return TrainResult(
            run_dir=str(self.run_dir),
            epochs=len(rows),
            best_epoch=best,
            val_loss=row["val_loss"],
            val_accuracy=row["val_accuracy"],
            val_accuracy_interval=wilson_interval(round(row["val_accuracy"] * judged), judged),
            epoch_seconds=self.timer.median_seconds,
            images_per_second=self.timer.median_images_per_second,
            stopped=self._stopped(),
        )


def _open_data(config: TrainConfig) -> Intake:
    return open_data(
        data_folder(config),
        image_size=config.image_size,
        labels_csv=config.labels_csv,
        val_dir=config.val_dir,
        split_csv=config.split_csv,
        val_fraction=config.val_fraction,
        seed=config.seed,
        cache=config.cache,
        cache_dir=cache_folder(config),
    )


def _write_first_files(run_dir: Path, config: TrainConfig, intake: Intake, plan: Plan) -> None:
    root = str(intake.store.catalog.root.resolve())
    write_records(run_dir, config, intake, {**plan.resolved(), "data_root": root})
    planned = draw_schedule(plan.schedule, config.epochs, title=run_dir.name)
    save_figure(planned, run_dir / "lr.png")
    preview = draw_preview(
        intake.store, intake.split.train, plan.policy, seed=config.seed, impl=config.augment_impl
    )
    save_figure(preview, run_dir / "augmented.png")


def _optimizer(name: str, lr: float) -> keras.optimizers.Optimizer:
    if name == "sgd":
        return keras.optimizers.SGD(lr, momentum=0.9, nesterov=True)
    kinds = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
    }
    return kinds[name](lr)
