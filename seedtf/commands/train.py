"""``seedtf train``: trains with the flags, and prints the result as text, then as a ``RESULT`` line."""

from __future__ import annotations

import shlex
import time

from seedtf.commands.arguments import parse_given_flags
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.train_config import TrainConfig
from seedtf.report import report, report_result
from seedtf.runs.paths import RunPaths
from seedtf.runs.saved_config import continued_config, resumed_config

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Trains with the given flags and returns the exit code."""
    given = parse_given_flags(TrainConfig, "train", arguments)
    resume = given.pop("resume", "")
    if resume:
        config = resumed_config(resume, given)
    elif given.get("continue_from"):
        config = continued_config(given["continue_from"], given)
    else:
        config = TrainConfig(**given)
    import_tensorflow()
    from seedtf.training.train import forecast_training, train_and_evaluate

    if config.dry_run:
        forecast = forecast_training(config)
        for label, text in forecast.lines(time.time()):
            report(label, text)
        report_result(forecast.as_json())
        return 0
    result = train_and_evaluate(config)
    if not result.run_dir:  # this is a worker, and the chief reports the result
        return 0
    paths = RunPaths.of(result.run_dir)
    low, high = result.val_accuracy_interval
    if result.stopped:
        report("stopped", result.stopped)
    report(
        "best",
        f"epoch {result.best_epoch} of {result.epochs}: validation accuracy "
        f"{result.val_accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"loss {result.val_loss:.4f}",
    )
    report("curves", f"{paths.curves} and {paths.live_page}")
    report("model", str(paths.best))
    for number, command in enumerate(_next_commands(result.run_dir)):
        report("" if number else "next", command)
    report_result(result.as_json())
    return 0


def _next_commands(run_dir: str) -> list[str]:
    """The commands that a user may run next, quoted for the shell."""
    run = shlex.quote(run_dir)
    return [
        f"seedtf evaluate {run}",
        f"seedtf predict {run} IMAGES --out=predictions.csv",
        f"seedtf export {run}",
    ]
