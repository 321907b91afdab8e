"""``seedtf benchmark epoch``: times real epochs of ``seedtf train`` and shows where the time goes."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from typing import ClassVar

from seedtf.commands.arguments import check_refused, parse_config, to_base_class
from seedtf.commands.benchmark import print_benchmark
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import option
from seedtf.config.train_config import TrainConfig

__all__ = ["EpochConfig", "run"]

_PARTS = {
    "step": "bare train steps on a constant batch",
    "wait": "waiting for data",
    "loop": "the rest of training: callbacks at every step, other work on the same cores",
    "validation": "validation",
    "callbacks": "callbacks between epochs: copies for checkpoint and training state, curves",
}
_HOST_STAGES = {
    "read": "reading decoded images",
    "decode": "decoding, {often}",
    "augment": "augmentation",
}


@dataclass(frozen=True)
class EpochConfig(TrainConfig):
    """``--json``, and the flags of ``train`` except ``REFUSED``; two of them have other defaults."""

    REFUSED: ClassVar[dict[str, str]] = {
        "run_dir": "the benchmark trains in a temporary folder; leave it out",
        "resume": "the benchmark trains a new run; leave it out",
        "continue_from": "the benchmark trains a new run; pass --weights and --split_csv instead",
        "dry_run": "a dry run does not train, so it has no epochs to measure; leave it out",
        "patience": "may end the training before all epochs are measured; leave it out or pass 0",
        "time_limit": "may end the training before all epochs are measured; leave it out or pass 0",
    }

    epochs: int = option(
        3,
        "Epochs to measure, 1 or more. One more is trained before them and one after them.",
        low=1,
    )
    weights: str = option(
        "none",
        "Initial weights: none (random), imagenet (downloaded), or the path of a .keras or .h5 file.",
    )
    json: bool = option(False, "Print one JSON object instead of the table.")

    def check_together(self) -> None:
        """Raises UserError for flags that exclude each other and for flags that do not apply."""
        super().check_together()
        check_refused(self)


def run(arguments: list[str]) -> int:
    """Measures, prints the table and returns the exit code."""
    flags = parse_config(EpochConfig, "benchmark epoch", arguments)
    import_tensorflow()
    from seedtf.benchmark.epoch import ORIGINAL_CARD, ORIGINAL_SECONDS, best_flag, measure_epoch
    from seedtf.runs.records import describe_devices

    # What the training prints goes to stderr, so that stdout has only the result.
    with contextlib.redirect_stdout(sys.stderr):
        epoch = measure_epoch(to_base_class(flags, TrainConfig))
    result = {
        **dataclasses.asdict(epoch),
        "training_ratio": epoch.training_ratio,
        "original_seconds": ORIGINAL_SECONDS,
        "original_card": ORIGINAL_CARD,
        "devices": describe_devices(),
        "flag": best_flag(epoch),
    }
    how_often = "in every epoch" if epoch.decodes_every_epoch else "at most once in a run"
    seconds_of_parts = [(getattr(epoch, name), text) for name, text in _PARTS.items()]
    table = [
        f"epoch     {epoch.seconds:.2f} s on {result['devices']}: median of {epoch.epochs}, "
        f"{epoch.images} images in {epoch.steps} steps",
        f"original  {ORIGINAL_SECONDS:.0f} s on a {ORIGINAL_CARD}, for an epoch of the Kaggle solution",
        *(
            f"{seconds:10.2f} s {seconds / epoch.seconds:6.1%}  {text}"
            for seconds, text in seconds_of_parts
        ),
        "stages that overlap with training, each timed alone on all cores:",
        *(
            f"{getattr(epoch, name):10.2f} s         {text.format(often=how_often)}"
            for name, text in _HOST_STAGES.items()
        ),
        f"ratio     {epoch.training_ratio:.3f}: epoch without validation, relative to the bare steps",
        f"flag      {result['flag']}",
    ]
    print_benchmark(result, table, as_json=flags.json)
    return 0
