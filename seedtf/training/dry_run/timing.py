"""Times a few training steps, and the writing of an epoch's files, for a ``Forecast``."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.plots.base import figure_png
from seedtf.plots.training import draw_curves
from seedtf.runs.paths import RunPaths
from seedtf.training.callbacks.live_curves import REFRESH_SECONDS
from seedtf.training.dry_run.forecast import Forecast, StageTime, Writing
from seedtf.training.saver import Saver
from seedtf.training.state import StateFolder
from seedtf.training.trainer import Trainer

__all__ = ["MAX_STEPS", "TimedStage", "median_step", "process_age", "time_training"]

MAX_STEPS = 20
"""The largest number of timed training steps over all stages, if there are no more stages than this."""

_WARM_UP_STEPS = 4  # the first steps of a new iterator, which are not timed
_MAX_BLOCK_STEPS = 5  # the largest number of steps in a block of `median_step`
_MAX_VAL_STEPS = 6  # the largest number of validation steps that are timed, without the first one


@dataclass(frozen=True)
class TimedStage:
    """The epochs that train on images of one size. They take equally long, so a few steps are timed.

    Attributes:
        size: side of the images in pixels.
        epochs: number of epochs.
        train: called to get endless training batches, as ``fit`` takes them.
        val: called to get the validation batches.
        enter: called to prepare the trainer for images of this size.
        restarts: whether every epoch is a ``fit`` of its own.
    """

    size: int
    epochs: int
    train: Callable[[], Any]
    val: Callable[[], Any]
    enter: Callable[[], None] = lambda: None
    restarts: bool = False


def time_training(
    trainer: Trainer,
    stages: Sequence[TimedStage],
    *,
    steps_per_epoch: int,
    val_steps: int,
    startup: float,
    snapshots: int = 0,
    cache: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Forecast:
    """Returns a forecast, for which a few steps of each stage and the writing of files are timed.

    The trainer should not be used afterwards: its variables and its learning rate are changed. The
    files are written to a temporary folder, which is removed.

    Args:
        trainer: a compiled trainer.
        stages: one or more; at most ``MAX_STEPS`` training steps are timed over all stages together,
            or one step of each if there are more stages.
        steps_per_epoch: number of training steps in an epoch.
        val_steps: number of validation batches.
        startup: seconds since the command started, such as ``process_age()``.
        snapshots: number of models that the run keeps besides the best and the last one.
        cache: bytes of the cache file of decoded images.
        clock: a monotonic clock in seconds.

    Raises:
        UserError: the temporary files cannot be written, for example because the disk is full.
    """
    steps = max(1, MAX_STEPS // len(stages))
    block = _block_length(steps)
    whole_blocks = steps // block * block  # the steps that `median_step` times
    lengths = _Lengths(steps_per_epoch, val_steps, whole_blocks)
    times = tuple(_time_stage(trainer, stage, lengths, clock) for stage in stages)
    writing = _time_writing(trainer, clock)
    # At least `REFRESH_SECONDS` pass between two drawings of the curves, so shorter epochs share one.
    shortest_epoch = min(stage.train + stage.validation for stage in times)
    slowing = writing.slowing + _drawing_seconds() * min(1.0, shortest_epoch / REFRESH_SECONDS)
    return Forecast(
        stages=times,
        writing=replace(writing, slowing=slowing),
        startup=startup,
        host_memory=_host_memory_peak(),
        gpu_memory=_gpu_memory_peak(),
        snapshots=snapshots,
        cache=cache,
        steps=len(stages) * lengths.timed,
    )


def median_step(
    run: Callable[[], Any], steps: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The seconds that a step takes: the median over blocks of up to five steps.

    There are three blocks or more; with fewer than three steps, each step is a block. The host waits
    for the device only at the end of a block, because ``fit`` does not wait after every step.

    Args:
        run: runs one step and returns its results.
        steps: 1 or more. All blocks have the same length; steps that do not fill a block are not run.
        clock: a monotonic clock in seconds.

    Example:
        >>> times = iter([0.0, 10.0, 10.0, 16.0, 16.0, 22.0])
        >>> median_step(lambda: None, 6, clock=lambda: next(times))  # three blocks of two steps
        3.0
    """
    block, durations = _block_length(steps), []
    for _ in range(steps // block):
        start = clock()
        for _ in range(block):
            result = run()
        _wait_for(result)
        durations.append((clock() - start) / block)
    return statistics.median(durations)


def process_age() -> float:
    """Seconds since this process started."""
    return time.time() - psutil.Process().create_time()


def _block_length(steps: int) -> int:
    """The number of steps in a block of ``median_step``."""
    return max(1, min(_MAX_BLOCK_STEPS, steps // 3))


@dataclass(frozen=True)
class _Lengths:
    """The training steps and validation batches of an epoch, and the number of steps to time."""

    steps: int
    val_steps: int
    timed: int


def _time_stage(
    trainer: Trainer, stage: TimedStage, lengths: _Lengths, clock: Callable[[], float]
) -> StageTime:
    start = clock()
    stage.enter()
    # The rate is 0, because the planned rate without its warm-up could make the weights infinite.
    trainer.optimizer.learning_rate = 0.0
    # These calls build the optimizer and the metrics and trace both steps.
    trainer.fit(stage.train(), steps_per_epoch=1, verbose=0, shuffle=False)
    trainer.evaluate(stage.val(), steps=1, verbose=0)
    tracing = clock() - start
    step = _time_train_step(trainer, stage, lengths.timed, clock)
    validation = _time_validation(trainer, stage, lengths.val_steps, clock)
    restart = max(_time_fit(trainer, stage, clock) - step, 0.0) if stage.restarts else 0.0
    return StageTime(
        size=stage.size,
        epochs=stage.epochs,
        train=lengths.steps * step,
        validation=validation,
        tracing=tracing,
        restart=restart,
    )


def _time_fit(trainer: Trainer, stage: TimedStage, clock: Callable[[], float]) -> float:
    """Seconds of a ``fit`` of one step and one validation batch, most of which is its start-up."""
    start = clock()
    trainer.fit(
        stage.train(),
        validation_data=stage.val(),
        validation_steps=1,
        steps_per_epoch=1,
        verbose=0,
        shuffle=False,
    )
    return clock() - start


def _time_train_step(
    trainer: Trainer, stage: TimedStage, steps: int, clock: Callable[[], float]
) -> float:
    batches = _make_iterator(trainer, stage.train())
    for _ in range(_WARM_UP_STEPS):
        _wait_for(trainer.train_function(batches))
    return median_step(lambda: trainer.train_function(batches), steps, clock)


def _time_validation(
    trainer: Trainer, stage: TimedStage, val_steps: int, clock: Callable[[], float]
) -> float:
    """Seconds of a whole validation.

    The first batch is timed alone, because it takes longer: it starts the pipeline.
    """
    start = clock()
    batches = _make_iterator(trainer, stage.val())
    _wait_for(trainer.test_function(batches))
    first, timed_steps = clock() - start, min(val_steps - 1, _MAX_VAL_STEPS)
    if timed_steps < 1:
        return first
    step = median_step(lambda: trainer.test_function(batches), timed_steps, clock)
    return first + step * (val_steps - 1)


def _time_writing(trainer: Trainer, clock: Callable[[], float]) -> Writing:
    """Writes the files of one epoch to a temporary folder, and measures their sizes and the time."""
    try:
        with tempfile.TemporaryDirectory(prefix="seedtf-forecast-") as folder:
            paths = RunPaths.of(folder)
            paths.checkpoints.mkdir()
            saver = Saver(StateFolder(paths.state), averaged=trainer.average is not None)
            try:
                start, cpu_start = clock(), time.process_time()
                saver.save_checkpoint(trainer.network, paths.best)
                saver.save_checkpoint(trainer.network, paths.last)
                saver.save_state(trainer, epoch=1, step=0, facts={"identity": {}, "history": ""})
                copied = clock()
                saver.wait()
                background, cpu_seconds = clock() - copied, time.process_time() - cpu_start
            finally:
                saver.close()
            state = next(paths.state.glob("*.state")).stat().st_size
            checkpoint = paths.last.stat().st_size
    except OSError as error:
        raise UserError(
            f"--dry_run: {tempfile.gettempdir()} cannot be written ({error.strerror or error}); free "
            "some space there, or set TMPDIR to another folder"
        ) from error
    waiting = copied - start
    return Writing(
        waiting=waiting,
        beside=background,
        # The main thread copies while training waits, so its CPU time is estimated as `waiting`. The
        # rest of the CPU time is that of the writing thread.
        slowing=_slowing_seconds(max(cpu_seconds - waiting, 0.0)),
        checkpoint=checkpoint,
        state=state,
    )


def _drawing_seconds() -> float:
    """Seconds by which drawing the curves once prolongs a training on the same cores."""
    row = {"epoch": 1, "lr": 1e-3} | dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy"), 0.5
    )
    cpu_seconds = 0.0
    for _ in range(2):  # only the second drawing counts, because the first also loads the fonts
        start = time.process_time()
        figure_png(draw_curves([row], title="", planned_lr=[1e-3]))
        cpu_seconds = time.process_time() - start
    return _slowing_seconds(cpu_seconds)


def _slowing_seconds(cpu_seconds: float) -> float:
    """Seconds by which background work of ``cpu_seconds`` prolongs a training that uses all cores.

    A training on a GPU is not prolonged.
    """
    if tf.config.list_physical_devices("GPU"):
        return 0.0
    return cpu_seconds / (psutil.cpu_count() or 1)


def _make_iterator(trainer: Trainer, batches: Any) -> Iterator[Any]:
    """An iterator over ``batches``, distributed over the replicas of the trainer."""
    strategy = trainer.distribute_strategy
    if strategy.num_replicas_in_sync > 1 and isinstance(batches, tf.data.Dataset):
        batches = strategy.experimental_distribute_dataset(batches)
    return iter(batches)


def _wait_for(result: Any) -> None:
    """Waits for the device: reading ``result`` blocks until all earlier steps are done."""
    tf.nest.map_structure(lambda value: value.numpy() if hasattr(value, "numpy") else value, result)


def _host_memory_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _gpu_memory_peak() -> int | None:
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    info = [tf.config.experimental.get_memory_info(f"GPU:{number}") for number in range(num_gpus)]
    return max((usage["peak"] for usage in info), default=None)
