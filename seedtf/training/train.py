"""One training run from a ``TrainConfig``: composes the stages, adds nothing of its own."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from seedtf.config.recipes import RECIPES, recipe_changes
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset
from seedtf.errors import UserError
from seedtf.files import remove_leftovers
from seedtf.intervals import wilson_interval
from seedtf.plots.augmentation import draw_preview
from seedtf.plots.base import save_figure
from seedtf.plots.training import draw_schedule
from seedtf.runs.folder import check_run_dir, create_run_dir, lock_run
from seedtf.runs.history import best_epoch
from seedtf.runs.paths import RunPaths
from seedtf.runs.records import write_records
from seedtf.runs.saved_config import resumed_config
from seedtf.training.distributed.devices import Devices, check_shares, choose_devices
from seedtf.training.distributed.sync import check_equal_across_workers
from seedtf.training.dry_run.forecast import Forecast
from seedtf.training.optim.optimizers import check_strategy
from seedtf.training.plan import Plan
from seedtf.training.resume import check_identity, run_identity
from seedtf.training.session import Session
from seedtf.training.setup import make_network, open_planned, runtime_errors_as_user_errors, settled
from seedtf.training.state import TrainState, load_newest_state
from seedtf.training.summary import announce, announce_worker

__all__ = ["TrainConfig", "TrainResult", "forecast_training", "train_and_evaluate"]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to; also the ``RESULT`` line.

    Attributes:
        run_dir: the run's folder; empty on a worker that is not the chief, which keeps none.
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
        DivergedError: the loss is no longer a number.
        StoppedError: SIGTERM or SIGINT came; the state is saved.
        WorkerLostError: another worker is gone; all can go on from the last state.
    """
    with _session(config) as (session, run_dir):
        stopped = session.train()
    return _result(run_dir, session, stopped)


def forecast_training(config: TrainConfig) -> Forecast:
    """What the training that ``config`` means would take; times a few steps and leaves no run folder.

    Raises:
        UserError: as ``train_and_evaluate``, and where several workers would train.
    """
    with _session(config) as (session, _):
        return session.forecast()


@contextmanager
def _session(config: TrainConfig) -> Iterator[tuple[Session, Path | None]]:
    """A training about to begin, and its run folder, which only the chief has."""
    if config.resume and config.resume != config.run_dir:
        config = resumed_config(config.resume, _given(config))
    config = settled(config)
    devices = choose_devices(config.strategy)
    if config.dry_run and devices.cluster is not None:
        raise UserError(
            "--dry_run: times one machine; leave TF_CONFIG out, or pass --strategy=none"
        )
    check_strategy(config.optimizer, devices.kind)
    if not config.resume and devices.chief:
        check_run_dir(config)
    announce_worker(devices)
    devices = devices.started(config.worker_timeout)
    with _quiet_unless_chief(devices), devices.watching(), _prepared(config, devices) as session:
        yield session


@contextmanager
def _prepared(config: TrainConfig, devices: Devices) -> Iterator[tuple[Session, Path | None]]:
    check_equal_across_workers(
        {"the number of devices of a worker": devices.shard.count}, devices.cluster
    )
    check_shares(devices.replicas, config.batch_size)
    _check_average(config, devices.replicas)
    dataset, plan = open_planned(config, devices.replicas)
    _check_validation(devices.replicas, dataset)
    with devices.scope():
        sync_bn = config.sync_bn and devices.replicas > 1
        model = make_network(config, dataset, plan, weights=_first_weights(config), sync_bn=sync_bn)
    identity = run_identity(config, dataset, plan, devices.replicas)
    # these change no number, but a worker alone with another value would wait for ever
    together = {"--save_minutes": config.save_minutes, "--time_limit": config.time_limit}
    check_equal_across_workers({**identity, **together}, devices.cluster)
    kept = devices.chief and not config.dry_run
    with (
        _run_folder(config, devices) as run_dir,
        runtime_errors_as_user_errors(config, dataset, run_dir if kept else None),
    ):
        state = _resume_state(config, identity, devices) if config.resume else None
        where = [state.epoch, state.step] if state else None
        check_equal_across_workers({"the state to go on from": where}, devices.cluster)
        announce(config, dataset, plan, model, run_dir, devices=devices)
        if state is None and devices.chief and not config.dry_run:
            _write_first_files(run_dir, config, dataset, plan, devices)
        yield (
            Session(
                config,
                dataset,
                plan,
                model,
                run_dir,
                devices=devices,
                identity=identity,
                state=state,
                draw_preview=lambda: _draw_preview(run_dir, config, dataset, plan),
            ),
            run_dir if devices.chief else None,
        )


