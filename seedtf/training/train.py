"""Trains a network, from a ``TrainConfig`` to a run folder; ``open_session`` prepares the training."""

from __future__ import annotations

import contextlib
import functools
import html
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seedtf.compat.tensorflow import gpu_memory_limits
from seedtf.config.network_flags import FITTED_HEAD
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.errors import UserError
from seedtf.files import remove_leftovers
from seedtf.intervals import wilson_interval
from seedtf.plots.base import save_figure
from seedtf.plots.page import image_uri
from seedtf.plots.training import draw_schedule
from seedtf.runs.folder import (
    check_run_dir,
    create_run_dir,
    lock_run,
    resolve_weights,
)
from seedtf.runs.history import best_epoch
from seedtf.runs.paths import RunPaths
from seedtf.runs.presets import resolve_preset
from seedtf.runs.records import write_records
from seedtf.runs.saved_config import load_resumed
from seedtf.training.callback_list import planned_snapshot_epochs
from seedtf.training.distributed.devices import Devices
from seedtf.training.distributed.sync import check_equal_across_workers
from seedtf.training.dry_run.forecast import Forecast
from seedtf.training.dry_run.timing import TimedStage, process_age, time_training
from seedtf.training.fitted_head import start_from_fitted_head
from seedtf.training.machine import inspect_machine
from seedtf.training.plan import Plan, make_plan
from seedtf.training.resolve import resolve
from seedtf.training.resume import load_resume_state, run_identity
from seedtf.training.session import Session
from seedtf.training.setup import (
    configure_tensorflow,
    load_training_data,
    make_network,
    runtime_errors_as_user_errors,
    seed_and_set_precision,
)
from seedtf.training.summary import report_plan, report_worker

__all__ = ["TrainConfig", "TrainResult", "forecast_training", "train_and_evaluate"]


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run, which is also printed as the ``RESULT`` line.

    Attributes:
        run_dir: the run folder; empty on a worker that is not the chief.
        epochs: number of completed epochs, including those before a resume.
        best_epoch: the epoch with the lowest validation loss, counted from 1; its model is best.keras.
        val_loss: the validation loss of this epoch.
        val_accuracy: the validation accuracy of this epoch, in [0, 1].
        val_accuracy_interval: the 95 % Wilson interval of ``val_accuracy``.
        epoch_seconds: median seconds of an epoch with its validation, over the epochs that this process
            trained. The first of these epochs counts only if it is the only one. 0 if this process
            trained no epoch.
        images_per_second: median training throughput over the same epochs as ``epoch_seconds``.
        stopped: why training ended before its last planned epoch; empty if it did not end early.
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
        """Returns the result as one line of JSON."""
        return json.dumps(asdict(self))

    def _repr_html_(self) -> str:
        """What a notebook shows: the best epoch and, if curves.png exists, the curves of the run."""
        low, high = self.val_accuracy_interval
        text = (
            f"best epoch {self.best_epoch} of {self.epochs}: validation accuracy "
            f"{self.val_accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), loss {self.val_loss:.4f}"
        )
        curves = RunPaths.of(self.run_dir).curves
        image = f'<img src="{image_uri(curves.read_bytes())}">' if curves.is_file() else ""
        return f"<p><b>{html.escape(self.run_dir)}</b><br>{text}</p>{image}"


def train_and_evaluate(config: TrainConfig) -> TrainResult:
    """Trains with ``config`` and writes a run folder; prints the settings and a line per epoch.

    On a CPU the same ``config`` gives the same ``history.csv``.

    Args:
        config: the flags of the run, without ``dry_run``.

    Returns:
        The metrics of the best epoch, and the run folder.

    Raises:
        UserError: a flag or a file has a mistake that the user can correct, which the message names; or
            ``config.dry_run`` is set.
        DivergedError: the loss or a value of a state is not finite.
        StoppedError: SIGTERM or SIGINT arrived; the state is saved.
        WorkerLostError: another worker has died; all workers can resume from the last state.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(
        ...     data_dir="sample", cache_dir=tempfile.mkdtemp(), run_dir="oak", model="tiny",
        ...     weights="none", image_size=16, epochs=1, batch_size=64,
        ... )
        >>> result = train_and_evaluate(config)  # doctest: +SKIP
        >>> result.best_epoch, result.run_dir  # doctest: +SKIP
        (1, 'oak')
    """
    if config.dry_run:
        raise UserError(
            "--dry_run: train_and_evaluate trains; leave the flag out, or call forecast_training of "
            "seedtf.training.train"
        )
    with open_session(config) as session:
        return _make_result(session, stopped=session.train())


def forecast_training(config: TrainConfig) -> Forecast:
    """Forecasts time, memory and disk space of a training from a few timed steps.

    No run folder is created.

    Args:
        config: the flags of the training, with ``dry_run``.

    Raises:
        UserError: a flag or a file has a mistake, several workers would train, or ``config.dry_run`` is
            not set.
    """
    if not config.dry_run:
        raise UserError(
            "--dry_run: forecast_training does not train; set the flag, or call train_and_evaluate"
        )
    with open_session(config) as session:
        return _time_session(session)


