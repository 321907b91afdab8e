"""Keras callbacks, one job each.

Order matters where one reads what another wrote: ``EpochTimer`` and ``LearningRate`` first, then
``HistoryLog``, then ``ConsoleLine``, ``LiveCurves`` and the rest in any order.

Those that look at every batch set ``async_safe``: Keras 3 then reads a step's numbers in a thread of
its own instead of making the training loop wait for the device. Keras 2 ignores it.
"""

from seedtf.training.callbacks.after_first_step import AfterFirstStep
from seedtf.training.callbacks.averaged_weights import AveragedWeights
from seedtf.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from seedtf.training.callbacks.console_line import ConsoleLine
from seedtf.training.callbacks.ema_weights import EmaWeights
from seedtf.training.callbacks.epoch_timer import EpochTimer
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.learning_rate import LearningRate
from seedtf.training.callbacks.live_curves import LiveCurves
from seedtf.training.callbacks.patience import Patience
from seedtf.training.callbacks.save_state import LimitReachedError, SaveState
from seedtf.training.callbacks.snapshots import Snapshots, snapshot_epochs
from seedtf.training.callbacks.stop_on_nan import StopOnNaN
from seedtf.training.callbacks.tensorboard import tensorboard_callback
from seedtf.training.callbacks.time_limit import TimeLimit

__all__ = [
    "AfterFirstStep",
    "AveragedWeights",
    "BestCheckpoint",
    "ConsoleLine",
    "EmaWeights",
    "EpochTimer",
    "HistoryLog",
    "LastCheckpoint",
    "LearningRate",
    "LimitReachedError",
    "LiveCurves",
    "Patience",
    "SaveState",
    "Snapshots",
    "StopOnNaN",
    "TimeLimit",
    "snapshot_epochs",
    "tensorboard_callback",
]
