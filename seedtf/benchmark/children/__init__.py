"""Programs that a benchmark runs in a new process each, with ``python -m``.

A child writes its result as one JSON line behind ``MARK`` to stdout; its other output is ignored.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["MARK", "write_result"]

MARK = "MEASURED "


def write_result(value: Any) -> None:
    """Writes a measured value, which JSON can represent, for the parent process; flushes."""
    sys.stdout.write(f"{MARK}{json.dumps(value)}\n")
    sys.stdout.flush()
