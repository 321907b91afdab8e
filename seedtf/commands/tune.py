"""``seedtf tune``: searches for better values of training flags; each trial runs ``seedtf train``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seedtf.commands.arguments import (
    check_one_machine,
    check_refused,
    parse_given_flags,
    to_base_class,
)
from seedtf.config.data_flags import CACHES
from seedtf.config.flags import option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.tuning.space import SEARCHABLE, SEARCHED_BY_DEFAULT, choose_space
from seedtf.tuning.storage import PRUNERS

__all__ = ["TuneConfig", "run"]

_ONLY_IF_NAMED = ", ".join(name for name in SEARCHABLE if name not in SEARCHED_BY_DEFAULT)


@dataclass(frozen=True)
class TuneConfig(TrainConfig):
    """The flags of the search, and those of ``train`` except ``REFUSED``, which apply to all trials."""

    REFUSED: ClassVar[dict[str, str]] = {
        "resume": "the same command continues a search; leave it out",
        "run_dir": "each trial has its own folder; pass --out",
        "continue_from": "each trial is a new run; pass --weights and --split_csv instead",
        "dry_run": "a dry run does not train, so trials cannot be compared; leave it out",
    }

    cache: str = option(
        "disk",
        "As in seedtf train; with disk the images are decoded once for all trials.",
        choices=CACHES,
    )
    trials: int = option(
        30, "Number of trials, counting pruned ones but not failed ones, 1 or more.", low=1
    )
    search: str = option(
        "",
        f"Flags to search, separated by commas. By default, {', '.join(SEARCHED_BY_DEFAULT)} are "
        f"searched, except those that the command line sets. Other possible flags: {_ONLY_IF_NAMED}.",
    )
    study: str = option(
        "tune",
        "Name of the search in its storage. A command with the same name continues the search.",
    )
    storage: str = option(
        "",
        "Database URL of the search, such as postgresql://user@host/name, for a search on several "
        "machines. By default, the search is stored in a SQLite file in --out.",
    )
    out: str = option(
        "",
        "Folder of the trials and results; default runs/tune-<study>.",
        old_name="tune_dir",
    )
    pruner: str = option(
        "median",
        "Which trials end early: those that are worse than the median of the other trials at the same "
        "epoch (median), those that Hyperband stops (hyperband), or none.",
        choices=PRUNERS,
    )
    keep_models: bool = option(
        False, "Keep the models of all trials, not only that of the best one."
    )

    def check_together(self) -> None:
        """Raises UserError for flags that are invalid, do not fit together or do not apply."""
        super().check_together()
        check_refused(self)
        check_one_machine(
            self.strategy,
            self.cluster,
            "a trial runs on one machine; start the search on every machine with the same --storage",
        )
        if not self.study.strip():
            raise UserError(f"--study={self.study!r}: is empty; pass a name")
        if not self.storage and "?" in str(self.folder.resolve()):
            raise UserError(f"--out={self.folder}: SQLite does not support ? in a path; rename it")

    @property
    def folder(self) -> Path:
        """The value of ``--out``, or its default, which contains the name of the study."""
        name = re.sub(r"[^\w.-]+", "_", self.study)
        return Path(self.out or f"runs/tune-{name}")


def run(arguments: list[str]) -> int:
    """Runs the search and returns the exit code."""
    given = parse_given_flags(TuneConfig, "tune", arguments)
    config = TuneConfig(**given)
    train_config = to_base_class(config, TrainConfig)
    from seedtf.compat.keras import KERAS_2

    space = choose_space(config.search, set(given), train_config, keras_2=KERAS_2)
    from seedtf.tuning.search import SearchSettings, search

    search(
        SearchSettings(
            config=train_config,
            space=space,
            trials=config.trials,
            study=config.study,
            storage=config.storage,
            tune_dir=config.folder,
            pruner=config.pruner,
            keep_models=config.keep_models,
        )
    )
    return 0
