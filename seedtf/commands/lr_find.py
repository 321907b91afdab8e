"""``seedtf lr_find``: the learning-rate finder, with its plot and its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from seedtf.commands.arguments import check_refused, parse_config, to_base_class
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.paths import RunPaths

__all__ = ["LrFindConfig", "run"]


@dataclass(frozen=True)
class LrFindConfig(TrainConfig):
    """The flags of ``lr_find``, and those of ``train``, so that the flags.txt of a run can be passed.

    A flag in ``REFUSED`` is accepted only if its value is empty, false or 0.
    """

    REFUSED: ClassVar[dict[str, str]] = {
        "resume": "lr_find does not resume a run; pass --weights instead",
        "continue_from": "lr_find does not make a run; pass --weights and --split_csv instead",
        "dry_run": "lr_find has no dry run; leave it out",
    }

    start_lr: float = option(1e-7, "First learning rate, above 0.", low=1e-12, high=100.0)
    end_lr: float = option(1.0, "Last learning rate, above --start_lr.", low=1e-12, high=100.0)
    steps: int = option(
        100,
        "Steps from the first to the last rate, 10 or more; at most the steps of three epochs.",
        low=10,
    )
    out: str = option(
        "",
        "Folder for lr_find.png and lr_find.csv; default runs/<date>-<time>-lr_find.",
        old_name="out_dir",
    )

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid, do not fit together or do not apply."""
        super().check_together()
        check_refused(self)
        if self.end_lr <= self.start_lr:
            raise UserError(
                f"--end_lr={self.end_lr:g}: is not above --start_lr={self.start_lr:g}; raise it"
            )
        if self.out and RunPaths.of(self.out).config.exists():
            raise UserError(f"--out={self.out}: is the folder of a run; pass another one")


def run(arguments: list[str]) -> int:
    """Writes the plot and the table, prints the suggested rate, and returns the exit code."""
    config = parse_config(LrFindConfig, "lr_find", arguments)
    import_tensorflow()
    from seedtf.training.lr_finder.run import find_learning_rate

    find_learning_rate(
        to_base_class(config, TrainConfig),
        start=config.start_lr,
        end=config.end_lr,
        steps=config.steps,
        out=config.out,
    )
    return 0
