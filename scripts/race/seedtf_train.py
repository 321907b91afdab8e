"""Runs ``seedtf train FLAGS…`` and writes to OUT/first_step the time at which the first step ended.

python seedtf_train.py OUT FLAGS…
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from race_runner import write_first_step

from seedtf.compat.tensorflow_env import import_tensorflow

import_tensorflow()
from seedtf.training.callbacks.epoch_timer import EpochTimer  # noqa: E402

OUT = Path(sys.argv[1])
ORIGINAL = EpochTimer.on_train_batch_end


def on_train_batch_end(self: EpochTimer, *args: Any, **kwargs: Any) -> None:
    """Writes the time after the first step, then puts the original method back."""
    write_first_step(OUT)
    EpochTimer.on_train_batch_end = ORIGINAL  # type: ignore[method-assign]
    ORIGINAL(self, *args, **kwargs)


EpochTimer.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
sys.argv = ["seedtf", "train", *sys.argv[2:]]
runpy.run_module("seedtf", run_name="__main__")
