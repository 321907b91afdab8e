"""Extrapolates a few timed steps to duration, memory and disk space (``--dry_run``)."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass

from seedtf.report import format_bytes, format_duration

__all__ = ["Forecast", "StageTime", "Writing"]

_STATES, _CHECKPOINTS = 2, 2
"""Files of each kind that a run folder holds: the last two states, the best and the last model."""


@dataclass(frozen=True)
class StageTime:
    """Duration of the epochs that train on images of one size, in seconds.

    Attributes:
        size: side of the images in pixels.
        epochs: number of epochs.
        train: training in one epoch.
        validation: validation in one epoch.
        tracing: tracing and compiling, once per stage.
        restart: starting a new ``fit`` in every epoch; 0 if one ``fit`` runs all of them.
    """

    size: int
    epochs: int
    train: float
    validation: float
    tracing: float
    restart: float = 0.0


@dataclass(frozen=True)
class Writing:
    """What an epoch writes to disk, and how long that takes.

    Attributes:
        waiting: seconds per epoch in which training is paused while variables are copied.
        beside: seconds from the end of copying until all files are on disk; training continues.
        slowing: seconds by which this background work slows down a training on the same cores.
        checkpoint: bytes of a model file.
        state: bytes of a state file for exact resume.
    """

    waiting: float
    beside: float
    slowing: float
    checkpoint: int
    state: int


@dataclass(frozen=True)
class Forecast:
    """Estimated duration, memory and disk space of a training.

    Attributes:
        stages: the durations of its stages, in order.
        writing: the writing of the files after each epoch.
        startup: seconds before the first step.
        host_memory: peak bytes of main memory after every stage has been timed.
        gpu_memory: the same on the GPU with the highest peak; None without a GPU.
        snapshots: models kept besides the best and the last one.
        cache: bytes of the cache file of decoded images; 0 without one.
        steps: number of training steps that were timed.

    Example:
        >>> stage = StageTime(size=224, epochs=10, train=60.0, validation=5.0, tracing=20.0)
        >>> writing = Writing(waiting=1.0, beside=3.0, slowing=0.0, checkpoint=90, state=270)
        >>> forecast = Forecast((stage,), writing, startup=12.0, host_memory=3_000_000_000)
        >>> forecast.epoch_seconds(stage), forecast.training_seconds, forecast.run_bytes
        (66.0, 680.0, 720)
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
        """From the start of an epoch to the start of the next one, which waits for the files."""
        working = stage.train + stage.validation + stage.restart
        working += self.writing.waiting + self.writing.slowing
        return max(working, self.writing.waiting + self.writing.beside)

    @property
    def training_seconds(self) -> float:
        """All epochs, and the tracing of each stage."""
        return sum(
            stage.epochs * self.epoch_seconds(stage) + stage.tracing for stage in self.stages
        )

    @property
    def seconds(self) -> float:
        """From the start of the command to its end, when the files of the last epoch are written."""
        return self.startup + self.training_seconds + self.writing.beside

    @property
    def run_bytes(self) -> int:
        """Size of the run folder at the end of training."""
        models = (_CHECKPOINTS + self.snapshots) * self.writing.checkpoint
        return models + _STATES * self.writing.state

    @property
    def disk_bytes(self) -> int:
        """Disk space needed: a file is written completely before it replaces an older one."""
        return self.run_bytes + max(self.writing.checkpoint, self.writing.state) + self.cache

    def lines(self, now: float) -> list[tuple[str, str]]:
        """The label and the text of each line for the console.

        Args:
            now: the time at which training would be started, in seconds since 1970.
        """
        epochs = sum(stage.epochs for stage in self.stages)
        end = datetime.datetime.fromtimestamp(now + self.seconds)
        checkpoint, state = self.writing.checkpoint, self.writing.state
        return [
            *(("epoch", self._stage_text(stage)) for stage in self.stages),
            (
                "end",
                f"{_clock(end, now)} if started now: {format_duration(self.seconds)} for {epochs} "
                f"epochs, including {format_duration(self.startup)} before the first one",
            ),
            ("memory", f"{self._memory_text()} at the peak"),
            (
                "disk",
                f"{format_bytes(self.run_bytes)} in the run folder: "
                f"{_CHECKPOINTS + self.snapshots} models of {format_bytes(checkpoint)}, "
                f"{_STATES} states of {format_bytes(state)}; cache file "
                f"{format_bytes(self.cache)}; {format_bytes(self.disk_bytes)} while a file is being "
                "replaced",
            ),
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

    def _stage_text(self, stage: StageTime) -> str:
        total = self.epoch_seconds(stage)
        after = total - stage.train - stage.validation - stage.restart
        epochs = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
        restart = f", restart of fit {stage.restart:.2f}" if stage.restart else ""
        return (
            f"{total:.2f} s at {stage.size}² pixels ({epochs}): training {stage.train:.2f}, "
            f"validation {stage.validation:.2f}{restart}, writing {after:.2f}"
        )

    def _memory_text(self) -> str:
        text = f"{format_bytes(self.host_memory)} of main memory"
        gpu = self.gpu_memory
        return text if gpu is None else f"{text}, {format_bytes(gpu)} of the GPU"


def _clock(end: datetime.datetime, now: float) -> str:
    same_day = end.date() == datetime.datetime.fromtimestamp(now).date()
    return end.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M")
