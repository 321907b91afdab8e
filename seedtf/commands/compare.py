"""``seedtf compare``: compares two evaluated runs on the images that both have predicted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from seedtf.commands.arguments import parse_config
from seedtf.config.flags import Flags, option
from seedtf.report import format_count, report, report_result

__all__ = ["CompareConfig", "run"]

POSITIONALS = ("run_a", "run_b")


@dataclass(frozen=True)
class CompareConfig(Flags):
    """The two runs of ``seedtf compare``."""

    run_a: str = option("", "Folder of an evaluated run, or of one of its reports.")
    run_b: str = option("", "Folder of the second evaluated run, or of one of its reports.")


def run(arguments: list[str]) -> int:
    """Prints the comparison and returns the exit code."""
    config = parse_config(CompareConfig, "compare", arguments, POSITIONALS)
    from seedtf.evaluation.compare import compare

    comparison = compare(config.run_a, config.run_b)
    unshared = comparison.only_in_a + comparison.only_in_b
    low, high = comparison.interval
    left_out = [f"{unshared} in only one of the runs"] if unshared else []
    if comparison.relabelled:
        left_out.append(f"{comparison.relabelled} that --fixes relabelled")
    notes = f"; not compared: {', '.join(left_out)}" if left_out else ""
    report("shared", f"{format_count(comparison.shared, 'file')}{notes}")
    report("A", f"{comparison.accuracy_a:.4f}  {config.run_a}")
    report("B", f"{comparison.accuracy_b:.4f}  {config.run_b}")
    report(
        "correct",
        f"both {comparison.both_right}, only A {comparison.only_a_right}, "
        f"only B {comparison.only_b_right}, neither {comparison.both_wrong}",
    )
    report("B minus A", f"{comparison.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f})")
    report("McNemar", f"p = {comparison.mcnemar_p:.4g}")
    report_result(json.dumps(asdict(comparison)))
    return 0
