"""Runs one part of ``seedtf benchmark gpu``: ``python -m seedtf.benchmark.children.gpu PART``.

PART is a JSON object of the fields of ``benchmark.gpu.parts.Part``.
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

__all__ = ["find_work", "run_part"]


def find_work(function: str) -> Any:
    """The function that ``Part.function`` names: ``module:name``, below ``seedtf.benchmark.gpu``.

    Example:
        >>> find_work("parts:list_parts").__name__
        'list_parts'
    """
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(f"seedtf.benchmark.gpu.{module}"), name)


def run_part(text: str) -> None:
    """Runs the part and writes its values, or ``error`` in one line if it fails."""
    part = json.loads(text)
    write_xla_modules(os.environ["SEEDTF_PART_FOLDER"])
    import_tensorflow()
    try:
        found = find_work(part["function"])(**part["case"])
    except Exception as error:  # one part must not hide the others
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    write_result(found)


if __name__ == "__main__":
    run_part(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # some libraries of a GPU wait for each other when a process ends
