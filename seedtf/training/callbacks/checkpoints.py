"""Callbacks that save the best and the last model, snapshots, and the state for exact resume."""

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
    "LastCheckpoint",
    "LimitReachedError",
    "SavePolicy",
    "SaveState",
    "Snapshots",
    "snapshot_epochs",
]

Save = Callable[[keras.Model, Path], None]
"""Saves a model to a path. ``Saver.save_checkpoint`` writes the file later, in the background."""


class SavePolicy:
    """Decides after which epochs the last model and the state are saved.

    If an epoch ends while files of an earlier epoch are being written, neither the last model nor the
    state is saved, so that training does not wait for the disk. At the end of training, both are always
    saved. If the run is killed, the resumed run repeats the epochs since the last state.

    Args:
        epochs: the number of epochs of the whole training.
        busy: returns whether files of an earlier epoch are being written. On a CPU and with several
            workers it always returns False, because every epoch has to be saved.
        stopping: returns whether the run ends with the current epoch.

    Example:
        >>> busy = [True, False, True]
        >>> policy = SavePolicy(3, busy=lambda: busy.pop(0), stopping=lambda: False)
        >>> [policy.saves_after(epoch) for epoch in (0, 0, 1, 2)]
        [False, False, True, True]
    """

    def __init__(
        self, epochs: int, *, busy: Callable[[], bool], stopping: Callable[[], bool]
    ) -> None:
        self._epochs, self._busy, self._stopping = epochs, busy, stopping
        self._decided_epoch, self._saves = -1, False

    def saves_after(self, epoch: int) -> bool:
        """Whether to save after ``epoch``, from 0. All calls for one epoch return the same answer."""
        if epoch != self._decided_epoch:
            is_last = epoch + 1 == self._epochs or self._stopping()
            self._decided_epoch, self._saves = epoch, is_last or not self._busy()
        return self._saves


class BestCheckpoint(keras.callbacks.Callback):
    """Saves the model after every epoch whose ``val_loss`` is the lowest so far.

    Args:
        path: the file of the model.
        save: saves a model to a path.
        log: has the history of the run; must come before this callback in the list.
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
    """Saves the model at the end of an epoch, in place of the model of an earlier epoch.

    Args:
        path: the file of the model.
        save: saves a model to a path.
        policy: decides after which epochs the model is saved.
    """

    def __init__(self, path: Path, save: Save, policy: SavePolicy) -> None:
        super().__init__()
        self._path = path
        self._save = save
        self._policy = policy

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._policy.saves_after(epoch):
            self._save(self.model, self._path)


def snapshot_epochs(cycle_epochs: float, epochs: int, *, per_step: bool) -> list[int]:
    """The epochs, from 1, at whose end a snapshot is saved: the last epoch of each cycle.

    A cycle may end within an epoch. If the rate is set at every step, it has risen again by the end of
    this epoch, so the snapshot is saved one epoch earlier. If the rate is set once per epoch, it does
    not change before the epoch ends, so the snapshot is saved at the end of this epoch. A cycle that
    the end of training cuts short has no snapshot.

    Each snapshot is one more file of the size of ``last.keras``.

    Args:
        cycle_epochs: the length of a cycle in epochs, above 0; need not be an integer.
        epochs: the number of epochs of the whole training.
        per_step: whether the learning rate is set at every step, not once per epoch.

    Example:
        >>> snapshot_epochs(2.5, 10, per_step=True)
        [2, 5, 7, 10]
    """
    # The product is rounded to nine decimals, because in floating point 100 × 0.29 is
    # 28.999999999999996.
    ends = (round(n * cycle_epochs, 9) for n in range(1, math.floor(epochs / cycle_epochs) + 2))
    to_epoch = math.floor if per_step else math.ceil
    return sorted({to_epoch(end) for end in ends if end <= epochs} - {0})


class Snapshots(keras.callbacks.Callback):
    """Saves ``snapshot-<epoch>.keras`` at the end of the given epochs, and never removes a snapshot.

    The models at the minima of a cyclic learning rate make different errors. So the mean of their
    predictions is better than each model alone (Huang et al., Snapshot Ensembles, arXiv 1704.00109).

    Only the number of the epoch decides whether a snapshot is saved, so a resumed run has the same
    snapshots as an uninterrupted run.

    Args:
        paths: the run folder.
        save: saves a model to a path.
        epochs: the epochs from ``snapshot_epochs``, counted from 1.
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
    """Ends a ``fit`` within an epoch, after the state was saved; the user never sees it."""


class ReceivedSignal(Protocol):
    """An object with the name of the signal that was received; the name is empty before that."""

    signal_name: str


class SaveState(keras.callbacks.Callback):
    """Saves the state at the end of epochs and, optionally, every few minutes within an epoch.

    The callback must be last in the list: the history and the checkpoints of an epoch have to be
    written before the state that marks the epoch as complete. Signals and the clock are checked before
    a step, because after the step the check would wait until the device has finished it.

    Args:
        save: called with (model, completed epochs, completed steps of the next epoch).
        stop: has the name of a received signal.
        stop_reason: returns which limit was reached, such as the time limit; an empty string before
            that. Once a limit is reached, the run ends before the next step, within the epoch.
        position: the current epoch and step; must come before this callback in the list.
        policy: decides after which epochs the state is saved.
        skip_state: called instead of ``save`` at the end of an epoch whose state is not saved.
        minutes: time between two states within an epoch; with 0, states are saved only after epochs.
        run_dir: the run folder as the message after a signal shows it.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        save: Callable[[keras.Model, int, int], None],
        stop: ReceivedSignal,
        stop_reason: Callable[[], str],
        position: Position,
        *,
        policy: SavePolicy,
        skip_state: Callable[[], None],
        minutes: float,
        run_dir: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._save = save
        self._stop = stop
        self._stop_reason = stop_reason
        self._position = position
        self._policy, self._skip_state = policy, skip_state
        self._seconds = 60 * minutes
        self._run_dir = run_dir
        self._clock = clock
        self._saved_at = clock()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        epoch, step = self._position.epoch, self._position.step
        is_due = self._seconds and self._clock() - self._saved_at >= self._seconds
        if self._stop.signal_name or self._stop_reason() or (is_due and step):
            self._save_at(epoch, step)
        if self._stop_reason():
            raise LimitReachedError

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._policy.saves_after(epoch):
            self._save_at(epoch + 1, 0)
        else:
            self._skip_state()

    def _save_at(self, epoch: int, step: int) -> None:
        """Saves the state; raises StoppedError if a signal was received."""
        self._save(self.model, epoch, step)
        self._saved_at = self._clock()
        if self._stop.signal_name:
            where = f"step {step} of epoch {epoch + 1}" if step else f"the end of epoch {epoch}"
            where = where if epoch or step else "the start, before the first step"
            raise StoppedError(
                f"{self._stop.signal_name}: saved at {where}; continue with --resume={self._run_dir}"
            )
