"""What a training will take: the arithmetic from what was timed, and how it is told."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass

from seedtf.report import format_duration

__all__ = ["Forecast", "StageTime", "Writing"]

_STATES, _CHECKPOINTS = 2, 2


@dataclass(frozen=True)
class StageTime:
    """Seconds of a stage.

    Attributes:
        size, epochs: as in ``Stage``.
        train: seconds of one epoch's training.
        validation: of judging the validation images once.
        tracing: of getting ready, once.
        restart: of beginning ``fit`` anew in every epoch; 0 where it runs through.
    """

    size: int
    epochs: int
    train: float
    validation: float
    tracing: float
    restart: float = 0.0


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
        cache: bytes of the file of decoded images; 0 for none.
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
        working = stage.train + stage.validation + stage.restart
        working += self.writing.waiting + self.writing.slowing
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
        after = self.epoch_seconds(stage) - stage.train - stage.validation - stage.restart
        again = f", new batches {stage.restart:.2f}" if stage.restart else ""
        return (
            f"epoch     {self.epoch_seconds(stage):.2f} s at {stage.size}², {stage.epochs} of them: "
            f"training {stage.train:.2f}, validation {stage.validation:.2f}{again}, writing {after:.2f}"
        )

    def _memory_text(self) -> str:
        text = f"{_size(self.host_memory)} of main memory"
        return text if self.gpu_memory is None else f"{text}, {_size(self.gpu_memory)} of the GPU"


def _clock(end: datetime.datetime, now: float) -> str:
    same_day = end.date() == datetime.datetime.fromtimestamp(now).date()
    return end.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
