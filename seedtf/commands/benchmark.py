"""``seedtf benchmark KIND``: finds the kind of measurement and runs its module."""

from __future__ import annotations

import importlib
import sys

from seedtf.commands.arguments import suggest
from seedtf.errors import UserError

__all__ = ["KINDS", "run"]

# kind: what it measures; the code is in benchmark_<kind>.py, imported when the kind runs
KINDS = {
    "pipeline": "augmented batches a second, and what a device would leave to the host",
    "step": "milliseconds of the bare train step, beside stock Keras",
    "epoch": "seconds of an epoch of seedtf train, and where they go",
    "startup": "from the shell to the first step; the cache's cost; memory",
    "serving": "images a second and waiting time of an exported model",
}


def run(arguments: list[str]) -> int:
    """Runs one kind of benchmark and returns the exit code; exits on ``--help``."""
    if not arguments or arguments[0] in ("-h", "--help", "--helpfull", "-help"):
        lines = ["usage: seedtf benchmark KIND …", ""]
        lines += [f"  {kind:10} {text}" for kind, text in KINDS.items()]
        print("\n".join([*lines, "", "seedtf benchmark KIND --help lists its flags."]))
        sys.exit(0 if arguments else 2)
    kind = arguments[0]
    if kind not in KINDS:
        raise UserError(f"{kind!r} is not a benchmark{suggest(kind, KINDS)}; see --help")
    module = importlib.import_module(f"seedtf.commands.benchmark_{kind}")
    return int(module.run(arguments[1:]) or 0)
