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

from seedtf.benchmark.children import RESULT_PREFIX
from seedtf.benchmark.gpu.parts import Part
from seedtf.files import write_text

__all__ = ["read_result", "run_parts"]

_CHILD = "seedtf.benchmark.children.gpu"
# Importing TensorFlow and compiling take about this long. If less time is left, a part starts only if
# its own limit is not above the time that is left.
_MIN_SECONDS = 20.0
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
    """Runs the parts, and returns the result of each part by its name.

    Args:
        parts: the parts in the order in which they run. A part is stopped at its own time limit, or
            when the time for all parts is over.
        seconds: the time for all parts together.
        out: a JSON file that is rewritten with all results after each part; None to write no file.
        on_result: called with the name and the result of each part when the part has ended.
        command: the command that runs a part; the part is appended as a JSON argument.
        clock: a monotonic clock in seconds.

    Returns:
        The values that each part measured and its ``seconds``. The result of a part that failed or was
        stopped has ``error`` instead of values; that of a part that did not start has only ``error``.
    """
    end, results = clock() + seconds, dict[str, dict[str, Any]]()
    for part in parts:
        left = end - clock()
        if left < min(_MIN_SECONDS, part.seconds):
            error = f"not started: {max(left, 0):.0f} s were left; raise --seconds"
            result: dict[str, Any] = {"error": error}
        else:
            started = clock()
            result = _run_part(part, min(part.seconds, left), command)
            result["seconds"] = round(clock() - started, 1)
        results[part.name] = result
        on_result(part.name, result)
        if out is not None:
            write_text(out, json.dumps(results, indent=1))
    return results


def read_result(output: str) -> dict[str, Any] | None:
    """The JSON values after the last ``RESULT_PREFIX`` in the output of a part; None without one."""
    lines = [line for line in output.splitlines() if line.startswith(RESULT_PREFIX)]
    return json.loads(lines[-1].removeprefix(RESULT_PREFIX)) if lines else None


def _run_part(part: Part, seconds: float, command: Sequence[str]) -> dict[str, Any]:
    # Allocate GPU memory as it is needed, because other processes may use the card.
    defaults = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory(prefix="seedtf-gpu-") as folder:
        environment = {**defaults, **os.environ, "SEEDTF_PART_FOLDER": folder}
        try:
            completed = subprocess.run(
                [*command, json.dumps(asdict(part))],
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
    result = read_result(completed.stdout)
    if result is None:
        output = (completed.stderr or completed.stdout).strip()
        error = output or f"ended with exit code {completed.returncode}"
        return {"error": error[-_ERROR_CHARACTERS:]}
    return result
