"""Runs ``seedtf train`` as from a shell, and measures it from within the process.

    python -m seedtf.benchmark.children.train first_step|memory FLAGS...

``first_step`` writes the wall-clock time (``time.time()``) at the end of the first training step and
ends the process. ``memory`` trains to the end, then writes a list: the resident memory in bytes at the
start of each epoch. Either measurement replaces a method of ``EpochTimer``, a callback of every run.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

from seedtf.benchmark.children import write_result
from seedtf.compat.tensorflow_env import import_tensorflow

if TYPE_CHECKING:
    from seedtf.training.callbacks.epoch_timer import EpochTimer

Logs = dict[str, float] | None


def stop_after_first_step() -> None:
    """Replaces a callback method, so that the first step writes the time and ends the process."""

    def on_train_batch_end(self: EpochTimer, batch: int, logs: Logs = None) -> None:
        write_result(time.time())
        os._exit(0)

    _replace_method(on_train_batch_end)


def record_memory() -> list[int]:
    """Replaces a callback method, so that each epoch adds the resident memory to a list.

    Returns:
        The list, with the bytes at the start of each epoch. It is empty until the training begins.
    """
    sizes: list[int] = []
    process = psutil.Process()

    def on_epoch_begin(self: EpochTimer, epoch: int, logs: Logs = None) -> None:
        sizes.append(process.memory_info().rss)
        original(self, epoch, logs)

    original = _replace_method(on_epoch_begin)
    return sizes


def _replace_method(replacement: Any) -> Any:
    """Replaces the method of ``EpochTimer`` that has this name, and returns the original method."""
    import_tensorflow()  # first, because it sets the environment variables of ``seedtf train``
    from seedtf.training.callbacks.epoch_timer import EpochTimer  # noqa: PLC0415

    # This lookup fails if EpochTimer only inherits the method, which might be called at another time.
    original = EpochTimer.__dict__[replacement.__name__]
    setattr(EpochTimer, replacement.__name__, replacement)
    return original


def main(measure: str, *flags: str) -> None:
    """Trains with ``flags``, and exits with the code of ``seedtf train``."""
    sizes: list[int] = []
    if measure == "first_step":
        stop_after_first_step()
    else:
        sizes = record_memory()
    sys.argv = ["seedtf", "train", *flags]
    try:
        runpy.run_module("seedtf", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    write_result(sizes)


if __name__ == "__main__":
    main(*sys.argv[1:])
