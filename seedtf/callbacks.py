"""Callbacks for your own Keras script: learning-rate schedules and live curves.

They are ordinary Keras callbacks for any model, with one output or several. ``seedtf train`` computes
its learning rates and draws its curves with the same code.

Example:
    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    >>> x, y = np.zeros((8, 4)), np.zeros(8)
    >>> history = model.fit(
    ...     x, y, epochs=2, batch_size=4, verbose=0,
    ...     callbacks=[CyclicDecay(1e-3, cycle_epochs=1), LiveCurves("runs/mine")],
    ... )
    >>> [round(rate, 6) for rate in history.history["lr"]]
    [0.0005, 0.0005]
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from seedtf.errors import UserError
from seedtf.runs.paths import RunPaths
from seedtf.training.callbacks.epoch_timer import EpochTimer
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.learning_rate import LearningRate
from seedtf.training.callbacks.live_curves import LiveCurves as RunCurves
from seedtf.training.optim.schedules import make_schedule

__all__ = ["CyclicDecay", "LearningRate", "LiveCurves", "OneCycle", "SmoothDecay"]


class _FitSchedule(LearningRate):
    """Sets the learning rate by a schedule that ends with the last epoch of ``fit``."""

    _schedule_name = ""

    def __init__(
        self,
        lr: float,
        *,
        min_lr: float,
        warmup_epochs: float = 0.0,
        per_step: bool = True,
        **cycle_options: float,
    ) -> None:
        # A constant rate stands in for the schedule until ``fit`` says how many epochs there are.
        super().__init__(lambda epoch: lr, per_step=per_step)
        self._options = {
            "lr": lr,
            "min_lr": min_lr,
            "warmup_epochs": warmup_epochs,
            **cycle_options,
        }

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        super().on_train_begin(logs)
        self._schedule = make_schedule(
            self._schedule_name, epochs=self.params["epochs"], **self._options
        )


class CyclicDecay(_FitSchedule):
    """Cosine cycles, each from a peak down to ``min_lr`` (SGDR, arXiv 1608.03983).

    Each peak is ``cycle_decay`` times the one before. The last rate of an epoch is added to the logs as
    ``lr``.

    Args:
        lr: the first peak, above 0.
        cycle_epochs: the length of a cycle in epochs, above 0.
        cycle_decay: the factor from one peak to the next, in (0, 1].
        min_lr: the lowest rate after the warm-up, in [0, lr].
        warmup_epochs: the length in epochs of a linear rise at the start. It ends at the rate that the
            cycle has at that epoch. 0 means no warm-up.
        per_step: whether the rate changes at every step; if False, it changes at every epoch.
    """

    _schedule_name = "cyclic"

    def __init__(
        self,
        lr: float,
        *,
        cycle_epochs: float = 10.0,
        cycle_decay: float = 1.0,
        min_lr: float = 0.0,
        warmup_epochs: float = 0.0,
        per_step: bool = True,
    ) -> None:
        super().__init__(
            lr,
            min_lr=min_lr,
            warmup_epochs=warmup_epochs,
            per_step=per_step,
            cycle_epochs=cycle_epochs,
            cycle_decay=cycle_decay,
        )


class SmoothDecay(_FitSchedule):
    """Exponential decay from ``lr`` to ``min_lr`` over the epochs of ``fit``.

    Args:
        lr: the first rate without warm-up, above 0.
        min_lr: the last rate, in (0, lr].
        warmup_epochs: the length in epochs of a linear rise at the start. It ends at the rate that the
            decay has at that epoch. 0 means no warm-up.
        per_step: whether the rate changes at every step; if False, it changes at every epoch.
    """

    _schedule_name = "smooth"

    def __init__(
        self, lr: float, *, min_lr: float, warmup_epochs: float = 0.0, per_step: bool = True
    ) -> None:
        super().__init__(lr, min_lr=min_lr, warmup_epochs=warmup_epochs, per_step=per_step)


class OneCycle(_FitSchedule):
    """A linear rise to ``lr`` over 30 % of the steps, then a cosine to ``min_lr`` (arXiv 1708.07120).

    Args:
        lr: the peak, above 0.
        min_lr: the last rate, in [0, lr].
    """

    _schedule_name = "one_cycle"

    def __init__(self, lr: float, *, min_lr: float = 0.0) -> None:
        super().__init__(lr, min_lr=min_lr)


class LiveCurves(RunCurves):
    """Draws the curves of loss, accuracy and learning rate after each epoch, at most every 5 seconds.

    ``folder`` gets ``curves.png``, ``live.html`` (a page that reloads itself while training runs),
    ``history.csv`` and ``timing.csv``. Files of an earlier training with these names are replaced. In
    a notebook, the curves also appear below the cell, and each epoch replaces them there.

    The accuracy is the first metric whose name contains ``acc``. Without such a metric, only the loss
    and the learning rate are drawn. Pass this callback after the one that sets the learning rate.

    Args:
        folder: the folder for the files; it is created if it does not exist.
        show: whether to show the curves in a window as well, if there is a display.

    Raises:
        UserError: ``folder`` holds a run of ``seedtf train``.
    """

    _throughput_unit = "steps / s"

    def __init__(self, folder: str | os.PathLike[str], *, show: bool = False) -> None:
        paths = RunPaths(Path(folder).expanduser())
        if paths.config.exists():
            raise UserError(f"{paths.root}: is a run folder of seedtf train; pass another folder")
        paths.root.mkdir(parents=True, exist_ok=True)
        # If every step counts as one image, the timer's images per second are steps per second.
        timer = EpochTimer(images_per_step=1)
        self._history = HistoryLog(paths.history, paths.timing, timer)
        super().__init__(
            paths, self._history, title=paths.root.resolve().name, planned_lr=[], show=show
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._history.timer.on_epoch_begin(epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._history.timer.on_train_batch_end(batch)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._history.timer.on_test_begin()

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self._history.timer.on_test_end()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._history.timer.on_epoch_end(epoch)
        self._history.on_epoch_end(epoch, self._history_row(logs or {}))
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.finish()

    def _history_row(self, logs: dict[str, float]) -> dict[str, float]:
        """The values of the columns of history.csv; NaN for a value that the logs lack."""
        names = (name for name in logs if "acc" in name and not name.startswith("val_"))
        accuracy_name = next(names, "accuracy")
        rate = logs.get("lr", logs.get("learning_rate"))
        if rate is None:
            rate = float(self.model.optimizer.learning_rate)
        missing = math.nan
        return {
            "lr": rate,
            "loss": logs.get("loss", missing),
            "accuracy": logs.get(accuracy_name, missing),
            "val_loss": logs.get("val_loss", missing),
            "val_accuracy": logs.get(f"val_{accuracy_name}", missing),
        }
