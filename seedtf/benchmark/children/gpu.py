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


def find_function(function: str) -> Any:
    """The function that ``Part.function`` names: ``module:name``, below ``seedtf.benchmark.gpu``.

    Example:
        >>> find_function("parts:list_parts").__name__
        'list_parts'
    """
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(f"seedtf.benchmark.gpu.{module}"), name)


def run_part(part_json: str) -> None:
    """Runs a part, given as JSON, and writes its values, or ``error`` with one line if it fails."""
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
    os._exit(0)  # in a regular exit, libraries of a GPU may wait for each other forever
