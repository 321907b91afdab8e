"""``seedtf compare``: two evaluated runs on the images that both have answered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import option

__all__ = ["CompareConfig", "run"]


@dataclass(frozen=True)
class CompareConfig:
    """The two runs of ``seedtf compare``."""

    run_a: str = option("", "Folder of an evaluated run, or of one of its reports.")
    run_b: str = option("", "The same for the run to compare with it.")


def run(arguments: list[str]) -> int:
    """Prints the comparison and returns the exit code."""
    config = parse_config(CompareConfig, "compare", arguments, words=("run_a", "run_b"))
    from seedtf.evaluation.compare import compare

    found = compare(config.run_a, config.run_b)
    left_out = found.only_in_a + found.only_in_b
    low, high = found.interval
    print(f"shared      {found.shared} files" + (f", {left_out} in one only" if left_out else ""))
    print(f"A           {found.accuracy_a:.4f}  {config.run_a}")
    print(f"B           {found.accuracy_b:.4f}  {config.run_b}")
    print(
        f"right       both {found.both_right}, only A {found.only_a_right}, "
        f"only B {found.only_b_right}, neither {found.both_wrong}"
    )
    print(f"B less A    {found.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f})")
    print(f"McNemar     p = {found.mcnemar_p:.4g}")
    print(f"RESULT {json.dumps(asdict(found))}", flush=True)
    return 0
