"""What a training will take: a few steps of it are timed, and the rest is arithmetic."""

from __future__ import annotations

import datetime
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.plots import draw_curves, figure_png
from seedtf.training.callbacks.epoch_timer import format_duration
from seedtf.training.callbacks.live_page import REFRESH_SECONDS
from seedtf.training.saver import Saver
from seedtf.training.state import StateFolder
from seedtf.training.trainer import Trainer

__all__ = [
    "MOST_STEPS",
    "Forecast",
    "Stage",
    "StageTime",
    "Writing",
    "measure",
    "median_step",
    "process_age",
]

MOST_STEPS = 20
"""Train steps that are timed, over all stages together."""

# untimed, for the first batches lie ready: they were made while the step was traced
_WARM_UP_STEPS = 4
_LONGEST_BLOCK = 5
_VAL_STEPS = 6
_STATES, _CHECKPOINTS = 2, 2


@dataclass(frozen=True)
class Stage:
    """Epochs that take equally long.

    Attributes:
        size: side of the pictures in pixels.
        epochs: how many.
        train: makes endless training batches, as ``fit`` takes them.
        val: makes the validation batches.
        enter: prepares the trainer for this stage.
    """

    size: int
    epochs: int
    train: Callable[[], Any]
    val: Callable[[], Any]
    enter: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class StageTime:
    """Seconds of a stage.

    Attributes:
        size, epochs: as in ``Stage``.
        train: seconds of one epoch's training.
        validation: of judging the validation pictures once.
        tracing: of getting ready, once.
    """

    size: int
    epochs: int
    train: float
    validation: float
    tracing: float


