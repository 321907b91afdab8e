"""Callbacks that save: the best and the last model, snapshots, and the state for exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import keras

from seedtf.errors import StoppedError
from seedtf.runs.history import best_epoch
from seedtf.runs.paths import RunPaths
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.position import Position

__all__ = [
    "BestCheckpoint",
    "EpochEnds",
    "LastCheckpoint",
    "LimitReachedError",
    "SaveState",
    "Snapshots",
    "snapshot_epochs",
]

Save = Callable[[keras.Model, Path], None]
"""Saves a model to a path. ``Saver.checkpoint`` writes the file later, in the background."""


class EpochEnds:
    """Decides at which ends of epochs the last model and the state are written.

    Training does not wait for the disk: an end that comes while the files of an earlier one are still
    being written is left out, unless it is the last one. A run that is killed repeats those epochs.

    Args:
        epochs: the length of training.
        busy: whether files are being written.
        stopping: whether the run ends with this epoch.

    Example:
        >>> busy = [True, False, True]
        >>> ends = EpochEnds(3, busy=lambda: busy.pop(0), stopping=lambda: False)
        >>> [ends.written(0), ends.written(0), ends.written(1), ends.written(2)]
        [False, False, True, True]
    """

    def __init__(
        self, epochs: int, *, busy: Callable[[], bool], stopping: Callable[[], bool]
    ) -> None:
        self._epochs, self._busy, self._stopping = epochs, busy, stopping
        self._epoch, self._written = -1, False

    def written(self, epoch: int) -> bool:
        """Whether the end of ``epoch``, from 0, is written: the same answer whenever it is asked."""
        if epoch != self._epoch:
            must = epoch + 1 == self._epochs or self._stopping()
            self._epoch, self._written = epoch, must or not self._busy()
        return self._written


class BestCheckpoint(keras.callbacks.Callback):
    """Saves the model after every epoch whose ``val_loss`` is below that of all earlier epochs.

    Args:
        path: where the model is written.
        save: saves it there.
        log: the history of the run; must come before this callback in the list.
    """

    def __init__(self, path: Path, save: Save, log: HistoryLog) -> None:
        super().__init__()
        self._path = path
        self._save = save
        self._log = log

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if best_epoch(self._log.rows) == epoch + 1:
            self._save(self.model, self._path)


class LastCheckpoint(keras.callbacks.Callback):
    """Saves the model at the end of an epoch, replacing the one before.

    Args:
        path: where the model is written.
        save: saves it there.
        ends: the epochs at whose end it is saved.
    """

    def __init__(self, path: Path, save: Save, ends: EpochEnds) -> None:
        super().__init__()
        self._path = path
        self._save = save
        self._ends = ends

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._ends.written(epoch):
            self._save(self.model, self._path)


def snapshot_epochs(cycle_epochs: float, epochs: int, *, per_step: bool) -> list[int]:
    """The epochs, from 1, at whose end a snapshot is saved: the last epoch of each cycle.

    If a cycle ends within an epoch, the snapshot is taken at the end of that epoch or of the one
    before. A rate that is set at every step has already risen again by the end of that epoch, so the
    epoch before is taken. A rate that is set once per epoch was set before the cycle ended and does not
    change until the epoch ends, so that epoch is taken. A cycle that the end of training cuts short has
    no snapshot.

    Each snapshot is one more file of the size of ``last.keras``.

    Args:
        cycle_epochs: the length of a cycle in epochs, above 0; need not be an integer.
        epochs: the length of training.
        per_step: whether the rate is set at every step.

    Example:
        >>> snapshot_epochs(2.5, 10, per_step=True)
        [2, 5, 7, 10]
    """
    # The product is rounded to nine decimals, because 100 × 0.29 gives 28.999999999999996.
    ends = (round(n * cycle_epochs, 9) for n in range(1, math.floor(epochs / cycle_epochs) + 2))
    to_epoch = math.floor if per_step else math.ceil
    return sorted({to_epoch(end) for end in ends if end <= epochs} - {0})


class Snapshots(keras.callbacks.Callback):
    """Saves ``snapshot-<epoch>.keras`` at the end of each of ``epochs``; never removes one.

    Implements Huang et al., Snapshot Ensembles, arXiv 1704.00109: the models at the minima of one
    cyclic learning rate make different errors, so the mean of their predictions is better than each.
    The epoch number alone decides, so a resumed run saves exactly the snapshots that the uninterrupted
    run would have saved. A run that stops early has those of the cycles that it finished.

    Args:
        paths: the run folder.
        save: writes a model to a path.
        epochs: the 1-based epochs, from ``snapshot_epochs``.
    """

    def __init__(self, paths: RunPaths, save: Save, epochs: Iterable[int]) -> None:
        super().__init__()
        self._paths = paths
        self._save = save
        self._epochs = frozenset(epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch + 1 in self._epochs:
            self._save(self.model, self._paths.snapshot(epoch + 1))


class LimitReachedError(Exception):
    """Ends a ``fit`` within an epoch after its state was saved; never shown to the user."""


class Stop(Protocol):
    """Holds the name of a signal that was received; ``name`` is empty if there was none."""

    name: str


class SaveState(keras.callbacks.Callback):
    """Saves the state at the end of epochs and, optionally, every few minutes within one.

    Must be last in the list, so that the history and the checkpoints of an epoch are written before
    the state that marks it as complete. Signals and clock are checked before a step: a check after it
    would have to wait until the device has finished the step.

    Args:
        save: called with (model, completed epochs, completed steps of the next epoch).
        stop: records the signal that was received, if any.
        stop_reason: returns why the run has to end now (a time limit), or an empty string. If there is
            a reason, the run ends before the next step and leaves the epoch unfinished.
        position: must come before this callback in the list.
        ends: the epochs at whose end it is saved.
        postpone: called at the end of any other epoch.
        minutes: time between two states within an epoch; 0 saves at the end of epochs only.
        run_dir: the folder named in the message after a signal.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        save: Callable[[keras.Model, int, int], None],
        stop: Stop,
        stop_reason: Callable[[], str],
        position: Position,
        *,
        ends: EpochEnds,
        postpone: Callable[[], None],
        minutes: float,
        run_dir: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._save = save
        self._stop = stop
        self._stop_reason = stop_reason
        self._position = position
        self._ends, self._postpone = ends, postpone
        self._seconds = 60 * minutes
        self._run_dir = run_dir
        self._clock = clock
        self._saved_at = clock()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        epoch, step = self._position.epoch, self._position.step
        due = self._seconds and self._clock() - self._saved_at >= self._seconds
        if self._stop.name or self._stop_reason() or (due and step):
            self._save_at(epoch, step)
        if self._stop_reason():
            raise LimitReachedError

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._ends.written(epoch):
            self._save_at(epoch + 1, 0)
        else:
            self._postpone()

    def _save_at(self, epoch: int, step: int) -> None:
        self._save(self.model, epoch, step)
        self._saved_at = self._clock()
        if self._stop.name:
            where = f"step {step} of epoch {epoch + 1}" if step else f"the end of epoch {epoch}"
            where = where if epoch or step else "the start, before the first step"
            raise StoppedError(
                f"{self._stop.name}: saved at {where}; continue with --resume={self._run_dir}"
            )
