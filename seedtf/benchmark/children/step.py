"""Builds one variant of the train step, then takes as many steps as each line of stdin requests.

    python -m seedtf.benchmark.children.step VARIANT

VARIANT is a JSON object of the fields of ``benchmark.step.Variant``. For each line, a number of
steps, the process writes a JSON list of [wall seconds, CPU seconds], one pair per step. If the variant
cannot be built it writes a JSON string, the reason, and ends.
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


def worker_main(variant: str) -> None:
    """Builds the step of a variant and takes the steps that the parent process requests."""
    try:
        step = make_step(Variant(**json.loads(variant)))
    except UserError as error:
        _write(str(error))
        return
    worker_loop(step)


def worker_loop(step: Callable[[], object]) -> None:
    """Calls ``step`` as often as each line of stdin says and writes the times of these calls."""
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
