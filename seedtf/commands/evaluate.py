"""``seedtf evaluate``: calls ``evaluate_run`` and prints its metrics and the ``RESULT`` line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.data_flags import (
    FILE_COLUMN_HELP,
    FIXES_HELP,
    LABEL_COLUMN_HELP,
    LABELS_CSV_HELP,
    LAYOUTS,
    SPLIT_COLUMN_HELP,
    check_layout,
)
from seedtf.config.flags import AUTO, Flags, option
from seedtf.report import format_count, report, report_result

if TYPE_CHECKING:
    from seedtf.evaluation.evaluate_run import Evaluation

__all__ = ["SNAPSHOTS_HELP", "TTA_HELP", "EvaluateConfig", "run"]

POSITIONALS = ("run",)

TTA_HELP = (
    "Test-time augmentation: 8 averages over the eight rotations and reflections of an image."
)
SNAPSHOTS_HELP = "Average over all snapshots of the run, instead of using its best model."


@dataclass(frozen=True)
class EvaluateConfig(Flags):
    """The run and the flags of ``seedtf evaluate``."""

    run: str = option("", "Folder of a finished run, or a .keras file in that folder.")
    data_dir: str = option(
        "",
        "Evaluate on the labelled images in this folder or archive instead of the run's own validation "
        "images.",
    )
    labels_csv: str = option("", LABELS_CSV_HELP)
    file_column: str = option("", FILE_COLUMN_HELP)
    label_column: str = option("", LABEL_COLUMN_HELP)
    split_column: str = option("", f"{SPLIT_COLUMN_HELP} Its test rows are evaluated.")
    layout: str = option(AUTO, "Layout of --data_dir, as for seedtf train.", choices=LAYOUTS)
    fixes: str = option("", FIXES_HELP)
    tta: int = option(1, TTA_HELP, choices=(1, 8))
    snapshots: bool = option(False, SNAPSHOTS_HELP)
    precision_target: float = option(
        0.95,
        "Fraction of the accepted predictions that must be correct, 0 to 1. The report chooses the "
        "confidence threshold that reaches this fraction. Predictions below the threshold are "
        "rejected.",
        low=0,
        high=1,
    )
    batch_size: int = option(64, "Images in a batch, 1 or more.", low=1)
    out: str = option(
        "",
        "Folder of the report. The default is RUN/report, or RUN/report-NAME for a --data_dir called "
        "NAME, with a suffix for each of --snapshots, --tta=8, --fixes and a .keras file as RUN.",
    )
    overwrite: bool = option(False, "Replace an existing report in --out.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other."""
        super().check_together()
        check_layout(self)


def run(arguments: list[str]) -> int:
    """Writes the report, prints its metrics and returns the exit code."""
    config = parse_config(EvaluateConfig, "evaluate", arguments, POSITIONALS)
    import_tensorflow()
    from seedtf.evaluation.evaluate_run import evaluate_run

    evaluation = evaluate_run(
        config.run,
        data_dir=config.data_dir,
        labels_csv=config.labels_csv,
        file_column=config.file_column,
        label_column=config.label_column,
        split_column=config.split_column,
        layout=config.layout,
        fixes=config.fixes,
        tta=config.tta,
        snapshots=config.snapshots,
        precision_target=config.precision_target,
        batch_size=config.batch_size,
        out=config.out,
        overwrite=config.overwrite,
    )
    for label, text in _console_lines(evaluation):
        report(label, text)
    report_result(json.dumps(_result_values(evaluation)))
    return 0


def _console_lines(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The lines for the console, each as a label and a text."""
    from seedtf.data.catalog import describe_faults
    from seedtf.evaluation.report import OUT_OF_FOLD, TEST, VALIDATION

    metrics, context = evaluation.report, evaluation.context
    low, high = metrics.accuracy_interval
    descriptions = {
        VALIDATION: "validation images",
        TEST: "test images",
        OUT_OF_FOLD: "images, each by the run that did not train on it",
    }
    description = descriptions.get(context.data, f"images of {context.data}")
    if evaluation.num_snapshots:
        description += f", by the mean of {evaluation.num_snapshots} snapshots"
    if context.skipped:
        description += f"; {format_count(len(context.skipped), 'other')} could not be used"
    lines = [
        ("evaluated", f"{len(metrics.losses)} {description}"),
        ("accuracy", f"{metrics.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"),
        ("macro-F1", f"{metrics.macro_f1:.4f}, loss {metrics.loss:.4f}"),
    ]
    if context.skipped:
        lines.insert(1, ("left out", describe_faults(context.skipped)))
    if metrics.reliability_scaled is None:
        hint = "no temperature; for a single run, seedtf evaluate without --data_dir fits one"
        lines.append(("ECE", f"{metrics.reliability.ece:.4f}, {hint}"))
    else:
        scaled = f"{metrics.reliability_scaled.ece:.4f} with temperature {metrics.temperature:.4f}"
        lines.append(("ECE", f"{metrics.reliability.ece:.4f}, {scaled}"))
    lines += [("reject", _reject_text(evaluation)), ("report", str(evaluation.page))]
    if evaluation.test is not None:
        test = evaluation.test.report
        low, high = test.accuracy_interval
        unused = "used neither for training nor to choose the best epoch"
        interval = f"95 % interval {low:.4f} to {high:.4f}"
        lines += [
            ("test", f"{format_count(len(test.losses), 'test image')}, {unused}"),
            ("accuracy", f"{test.accuracy:.4f} on the test images ({interval})"),
            ("report", str(evaluation.test.page)),
        ]
    return lines


def _reject_text(evaluation: Evaluation) -> str:
    """Which predictions are rejected, or that no threshold reaches the precision target."""
    metrics, rule = evaluation.report, evaluation.report.reject
    if rule is None:
        return (
            f"no threshold makes {metrics.precision_target:.0%} of the accepted predictions correct"
        )
    fraction = rule.kept / len(metrics.losses)
    return (
        f"a confidence below {rule.threshold:.4f}; the other {fraction:.1%} of the images are "
        f"accepted, and {rule.kept_correct / rule.kept:.1%} of these are correct"
    )


def _result_values(evaluation: Evaluation) -> dict[str, object]:
    """The values of the ``RESULT`` line; those of the test images, if any, are in ``test``."""
    metrics, test = evaluation.report, evaluation.test
    test_values = {} if test is None else {"test": _result_values(test)}
    return {
        **test_values,
        "report": str(evaluation.page),
        "images": len(metrics.losses),
        "snapshots": evaluation.num_snapshots,
        "skipped": len(evaluation.context.skipped),
        "accuracy": metrics.accuracy,
        "accuracy_interval_95": metrics.accuracy_interval,
        "macro_f1": metrics.macro_f1,
        "loss": metrics.loss,
        "ece": metrics.reliability.ece,
        "temperature": metrics.temperature,
    }