@contextmanager
def open_session(config: TrainConfig) -> Iterator[Session]:
    """Prepares a training; yields a session that is ready for the first step."""
    config = load_resumed(config)
    config = replace(config, weights=resolve_weights(config.weights))
    settings = resolve(config, inspect_machine(), resolve_preset(config))
    config = settings.config
    configure_tensorflow(settings)
    if not config.resume and settings.devices.chief:
        check_run_dir(config)
    report_worker(settings.devices)
    devices = Devices.start(settings.devices, config.worker_timeout)
    cluster = devices.cluster
    writes_run = devices.chief and not config.dry_run
    with _silent_unless_chief(devices), devices.report_lost_workers():
        check_equal_across_workers(
            {"the number of devices of a worker": devices.shard.count}, cluster
        )
        seed_and_set_precision(settings)
        dataset = load_training_data(config)
        plan = make_plan(settings, dataset, min(gpu_memory_limits(), default=0))
        config = plan.config
        with devices.scope():
            network = make_network(plan, dataset)
        identity = run_identity(plan, dataset, devices.replicas)
        # These two flags do not change the result, so they are not in `identity`. But workers with
        # different values would save or stop at different steps, and wait for each other forever.
        save_flags = {"--save_minutes": config.save_minutes, "--time_limit": config.time_limit}
        check_equal_across_workers({**identity, **save_flags}, cluster)
        with (
            _open_run_folder(config, writes_run) as paths,
            runtime_errors_as_user_errors(config, dataset, paths.root if writes_run else None),
        ):
            state = None
            if config.resume:
                state = load_resume_state(Path(config.run_dir), identity, devices.replicas)
            position = [state.epoch, state.step] if state else None
            check_equal_across_workers({"the state to resume from": position}, cluster)
            report_plan(plan, dataset, network, paths.root)
            if config.head == FITTED_HEAD and state is None and not config.dry_run:
                with devices.scope():
                    start_from_fitted_head(network, dataset, config.seed)
            if state is None and writes_run:
                _write_first_files(paths, plan, dataset)
            yield Session(
                plan, dataset, network, paths, devices=devices, identity=identity, state=state
            )


@contextmanager
def _silent_unless_chief(devices: Devices) -> Iterator[None]:
    """Discards what a worker other than the chief prints, so that each line is printed only once."""
    if devices.chief:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextmanager
def _open_run_folder(config: TrainConfig, writes_run: bool) -> Iterator[RunPaths]:
    """Yields the run folder, locked; a temporary folder if this process does not write the run."""
    if not writes_run:
        with tempfile.TemporaryDirectory(prefix="seedtf-worker-") as folder:
            paths = RunPaths.of(folder)
            paths.state.mkdir()
            yield paths
        return
    paths = RunPaths(Path(config.run_dir) if config.resume else create_run_dir(config))
    with lock_run(paths.root):
        remove_leftovers(paths.root)
        yield paths


def _write_first_files(paths: RunPaths, plan: Plan, dataset: Dataset) -> None:
    root = str(dataset.store.catalog.root.resolve())
    resolved = {**plan.resolved(), **plan.settings.devices.resolved(), "data_root": root}
    write_records(paths.root, plan.config, dataset, resolved, plan.settings.preset)
    planned = draw_schedule(plan.lr_schedule(), plan.config.epochs, title=paths.root.name)
    save_figure(planned, paths.planned_lr)


def _time_session(session: Session) -> Forecast:
    """Times a few steps at every image size; changes the weights and the optimizer of the session.

    Epochs with a frozen body are timed as if the whole network were trained.
    """
    plan, store = session.plan, session.dataset.store
    session.compile_phase(0)
    stages = [
        TimedStage(
            stage.size,
            stage.end - stage.first,
            train=lambda: session.train_batches(0),
            val=session.val_batches,
            enter=functools.partial(session.set_image_size, stage.size),
            restarts=plan.restarts_every_epoch,
        )
        for stage in plan.settings.stages
    ]
    return time_training(
        session.trainer,
        stages,
        steps_per_epoch=plan.steps_per_epoch,
        val_steps=session.batches.val_steps,
        startup=process_age(),
        snapshots=len(planned_snapshot_epochs(plan)),
        cache=len(store.catalog) * store.size**2 * 3 if store.mode == "disk" else 0,
    )


def _make_result(session: Session, stopped: str) -> TrainResult:
    callbacks, num_val = session.callbacks, len(session.dataset.split.val)
    rows = callbacks.log.rows
    best = best_epoch(rows)
    if best is None:
        raise UserError("no epoch had a finite validation loss; lower --lr")
    row = rows[best - 1]
    return TrainResult(
        run_dir=str(session.paths.root) if session.devices.chief else "",
        epochs=len(rows),
        best_epoch=best,
        val_loss=row["val_loss"],
        val_accuracy=row["val_accuracy"],
        val_accuracy_interval=wilson_interval(round(row["val_accuracy"] * num_val), num_val),
        epoch_seconds=callbacks.timer.median_seconds,
        images_per_second=callbacks.timer.median_images_per_second,
        stopped=stopped,
    )
