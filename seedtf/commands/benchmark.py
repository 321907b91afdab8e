"""``seedtf benchmark KIND``: runs one kind of measurement."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from seedtf.commands.arguments import HELP_FLAGS, suggest
from seedtf.errors import UserError
from seedtf.report import report_result, report_text

__all__ = ["KINDS", "print_benchmark", "run"]

# What each kind measures. The code of a kind is in benchmark_<kind>.py, imported when the kind runs.
KINDS = {
    "pipeline": "images per second of the pipeline, with and without augmentation",
    "step": "milliseconds of the train step alone, compared with plain Keras",
    "epoch": "seconds of an epoch of seedtf train, and of each part of the epoch",
    "startup": "time from shell to first step, time to build the cache, memory",
    "gpu": "whether the results equal those of a CPU, and how fast the GPU is",
    "serving": "images per second and latency of an exported model",
}


def run(arguments: list[str]) -> int:
    """Runs one kind of benchmark and returns the exit code.

    With ``--help`` or without a kind, prints the kinds and exits.
    """
    if not arguments or arguments[0] in HELP_FLAGS:
        lines = ["usage: seedtf benchmark KIND …", ""]
        lines += [f"  {kind:10} {text}" for kind, text in KINDS.items()]
        report_text("\n".join([*lines, "", "seedtf benchmark KIND --help lists its flags."]))
        sys.exit(0 if arguments else 2)
    kind = arguments[0]
    if kind not in KINDS:
        raise UserError(f"{kind!r} is not a benchmark{suggest(kind, KINDS)}; see --help")
    module = importlib.import_module(f"seedtf.commands.benchmark_{kind}")
    return int(module.run(arguments[1:]) or 0)


def print_benchmark(result: Mapping[str, Any], table: Iterable[str], *, as_json: bool) -> None:
    """Prints ``table`` for people, then ``result`` for programs, as one line ``RESULT {…}``.

    Args:
        result: the measurements, as JSON values.
        table: the lines of a table with the same measurements.
        as_json: whether to print only the JSON object, without the word ``RESULT``.
    """
    if as_json:
        report_text(json.dumps(result))
        return
    for line in table:
        report_text(line)
    report_result(json.dumps(result))
