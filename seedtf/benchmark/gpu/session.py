"""Runs the parts of ``seedtf benchmark gpu`` one after the other, within a number of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedtf.benchmark.children import MARK
from seedtf.benchmark.gpu.parts import Part
from seedtf.files import write_text

__all__ = ["read_result", "run_parts"]

_CHILD = "seedtf.benchmark.children.gpu"
# With less time left than this, no part is begun: it could hardly import TensorFlow and compile a step.
_LEAST_SECONDS = 20.0
_ERROR_CHARACTERS = 600


def run_parts(
    parts: Sequence[Part],
    *,
    seconds: float,
    out: Path | None = None,
    on_result: Callable[[str, dict[str, Any]], None] = lambda name, result: None,
    command: Sequence[str] = (sys.executable, "-m", _CHILD),
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, dict[str, Any]]:
    """The results by the name of the part; a part that failed has ``error`` instead of values.

    Args:
        parts: run in this order. Each may take ``part.seconds``, or what is left of ``seconds`` if that
            is less, and is stopped then.
        seconds: the time for all parts together.
        out: a JSON file that is written after each part, so that nothing is lost; None for none.
        on_result: called with the name of each part and its result.
        command: starts a process that takes a part as JSON.
        clock: a monotonic clock in seconds.
    """
    end, results = clock() + seconds, dict[str, dict[str, Any]]()
    for part in parts:
        left = end - clock()
        if left < min(_LEAST_SECONDS, part.seconds):
            error = f"not begun: {max(left, 0):.0f} s were left; raise --seconds"
            result: dict[str, Any] = {"error": error}
        else:
            started = clock()
            result = _run(part, min(part.seconds, left), command)
            result["seconds"] = round(clock() - started, 1)
        results[part.name] = result
        on_result(part.name, result)
        if out is not None:
            write_text(out, json.dumps(results, indent=1))
    return results


def read_result(output: str) -> dict[str, Any] | None:
    """The values that a part wrote behind ``MARK``, or None."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    return json.loads(lines[-1].removeprefix(MARK)) if lines else None


def _run(part: Part, seconds: float, command: Sequence[str]) -> dict[str, Any]:
    # Allocate GPU memory as it is needed, because other processes may use the card.
    defaults = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory(prefix="seedtf-gpu-") as folder:
        environment = {**defaults, **os.environ, "SEEDTF_PART_FOLDER": folder}
        try:
            done = subprocess.run(
                [*command, json.dumps(asdict(part))],
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
    found = read_result(done.stdout)
    if found is None:
        last = (done.stderr or done.stdout).strip() or f"ended with exit code {done.returncode}"
        return {"error": last[-_ERROR_CHARACTERS:]}
    return found