@dataclass(frozen=True)
class Writing:
    """What an epoch leaves on disk, and what that takes.

    Attributes:
        waiting: seconds that training stands still in an epoch, while variables are copied.
        beside: seconds from then until everything is on disk, while training goes on.
        slowing: seconds that the work beside costs a training on the same cores.
        checkpoint: bytes of a network.
        state: bytes of the state a run can go on from.
    """

    waiting: float
    beside: float
    slowing: float
    checkpoint: int
    state: int


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Attributes:
        stages: its epochs, in order.
        writing: what follows each epoch.
        startup: seconds before the first step.
        host_memory: bytes of main memory at the peak so far, which every stage has had its part in.
        gpu_memory: the same on the busiest GPU; None without one.
        snapshots: networks kept besides the best and the last one.
        cache: bytes of the file of decoded pictures; 0 for none.
        steps: train steps that were timed.
    """

    stages: tuple[StageTime, ...]
    writing: Writing
    startup: float
    host_memory: int
    gpu_memory: int | None = None
    snapshots: int = 0
    cache: int = 0
    steps: int = 0

    def epoch_seconds(self, stage: StageTime) -> float:
        """From the begin of an epoch to that of the next; what is written beside can hold it up."""
        working = stage.train + stage.validation + self.writing.waiting + self.writing.slowing
        return max(working, self.writing.waiting + self.writing.beside)

    @property
    def training_seconds(self) -> float:
        """All epochs, and getting ready for each stage."""
        return sum(each.epochs * self.epoch_seconds(each) + each.tracing for each in self.stages)

    @property
    def seconds(self) -> float:
        """From the command to its end."""
        # the last epoch's files are waited for
        return self.startup + self.training_seconds + self.writing.beside

    @property
    def run_bytes(self) -> int:
        """What the run folder holds in the end."""
        networks = (_CHECKPOINTS + self.snapshots) * self.writing.checkpoint
        return networks + _STATES * self.writing.state

    @property
    def disk_bytes(self) -> int:
        """What has to be free: a file is whole before it takes the place of an older one."""
        return self.run_bytes + max(self.writing.checkpoint, self.writing.state) + self.cache

    def lines(self, now: float) -> list[str]:
        """For the console.

        Args:
            now: seconds since the epoch of the clock, at which the training would be started.
        """
        epochs = sum(stage.epochs for stage in self.stages)
        end = datetime.datetime.fromtimestamp(now + self.seconds)
        return [
            *map(self._stage_line, self.stages),
            f"end       {_clock(end, now)} if started now: {format_duration(self.seconds)} for "
            f"{epochs} epochs, of which {format_duration(self.startup)} before the first",
            f"memory    {self._memory_text()} at the peak",
            f"disk      {_size(self.run_bytes)} in the run folder: {_CHECKPOINTS + self.snapshots} "
            f"networks of {_size(self.writing.checkpoint)}, {_STATES} states of "
            f"{_size(self.writing.state)}; cache file {_size(self.cache)}; "
            f"{_size(self.disk_bytes)} with a file being written",
        ]

    def as_json(self) -> str:
        """One line of JSON."""
        epoch_seconds = [self.epoch_seconds(stage) for stage in self.stages]
        derived = {
            "epoch_seconds": epoch_seconds,
            "seconds": self.seconds,
            "run_bytes": self.run_bytes,
            "disk_bytes": self.disk_bytes,
        }
        return json.dumps({**asdict(self), **derived})

    def _stage_line(self, stage: StageTime) -> str:
        after = self.epoch_seconds(stage) - stage.train - stage.validation
        return (
            f"epoch     {self.epoch_seconds(stage):.2f} s at {stage.size}², {stage.epochs} of them: "
            f"training {stage.train:.2f}, validation {stage.validation:.2f}, writing {after:.2f}"
        )

    def _memory_text(self) -> str:
        text = f"{_size(self.host_memory)} of main memory"
        return text if self.gpu_memory is None else f"{text}, {_size(self.gpu_memory)} of the GPU"


def measure(
    trainer: Trainer,
    stages: Sequence[Stage],
    *,
    steps_per_epoch: int,
    val_steps: int,
    startup: float,
    snapshots: int = 0,
    cache: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Forecast:
    """Times each stage and the writing; changes the trainer and leaves no file.

    Args:
        trainer: compiled.
        stages: at least one; at most 20 steps are timed over all of them.
        steps_per_epoch: train steps in an epoch.
        val_steps: batches of one validation.
        startup: seconds since the command began, such as ``process_age()``.
        snapshots: networks that the run keeps besides the best and the last one.
        cache: bytes of the file of decoded pictures.
        clock: gives seconds that only ever rise.

    Raises:
        UserError: no room for the temporary files.
    """
    steps = max(1, MOST_STEPS // len(stages))
    lengths = _Lengths(steps_per_epoch, val_steps, steps // _block(steps) * _block(steps))
    times = tuple(_time_stage(trainer, stage, lengths, clock) for stage in stages)
    writing = _time_writing(trainer, clock)
    seconds = min(each.train + each.validation for each in times)
    slowing = writing.slowing + _drawing_seconds() * min(1.0, seconds / REFRESH_SECONDS)
    return Forecast(
        times,
        replace(writing, slowing=slowing),
        startup,
        _host_peak(),
        _gpu_peak(),
        snapshots,
        cache,
        len(stages) * lengths.timed,
    )


def median_step(
    run: Callable[[], Any], steps: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of a step: the median over at least three blocks where there are as many steps.

    Within a block the device is not waited for, at its end it is, as ``fit`` lets it run ahead.

    Args:
        run: takes one step and returns its results.
        steps: 1 or more; those that fill no whole block are not taken.
        clock: gives seconds that only ever rise.
    """
    block, taken = _block(steps), []
    for _ in range(steps // block):
        began = clock()
        for _ in range(block):
            result = run()
        _finish(result)
        taken.append((clock() - began) / block)
    return statistics.median(taken)


def process_age() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process().create_time()


def _block(steps: int) -> int:
    return max(1, min(_LONGEST_BLOCK, steps // 3))


@dataclass(frozen=True)
class _Lengths:
    """Train steps and validation batches of an epoch, and how many of the former are timed."""

    steps: int
    val_steps: int
    timed: int


def _time_stage(
    trainer: Trainer, stage: Stage, lengths: _Lengths, clock: Callable[[], float]
) -> StageTime:
    began = clock()
    stage.enter()
    # the highest rate without the steps that lead up to it could make numbers infinite
    trainer.optimizer.learning_rate = 0.0
    # builds the optimizer and the metrics and traces both steps
    trainer.fit(stage.train(), steps_per_epoch=1, verbose=0, shuffle=False)
    trainer.evaluate(stage.val(), steps=1, verbose=0)
    tracing = clock() - began
    train = lengths.steps * _time_train(trainer, stage, lengths.timed, clock)
    validation = _time_validation(trainer, stage, lengths.val_steps, clock)
    return StageTime(stage.size, stage.epochs, train, validation, tracing)


def _time_train(trainer: Trainer, stage: Stage, steps: int, clock: Callable[[], float]) -> float:
    batches = _iterator(trainer, stage.train())
    for _ in range(_WARM_UP_STEPS):
        _finish(trainer.train_function(batches))
    return median_step(lambda: trainer.train_function(batches), steps, clock)


def _time_validation(
    trainer: Trainer, stage: Stage, val_steps: int, clock: Callable[[], float]
) -> float:
    """The first batch, for which the pipeline starts anew in every epoch, and the others' median."""
    began = clock()
    batches = _iterator(trainer, stage.val())
    _finish(trainer.test_function(batches))
    first, others = clock() - began, min(val_steps - 1, _VAL_STEPS)
    if others < 1:
        return first
    step = median_step(lambda: trainer.test_function(batches), others, clock)
    return first + step * (val_steps - 1)


def _time_writing(trainer: Trainer, clock: Callable[[], float]) -> Writing:
    """Writes what an epoch writes to a temporary folder."""
    try:
        with tempfile.TemporaryDirectory(prefix="seedtf-forecast-") as name:
            folder = Path(name)
            saver = Saver(StateFolder(folder / "state"), averaged=trainer.average is not None)
            try:
                began, cpu = clock(), time.process_time()
                saver.checkpoint(trainer.network, folder / "best.keras")
                saver.checkpoint(trainer.network, folder / "last.keras")
                saver.state(trainer, epoch=1, step=0, facts={"identity": {}, "history": ""})
                copied = clock()
                saver.wait()
                beside, cpu = clock() - copied, time.process_time() - cpu
            finally:
                saver.close()
            state = next((folder / "state").glob("*.state")).stat().st_size
            checkpoint = (folder / "last.keras").stat().st_size
    except OSError as error:
        raise UserError(
            f"--dry_run: {tempfile.gettempdir()} cannot be written ({error.strerror or error}); make "
            "room there, or name another folder in TMPDIR"
        ) from error
    waiting = copied - began
    return Writing(waiting, beside, _slowing(max(cpu - waiting, 0.0)), checkpoint, state)


def _drawing_seconds() -> float:
    """What a picture of the curves costs a training on the same cores."""
    row = {"epoch": 1, "lr": 1e-3} | dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy"), 0.5
    )
    cpu = 0.0
    for _ in range(2):  # the first one also loads the fonts
        began = time.process_time()
        figure_png(draw_curves([row], title="", planned_lr=[1e-3]))
        cpu = time.process_time() - began
    return _slowing(cpu)


def _slowing(cpu_seconds: float) -> float:
    """Wall seconds that so much work beside takes from a training that keeps every core busy."""
    if tf.config.list_physical_devices("GPU"):
        return 0.0
    return cpu_seconds / (psutil.cpu_count() or 1)


def _iterator(trainer: Trainer, batches: Any) -> Iterator[Any]:
    strategy = trainer.distribute_strategy
    if strategy.num_replicas_in_sync > 1 and isinstance(batches, tf.data.Dataset):
        batches = strategy.experimental_distribute_dataset(batches)
    return iter(batches)


def _finish(result: Any) -> None:
    """Waits for the device: reading a result needs all that came before it."""
    tf.nest.map_structure(lambda each: each.numpy() if hasattr(each, "numpy") else each, result)


def _host_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _gpu_peak() -> int | None:
    count = len(tf.config.list_physical_devices("GPU"))
    info = [tf.config.experimental.get_memory_info(f"GPU:{number}") for number in range(count)]
    return max((each["peak"] for each in info), default=None)


def _clock(end: datetime.datetime, now: float) -> str:
    same_day = end.date() == datetime.datetime.fromtimestamp(now).date()
    return end.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
