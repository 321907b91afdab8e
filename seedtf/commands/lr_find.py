"""``seedtf lr_find``: a learning-rate range test, its picture and its table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.commands.quiet import import_tensorflow
from seedtf.errors import UserError
from seedtf.options import option
from seedtf.training.config import TrainConfig

if TYPE_CHECKING:
    from seedtf.training.rate_finder import RangeTest, Suggestion

__all__ = ["LrFindConfig", "run"]

# more would measure how the network learns by heart
_MOST_EPOCHS = 3


@dataclass(frozen=True)
class LrFindConfig(TrainConfig):
    """The flags of ``train``, so that a run's flags.txt can be tested, and those of the test."""

    start_lr: float = option(1e-7, "First learning rate, above 0.", low=1e-12, high=100.0)
    end_lr: float = option(1.0, "Last learning rate, above --start_lr.", low=1e-12, high=100.0)
    steps: int = option(
        100, "Steps from the first to the last rate, 10 to 3 epochs' worth.", low=10
    )
    out_dir: str = option(
        "", "Folder for lr_find.png and lr_find.csv; default runs/<date>-<time>-lr_find."
    )

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        super().__post_init__()
        if self.resume:
            raise UserError("--resume: a range test goes on from no run; pass --weights instead")
        if self.end_lr <= self.start_lr:
            raise UserError(
                f"--end_lr={self.end_lr:g}: is not above --start_lr={self.start_lr:g}; raise it"
            )
        if self.out_dir and (Path(self.out_dir) / "config.json").exists():
            raise UserError(f"--out_dir={self.out_dir}: is a run's folder; pass another one")


def run(arguments: list[str]) -> int:
    """Tests, writes picture and table, prints the rate as a flag and returns the exit code."""
    config = parse_config(LrFindConfig, "lr_find", arguments)
    import_tensorflow()
    from seedtf.training.range_test import run_range_test
    from seedtf.training.rate_finder import suggest_rate

    names = [each.name for each in dataclasses.fields(TrainConfig)]
    training = TrainConfig(**{name: getattr(config, name) for name in names})
    test = run_range_test(
        training,
        start=config.start_lr,
        end=config.end_lr,
        steps=config.steps,
        most_epochs=_MOST_EPOCHS,
    )
    suggestion = suggest_rate(test.rates, test.smoothed)
    folder = _write(config, test, suggestion)
    if test.ended:
        print(f"ended     after {len(test.losses)} steps: {test.ended}")
    print(f"picture   {folder / 'lr_find.png'}")
    print(f"table     {folder / 'lr_find.csv'}")
    if suggestion is None:
        raise UserError(
            f"--steps={config.steps}: the loss never fell between --start_lr={config.start_lr:g} and "
            f"--end_lr={config.end_lr:g} (see {folder / 'lr_find.png'}); pass more steps or other rates"
        )
    if test.smoothed[-1] == min(test.smoothed):
        print("warning   the loss was still falling at the end; a higher --end_lr says more")
    print(f"steepest  {suggestion.steepest:.2g}, where the loss falls fastest")
    print(f"tenth     {suggestion.tenth:.2g}, a tenth of the rate with the lowest loss")
    print("choice    the lower of both, for a rate that is too high ruins a training")
    print(f"--lr={suggestion.rate:.2g}", flush=True)
    return 0


def _write(config: LrFindConfig, test: RangeTest, suggestion: Suggestion | None) -> Path:
    from seedtf.files import csv_line, write_lines
    from seedtf.plots import save_figure
    from seedtf.training.rate_plot import draw_range_test

    folder = _folder(config.out_dir)
    rows = zip(test.rates, test.losses, test.smoothed, strict=True)
    lines = [csv_line("step", "lr", "loss", "smoothed_loss")]
    lines += [csv_line(str(n), *(repr(v) for v in row)) for n, row in enumerate(rows, 1)]
    write_lines(folder / "lr_find.csv", lines)
    title = f"{config.model}, {config.optimizer}, batches of {config.batch_size}"
    save_figure(draw_range_test(test, suggestion, title=title), folder / "lr_find.png")
    return folder


def _folder(out_dir: str) -> Path:
    """The folder, made where it is not there; a default name gets the first free number behind it."""
    import itertools
    import time

    base = Path(out_dir or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-lr_find")
    try:
        if out_dir:
            base.mkdir(parents=True, exist_ok=True)
            return base
        for number in itertools.count(1):
            folder = base if number == 1 else Path(f"{base}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(f"--out_dir={base}: {error.strerror}; pass another folder") from error
    raise AssertionError("unreachable")
