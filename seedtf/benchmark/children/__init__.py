"""Programs that benchmarks run in processes of their own, with ``python -m``.

A program writes its result to stdout, as a line of ``RESULT_PREFIX`` and JSON. The other output of a
program is shown only if there is no result. The program ``step`` writes no such line: it answers each
line of stdin with a line of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["RESULT_PREFIX", "write_result"]

RESULT_PREFIX = "MEASURED "


def write_result(value: Any) -> None:
    """Writes a measured JSON value to stdout for the parent process, and flushes."""
    sys.stdout.write(f"{RESULT_PREFIX}{json.dumps(value)}\n")
    sys.stdout.flush()
