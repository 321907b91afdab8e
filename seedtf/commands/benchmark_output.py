"""How every ``seedtf benchmark`` answers: a table and the ``RESULT`` line, or one JSON object alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["print_benchmark"]


def print_benchmark(result: Mapping[str, Any], table: Iterable[str], *, as_json: bool) -> None:
    """Prints ``result``, JSON values, for programs, and before it the lines of ``table`` for people.

    ``as_json`` leaves the table and the word ``RESULT`` out.
    """
    if as_json:
        print(json.dumps(result))
        return
    for line in table:
        print(line)
    print(f"RESULT {json.dumps(result)}", flush=True)
