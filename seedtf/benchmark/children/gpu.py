"""Runs one part of ``seedtf benchmark gpu``: ``python -m seedtf.benchmark.children.gpu PART``.

PART is a JSON object with the fields of ``benchmark.gpu.parts.Part``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from seedtf.benchmark.children import write_result
from seedtf.compat.tensorflow_env import import_tensorflow, write_xla_modules
from seedtf.errors import first_line

__all__ = ["find_function", "run_part"]


def find_function(path: str) -> Any:
    """The function that a part runs, from its name ``module:function`` below ``benchmark.gpu``.

    Example:
        >>> find_function("parts:list_parts").__name__
        'list_parts'
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"seedtf.benchmark.gpu.{module}"), name)


def run_part(part_json: str) -> None:
    """Runs a part, given as JSON, and writes its result; if the part fails, ``error`` with one line."""
    part = json.loads(part_json)
    write_xla_modules(os.environ["SEEDTF_PART_FOLDER"])
    import_tensorflow()
    try:
        result = find_function(part["function"])(**part["case"])
    except Exception as error:  # a part that fails must not end the benchmark
        result = {"error": f"{type(error).__name__}: {first_line(error)}"}
    write_result(result)


if __name__ == "__main__":
    run_part(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # a regular exit may hang, because libraries of the GPU wait for each other