@contextmanager
def _quiet_unless_chief(devices: Devices) -> Iterator[None]:
    """One worker's console is enough: the others say who they are and what ends them."""
    if devices.chief:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextmanager
def _run_folder(config: TrainConfig, devices: Devices) -> Iterator[Path]:
    """The run's folder for the chief alone; else, and to look only, one that goes in the end."""
    if not devices.chief or config.dry_run:
        with tempfile.TemporaryDirectory(prefix="seedtf-worker-") as folder:
            RunPaths.of(folder).state.mkdir()
            yield Path(folder)
        return
    run_dir = Path(config.run_dir) if config.resume else create_run_dir(config)
    with lock_run(run_dir):
        remove_leftovers(run_dir)
        yield run_dir


def _check_average(config: TrainConfig, replicas: int) -> None:
    if config.ema_horizon and replicas > 1:
        raise UserError(
            f"--ema_horizon={config.ema_horizon:g}: averages on one device only, and {replicas} share "
            "the batch here; pass --strategy=none, or leave it out"
        )


def _check_validation(replicas: int, dataset: Dataset) -> None:
    if len(dataset.split.val) < replicas:
        raise UserError(
            f"--strategy: {replicas} replicas share {len(dataset.split.val)} validation images, and "
            "each needs one; pass a larger --val_fraction, or use fewer devices"
        )


def _resume_state(
    config: TrainConfig, identity: dict[str, Any], devices: Devices
) -> TrainState | None:
    """The newest state of the run's folder, which all workers of a run can read."""
    run_dir = Path(config.run_dir)
    state, warnings = load_newest_state(RunPaths(run_dir).state)
    for warning in warnings:
        print(f"warning   {warning}", flush=True)
    if state is None:
        print("resume    no state was saved yet: beginning at epoch 1", flush=True)
        return None
    check_identity(str(run_dir), state.facts["identity"], identity)
    before = state.facts["replicas"]
    if before != devices.replicas:
        print(
            f"resume    {before} replicas shared a batch, now {devices.replicas}: the same batches and "
            "statistics, so the same numbers to rounding, dropout aside",
            flush=True,
        )
    where = (
        f"step {state.step} of epoch {state.epoch + 1}" if state.step else f"epoch {state.epoch}"
    )
    print(f"resume    going on after {where}", flush=True)
    return state


def _result(run_dir: Path | None, session: Session, stopped: str) -> TrainResult:
    rows, num_val_images = session.log.rows, session.num_val_images
    best = best_epoch(rows)
    if best is None:
        raise UserError("no epoch had a finite validation loss; lower --lr")
    row = rows[best - 1]
    return TrainResult(
        run_dir=str(run_dir or ""),
        epochs=len(rows),
        best_epoch=best,
        val_loss=row["val_loss"],
        val_accuracy=row["val_accuracy"],
        val_accuracy_interval=wilson_interval(
            round(row["val_accuracy"] * num_val_images), num_val_images
        ),
        epoch_seconds=session.timer.median_seconds,
        images_per_second=session.timer.median_images_per_second,
        stopped=stopped,
    )


def _given(config: TrainConfig) -> dict[str, Any]:
    """The fields that differ from their defaults: what a caller in Python asked for."""
    values = {each.name: (getattr(config, each.name), each.default) for each in fields(config)}
    by_recipe = recipe_changes(config.recipe, config.as_dict())
    return {
        name: now
        for name, (now, default) in values.items()
        if (name in by_recipe if name in RECIPES[config.recipe] else now != default)
    }


def _first_weights(config: TrainConfig) -> str:
    """None need be loaded for a run that goes on, except where they decide the architecture."""
    # Keras gives EfficientNetB0 to B7 one more layer when they begin with ImageNet's weights
    extra_layer = config.weights == "imagenet" and config.model.lower().startswith("efficientnetb")
    return config.weights if extra_layer or not config.resume else "none"


def _write_first_files(
    run_dir: Path, config: TrainConfig, dataset: Dataset, plan: Plan, devices: Devices
) -> None:
    root = str(dataset.store.catalog.root.resolve())
    write_records(
        run_dir, config, dataset, {**plan.resolved(), **devices.resolved(), "data_root": root}
    )
    planned = draw_schedule(plan.used_rate(), config.epochs, title=run_dir.name)
    save_figure(planned, RunPaths(run_dir).planned_lr)


def _draw_preview(run_dir: Path, config: TrainConfig, dataset: Dataset, plan: Plan) -> None:
    """Once in a run: an interrupted one may have it already."""
    path = RunPaths(run_dir).augmented
    if path.exists():
        return
    preview = draw_preview(
        dataset.store,
        dataset.split.train,
        plan.policy,
        seed=config.seed,
        impl=config.augment_impl,
        mixing=plan.mixing,
    )
    save_figure(preview, path)
