"""The Keras callbacks of a run; each has one job.

``callback_list.make_callbacks`` builds the list for ``fit``. The order of the list matters, because
some callbacks read what others have written. ``Position`` is first, then come ``EpochTimer`` and
``LearningRate``, then ``HistoryLog`` and the callbacks that read its rows. ``AveragedWeights`` and
``EmaWeights`` come after the checkpoints, because at the end of an epoch they put the trained weights
back into the network. ``SaveState`` is last.

Keras's own callbacks for these purposes are not used, because a run consists of several ``fit`` calls
(frozen body, image sizes, a resumed epoch) and must resume at any step with the same numbers:

* ``EarlyStopping`` forgets its best value when a ``fit`` begins. ``ModelCheckpoint`` forgets it when a
  new process begins.
* ``BackupAndRestore`` deletes its backup when the first ``fit`` ends.
* ``CSVLogger`` cannot drop the rows of epochs that a resumed run repeats.
* ``LearningRateScheduler`` sets a rate once an epoch, not at every step.
* ``TerminateOnNaN`` does not report the files of the batch in which the loss became NaN.

On a GPU with Keras 3, and where one call of the train function runs several steps, ``fit`` gets only
``EachStep``, which calls the callbacks of the list for every step. On a GPU, ``EachStep`` reads the
metrics in a thread, so that training does not wait for the device. The other callbacks that override
``on_train_batch_end`` set ``async_safe``, because some versions of Keras 3 call this method from a
thread.
"""

from seedtf.training.callbacks.averaging import AveragedWeights, EmaWeights
from seedtf.training.callbacks.checkpoints import (
    BestCheckpoint,
    LastCheckpoint,
    LimitReachedError,
    SavePolicy,
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
    "EpochTimer",
    "HistoryLog",
    "LastCheckpoint",
    "LearningRate",
    "LimitReachedError",
    "LiveCurves",
    "Patience",
    "Position",
    "SavePolicy",
    "SaveState",
    "Snapshots",
    "StopOnNaN",
    "TimeLimit",
    "Track",
    "snapshot_epochs",
]
