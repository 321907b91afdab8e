"""Whole runs of ``seedtf train``: the time of an epoch, and whether a stopped run resumes exactly."""

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

__all__ = ["epoch", "resume"]


def epoch(flags: Sequence[str]) -> dict[str, Any]:
    """The median epoch of a run with these flags; the first one, which compiles, is not counted.

    Returns:
        ``epoch_seconds``, from the start of one to the start of the next, ``images_per_second`` of the
        training alone, and ``run_seconds`` of the process.
    """
    folder = _folder() / "run"
    began = time.monotonic()
    _train([*flags, f"--run_dir={folder}"])
    rows = read_timing(RunPaths(folder).timing)[1:]
    return {
        "epoch_seconds": statistics.median(row["seconds"] + row["between"] for row in rows),
        "images_per_second": statistics.median(row["images_per_second"] for row in rows),
        "run_seconds": time.monotonic() - began,
    }


def resume(flags: Sequence[str]) -> dict[str, Any]:
    """Compares two equal runs, and one that SIGTERM stops and ``--resume`` ends, byte by byte.

    Returns:
        For ``again`` and ``resumed``: ``history`` and ``weights``, whether they are equal to those of
        the first run. ``ok`` if all are.
    """
    root = _folder()
    first, again, cut = (root / name for name in ("first", "again", "cut"))
    for run in (first, again):
        _train([*flags, f"--run_dir={run}"])
    _stop_after_an_epoch([*flags, f"--run_dir={cut}"], RunPaths(cut).history)
    _train([f"--resume={cut}"])
    expected, wanted = RunPaths(first).history.read_bytes(), _weights(first)
    found: dict[str, Any] = {}
    for name, run in (("again", again), ("resumed", cut)):
        weights = _weights(run)
        found[name] = {
            "history": RunPaths(run).history.read_bytes() == expected,
            "weights": all(np.array_equal(a, b) for a, b in zip(weights, wanted, strict=True)),
        }
    found["ok"] = all(all(each.values()) for each in found.values())
    return found


def _folder() -> Path:
    return Path(os.environ["SEEDTF_PART_FOLDER"])


def _command(flags: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "seedtf", "train", *flags]


def _train(flags: Sequence[str]) -> None:
    done = subprocess.run(_command(flags), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"seedtf train ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _stop_after_an_epoch(flags: Sequence[str], history: Path) -> None:
    """Starts a run and stops it within its second epoch."""
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(_command(flags), stdout=nowhere, stderr=nowhere) as process:
        while process.poll() is None:
            if history.exists() and history.read_text(encoding="utf-8").count("\n") > 1:
                process.send_signal(signal.SIGTERM)
                return
            time.sleep(0.05)
    raise UserError(f"seedtf train ended with {process.returncode} before its second epoch")


def _weights(run: Path) -> list[np.ndarray]:
    state, _ = load_newest_state(RunPaths(run).state)
    return state.arrays["weights"] if state else []
