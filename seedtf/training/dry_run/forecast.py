"""``Forecast``: duration, memory and disk space of a training, computed from a few timed steps."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass

from seedtf.report import format_bytes, format_count, format_duration

__all__ = ["Forecast", "StageTime", "Writing"]

_NUM_STATES, _NUM_CHECKPOINTS = 2, 2
"""The numbers of files in a run folder: the last two states; the best and the last model."""


@dataclass(frozen=True)
class StageTime:
    """The times of the epochs that train on images of one size.

    Attributes:
        size: side of the images in pixels.
        epochs: number of epochs.
        train: seconds of training in one epoch.
        validation: seconds of validation in one epoch.
        tracing: seconds of tracing and compiling, once for all epochs of this size.
        restart: seconds that each epoch takes to start a ``fit``; 0 if one ``fit`` runs all epochs.
    """

    size: int
    epochs: int
    train: float
    validation: float
    tracing: float
    restart: float = 0.0


@dataclass(frozen=True)
class Writing:
    """The files that are written after each epoch, and how long that takes.

    The names of the attributes are keys of ``Forecast.as_json``.

    Attributes:
        waiting: seconds per epoch in which training waits while variables are copied.
        beside: seconds per epoch in which a thread writes the copies while training continues.
        slowing: seconds by which the threads that write files and draw curves prolong an epoch, because
            these threads and the training use the same cores.
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
        stages: the times of each image size, in the order of training.
        writing: the files that are written after each epoch.
        startup: seconds before the first step.
        host_memory: peak bytes of main memory of the process.
        gpu_memory: peak bytes of memory of the GPU on which most was used; None without a GPU.
        snapshots: number of models besides the best and the last one.
        cache: bytes of the cache file of decoded images; 0 if there is no cache file.
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
        """Seconds from the start of an epoch to the start of the next one.

        The files of the previous epoch are written during the epoch. If the writing takes longer than
        the epoch, the next epoch waits. A training on a GPU does not wait but saves fewer epochs, so if
        writing takes longer than an epoch, its forecast is too long.
        """
        training = stage.train + stage.validation + stage.restart
        training += self.writing.waiting + self.writing.slowing
        return max(training, self.writing.waiting + self.writing.beside)

    @property
    def training_seconds(self) -> float:
        """Seconds of all epochs and of the tracing of each stage."""
        return sum(
            stage.epochs * self.epoch_seconds(stage) + stage.tracing for stage in self.stages
        )

    @property
    def seconds(self) -> float:
        """Seconds from the start of the command until the files of the last epoch are written."""
        return self.startup + self.training_seconds + self.writing.beside

    @property
    def run_bytes(self) -> int:
        """Bytes of the models and states in the run folder at the end of training."""
        models = (_NUM_CHECKPOINTS + self.snapshots) * self.writing.checkpoint
        return models + _NUM_STATES * self.writing.state

    @property
    def disk_bytes(self) -> int:
        """The most bytes on disk: a new file is written completely before it replaces an old one."""
        return self.run_bytes + max(self.writing.checkpoint, self.writing.state) + self.cache

    def lines(self, now: float) -> list[tuple[str, str]]:
        """The label and the text of each line for the console.

        Args:
            now: the time at which training would be started, in seconds since 1970.
        """
        epochs = sum(stage.epochs for stage in self.stages)
        end = _format_clock(datetime.datetime.fromtimestamp(now + self.seconds), now)
        checkpoint, state = self.writing.checkpoint, self.writing.state
        return [
            *(("epoch", self._stage_text(stage)) for stage in self.stages),
            (
                "end",
                f"{end} if started now: {format_duration(self.seconds)} for {epochs} epochs, including "
                f"{format_duration(self.startup)} before the first one",
            ),
            ("memory", f"{self._memory_text()} at the peak"),
            (
                "disk",
                f"{format_bytes(self.run_bytes)} in the run folder: "
                f"{_NUM_CHECKPOINTS + self.snapshots} models of {format_bytes(checkpoint)}, "
                f"{_NUM_STATES} states of {format_bytes(state)}; cache file "
                f"{format_bytes(self.cache)}; {format_bytes(self.disk_bytes)} while a file is being "
                "replaced",
            ),
        ]

    def as_json(self) -> str:
        """Returns the attributes and the values computed from them, as one line of JSON."""
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
        writing = total - stage.train - stage.validation - stage.restart
        epochs = format_count(stage.epochs, "epoch")
        restart = f", restart of fit {stage.restart:.2f}" if stage.restart else ""
        return (
            f"{total:.2f} s at {stage.size}² pixels ({epochs}): training {stage.train:.2f}, "
            f"validation {stage.validation:.2f}{restart}, writing {writing:.2f}"
        )

    def _memory_text(self) -> str:
        text = f"{format_bytes(self.host_memory)} of main memory"
        gpu = self.gpu_memory
        return text if gpu is None else f"{text}, {format_bytes(gpu)} of the GPU"


def _format_clock(end: datetime.datetime, now: float) -> str:
    same_day = end.date() == datetime.datetime.fromtimestamp(now).date()
    return end.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M")
