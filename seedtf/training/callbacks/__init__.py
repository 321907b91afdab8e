"""Keras callbacks, one job each.

``callback_list.make_callbacks`` builds the list for ``fit``. Its order matters where one callback reads
what another wrote: ``Position`` is first, then come ``EpochTimer`` and ``LearningRate``, then
``HistoryLog`` and those that read its rows. ``AveragedWeights`` and ``EmaWeights`` come after the
checkpoints, because at the end of an epoch they put the trained weights back. ``SaveState`` is last.

Keras has callbacks for the same purposes. They are not used because a run consists of several ``fit``
calls (frozen body, image sizes, a resumed epoch) and must resume at any step with the same numbers:
``EarlyStopping`` forgets its best value with every ``fit``, ``ModelCheckpoint`` with every process;
``BackupAndRestore`` deletes its backup when the first ``fit`` ends; ``CSVLogger`` cannot drop the rows
of epochs that a resumed run repeats; ``LearningRateScheduler`` knows epochs but no steps; and
``TerminateOnNaN`` does not report which batch was at fault.

On a GPU, ``EachStep`` is the only callback that Keras calls: it gives the others every step, with
metrics that a thread has read, so that training does not wait for the device. Callbacks that override
``on_train_batch_end`` set ``async_safe``: some versions of Keras 3 call these from threads too.
"""

from seedtf.training.callbacks.averaging import AveragedWeights, EmaWeights
from seedtf.training.callbacks.checkpoints import (
    BestCheckpoint,
    EpochEnds,
    LastCheckpoint,
    LimitReachedError,
    SaveState,
    Snapshots,
    snapshot_epochs,
)
from seedtf.training.callbacks.console_line import ConsoleLine
from seedtf.training.callbacks.each_step import EachStep
from seedtf.training.callbacks.epoch_timer import EpochTimer
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.learning_rate import AugmentStrength, LearningRate
from seedtf.training.callbacks.live_curves import AfterFirstStep, LiveCurves
from seedtf.training.callbacks.position import Position
from seedtf.training.callbacks.stopping import Patience, StopOnNaN, TimeLimit
from seedtf.training.callbacks.tracking import Track

__all__ = [
    "AfterFirstStep",
    "AugmentStrength",
    "AveragedWeights",
    "BestCheckpoint",
    "ConsoleLine",
    "EachStep",
    "EmaWeights",
    "EpochEnds",
    "EpochTimer",
    "HistoryLog",
    "LastCheckpoint",
    "LearningRate",
    "LimitReachedError",
    "LiveCurves",
    "Patience",
    "Position",
    "SaveState",
    "Snapshots",
    "StopOnNaN",
    "TimeLimit",
    "Track",
    "snapshot_epochs",
]
