"""Runs steps of one variant of the train step, as many as each line of stdin says.

    python -m seedtf.benchmark.children.step VARIANT

VARIANT is a JSON object with the fields of ``benchmark.step.Variant``. For each line of stdin, the
process writes a JSON list with a pair [wall-clock seconds, CPU seconds] for each step. If the variant
cannot be built, the process writes the reason as a JSON string, and ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from seedtf.benchmark.step import Variant, make_step
from seedtf.errors import UserError

__all__ = ["worker_loop", "worker_main"]


def worker_main(variant_json: str) -> None:
    """Builds a variant, given as JSON, and runs the steps that the parent process requests."""
    try:
        step = make_step(Variant(**json.loads(variant_json)))
    except UserError as error:
        _write(str(error))
        return
    worker_loop(step)


def worker_loop(step: Callable[[], object]) -> None:
    """For each number on a line of stdin, calls ``step`` that many times and writes the durations."""
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        _write(times)


def _write(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    worker_main(sys.argv[1])
