"""``seedtf train``: flags to ``TrainConfig``, one call, the ``RESULT`` line."""

from __future__ import annotations

import time

from seedtf.commands.arguments import parse_given
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.train_config import TrainConfig
from seedtf.runs.paths import RunPaths
from seedtf.runs.saved_config import resumed_config

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Trains as the flags say and returns the exit code."""
    given = parse_given(TrainConfig, "train", arguments)
    resume = given.pop("resume", "")
    config = resumed_config(resume, given) if resume else TrainConfig(**given)
    import_tensorflow()
    from seedtf.training.train import forecast_training, train_and_evaluate

    if config.dry_run:
        forecast = forecast_training(config)
        print("\n".join(forecast.lines(time.time())))
        print(f"RESULT {forecast.as_json()}", flush=True)
        return 0
    result = train_and_evaluate(config)
    if not result.run_dir:  # a worker among several; the chief says how it went
        return 0
    paths = RunPaths.of(result.run_dir)
    low, high = result.val_accuracy_interval
    if result.stopped:
        print(f"stopped   {result.stopped}")
    print(
        f"best      epoch {result.best_epoch} of {result.epochs}: validation accuracy "
        f"{result.val_accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"loss {result.val_loss:.4f}"
    )
    print(f"curves    {paths.curves} and {paths.live_page}")
    print(f"model     {paths.best}")
    print(f"RESULT {result.as_json()}", flush=True)
    return 0
