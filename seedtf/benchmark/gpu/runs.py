"""Measures epochs of ``seedtf train``, and compares a resumed run with uninterrupted runs."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seedtf.errors import UserError
from seedtf.runs.history import read_timing
from seedtf.runs.paths import RunPaths
from seedtf.training.state import load_newest_state

__all__ = ["check_resume", "measure_epoch"]


def measure_epoch(flags: Sequence[str]) -> dict[str, Any]:
    """Measures a run of ``seedtf train`` with ``flags``.

    Returns:
        ``epoch_seconds``: the median time of an epoch, from the end of the previous epoch to its own.
        ``images_per_second``: the median of an epoch's training images divided by the time of its
        training, without validation. The first epoch, which compiles, does not count for either median.
        ``run_seconds``: the time of the whole process.
    """
    folder = _part_folder() / "run"
    began = time.monotonic()
    _train([*flags, f"--run_dir={folder}"])
    rows = read_timing(RunPaths(folder).timing)[1:]
    return {
        "epoch_seconds": statistics.median(row["seconds"] + row["between"] for row in rows),
        "images_per_second": statistics.median(row["images_per_second"] for row in rows),
        "run_seconds": time.monotonic() - began,
    }


def check_resume(flags: Sequence[str]) -> dict[str, Any]:
    """Compares three runs with the same flags: ``first``, ``again``, and ``resumed``.

    The run ``resumed`` is stopped by SIGTERM in its second epoch, and then resumed.

    Returns:
        ``again`` and ``resumed``: for each of these two runs, whether its ``history`` has the same
        bytes as the run ``first``, and whether its ``weights`` are the same numbers. ``ok``: whether
        everything is the same.
    """
    root = _part_folder()
    first, again, resumed = (root / name for name in ("first", "again", "resumed"))
    for run in (first, again):
        _train([*flags, f"--run_dir={run}"])
    _stop_in_second_epoch([*flags, f"--run_dir={resumed}"], RunPaths(resumed).history)
    _train([f"--resume={resumed}"])
    expected_history, expected_weights = RunPaths(first).history.read_bytes(), _read_weights(first)
    result: dict[str, Any] = {}
    for name, run in (("again", again), ("resumed", resumed)):
        pairs = zip(_read_weights(run), expected_weights, strict=True)
        result[name] = {
            "history": RunPaths(run).history.read_bytes() == expected_history,
            "weights": all(np.array_equal(actual, expected) for actual, expected in pairs),
        }
    result["ok"] = all(all(equal.values()) for equal in result.values())
    return result


def _part_folder() -> Path:
    """The temporary folder that the benchmark makes for this part."""
    return Path(os.environ["SEEDTF_PART_FOLDER"])


def _command(flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "seedtf", "train", *flags]


def _train(flags: Sequence[str]) -> None:
    completed = subprocess.run(_command(flags), capture_output=True, text=True, check=False)
    if completed.returncode:
        raise UserError(
            f"seedtf train ended with exit code {completed.returncode}: "
            f"{completed.stderr.strip()[-300:]}"
        )


def _stop_in_second_epoch(flags: Sequence[str], history: Path) -> None:
    """Starts a run, and stops it with SIGTERM when its history has the row of the first epoch."""
    null = subprocess.DEVNULL
    with subprocess.Popen(_command(flags), stdout=null, stderr=null) as process:
        while process.poll() is None:
            if history.exists() and history.read_text(encoding="utf-8").count("\n") > 1:
                process.send_signal(signal.SIGTERM)
                return
            time.sleep(0.05)
    raise UserError(
        f"seedtf train ended with exit code {process.returncode} before its second epoch"
    )


def _read_weights(run: Path) -> list[np.ndarray]:
    state, _ = load_newest_state(RunPaths(run).state)
    if state is None:
        raise UserError(f"{run}: has no state, so its weights cannot be compared")
    return state.arrays["weights"]
