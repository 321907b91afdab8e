"""``seedtf evaluate``: flags to ``evaluate_run``, what it found in a few lines, the ``RESULT`` line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import check_ranges, option

if TYPE_CHECKING:
    from seedtf.evaluation.evaluate_run import Evaluation

__all__ = ["EvaluateConfig", "run"]


@dataclass(frozen=True)
class EvaluateConfig:
    """The run and the flags of ``seedtf evaluate``."""

    run: str = option("", "Folder of a finished run, as seedtf train printed it.")
    data_dir: str = option(
        "", "Judge this folder of class folders instead of the run's own validation images."
    )
    labels_csv: str = option("", "Table with the columns file and label, relative to data_dir.")
    tta: str = option(
        "1", "8 averages every answer over the eight turns and mirror images.", choices=("1", "8")
    )
    snapshots: bool = option(
        False, "Average the answers of all snapshots of the run rather than ask its best model."
    )
    precision_target: float = option(
        0.95, "Share of right answers wanted among those kept, 0 to 1.", low=0, high=1
    )
    batch_size: int = option(64, "Images at a time, 1 or more.", low=1)
    out: str = option(
        "", "Folder of the report; by default report in the run, or report-<name of data_dir>."
    )
    overwrite: bool = option(False, "Replace what --out holds.")

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        check_ranges(self)


def run(arguments: list[str]) -> int:
    """Writes the report, prints what it says and returns the exit code."""
    config = parse_config(EvaluateConfig, "evaluate", arguments, words=("run",))
    import_tensorflow()
    from seedtf.evaluation.evaluate_run import evaluate_run

    found = evaluate_run(
        config.run,
        data_dir=config.data_dir,
        labels_csv=config.labels_csv,
        tta=int(config.tta),
        snapshots=config.snapshots,
        precision_target=config.precision_target,
        batch_size=config.batch_size,
        out=config.out,
        overwrite=config.overwrite,
    )
    for name, text in _lines(found):
        print(f"{name:10}{text}")
    print(f"RESULT {json.dumps(_result(found))}", flush=True)
    return 0


def _lines(found: Evaluation) -> list[tuple[str, str]]:
    report, subject = found.report, found.subject
    low, high = report.accuracy_interval
    judged = "validation images" if subject.data == "validation" else f"images of {subject.data}"
    together = f", by the mean of {found.snapshots} snapshots" if found.snapshots else ""
    skipped = f", {len(subject.skipped)} could not be read" if subject.skipped else ""
    lines = [
        ("judged", f"{len(report.losses)} {judged}{together}{skipped}"),
        ("accuracy", f"{report.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"),
        ("macro-F1", f"{report.macro_f1:.4f}, loss {report.loss:.4f}"),
    ]
    if report.reliability_scaled is None:
        without = "no temperature known; run seedtf evaluate without --data_dir first"
        lines.append(("ECE", f"{report.reliability.ece:.4f}, {without}"))
    else:
        after = f"{report.reliability_scaled.ece:.4f} with temperature {report.temperature:.4f}"
        lines.append(("ECE", f"{report.reliability.ece:.4f}, {after}"))
    lines += [("reject", _reject_text(found)), ("report", str(found.page))]
    return lines


def _reject_text(found: Evaluation) -> str:
    report, rule = found.report, found.report.reject
    if rule is None:
        return f"no threshold makes {report.precision_target:.0%} of the kept answers right"
    share = rule.kept / len(report.losses)
    return (
        f"confidence below {rule.threshold:.4f}: keeps {share:.1%} of the images, "
        f"{rule.kept_correct / rule.kept:.1%} of these right"
    )


def _result(found: Evaluation) -> dict[str, object]:
    report = found.report
    return {
        "report": str(found.page),
        "images": len(report.losses),
        "snapshots": found.snapshots,
        "skipped": len(found.subject.skipped),
        "accuracy": report.accuracy,
        "accuracy_interval_95": report.accuracy_interval,
        "macro_f1": report.macro_f1,
        "loss": report.loss,
        "ece": report.reliability.ece,
        "temperature": report.temperature,
    }
