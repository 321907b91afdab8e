"""A range test from a ``TrainConfig``: composes the stages of a training up to the trainer."""

from __future__ import annotations

from dataclasses import replace

from seedtf.config.train_config import TrainConfig
from seedtf.data.shard import WHOLE
from seedtf.errors import UserError
from seedtf.training.batches import TrainBatches, make_order
from seedtf.training.lr_finder.finder import RangeTest, Suggestion, find_rate, suggest_rate
from seedtf.training.lr_finder.results import result_folder, write_results
from seedtf.training.setup import (
    make_network,
    open_planned,
    planned_optimizer,
    runtime_errors_as_user_errors,
    settled,
)
from seedtf.training.trainer import Trainer

__all__ = ["find_learning_rate"]

# more would measure how the network learns by heart
_MOST_EPOCHS = 3
# a step of fewer is so large a change of the rate that the averaged loss lags behind it
_FEW_STEPS = 30


def find_learning_rate(
    config: TrainConfig, *, start: float, end: float, steps: int, out_dir: str = ""
) -> Suggestion:
    """Tests rates from ``start`` to ``end`` on the batches that the training would begin with.

    On one device, with the whole network and at ``config.image_size``, whatever ``config`` says of
    devices, frozen epochs and smaller images. Prints what it does and the rate as a flag, and leaves
    lr_find.png and lr_find.csv.

    Args:
        config: every choice of the training.
        start, end: the first and the last rate, 0 < start < end.
        steps: of the test, 2 or more; three epochs' worth are taken at most.
        out_dir: folder of image and table; empty for ``runs/<date>-<time>-lr_find``.

    Raises:
        UserError: whatever the user can mend, naming the flag or file; also where the loss never fell.
    """
    _say_unused(config)
    with result_folder(out_dir) as folder:
        test, taken = _run(config, start, end, steps)
        suggestion = suggest_rate(test.rates, test.smoothed)
        title = f"{config.model}, {config.optimizer}, batches of {config.batch_size}"
        image, table = write_results(folder, test, suggestion, title=title)
    if test.ended:
        print(f"ended     after {len(test.losses)} steps: {test.ended}")
    print(f"image   {image}")
    print(f"table     {table}", flush=True)
    if suggestion is None:
        if taken < steps:
            raise UserError(
                f"--batch_size={config.batch_size}: the loss never fell in the {taken} steps that "
                f"{_MOST_EPOCHS} epochs have (see {image}); lower --batch_size"
            )
        raise UserError(
            f"--steps={steps}: the loss never fell between --start_lr={start:g} and --end_lr={end:g} "
            f"(see {image}); pass more steps or other rates"
        )
    _say_rate(test, suggestion)
    return suggestion


def _run(config: TrainConfig, start: float, end: float, steps: int) -> tuple[RangeTest, int]:
    """What was measured, and how many steps were planned for it."""
    config = settled(replace(config, strategy="none"))
    dataset, plan = open_planned(config)
    network = make_network(config, dataset, plan, weights=config.weights)
    taken = max(min(steps, _MOST_EPOCHS * plan.steps_per_epoch), 2)
    print(
        f"lr_find   {taken} steps of {config.batch_size} images with {config.optimizer}, "
        f"learning rates {start:g} to {end:g}",
        flush=True,
    )
    _warn_of_few(steps, taken)
    with runtime_errors_as_user_errors(config, dataset):
        feed = TrainBatches(config, dataset, plan)
        trainer = Trainer(network, feed.prepare(config.image_size))
        optimizer = planned_optimizer(config, plan, network, start)
        trainer.compile_for(optimizer, jit_compile=plan.compilation.enabled)
        batches = feed.batches(config.image_size, make_order(config, dataset), 0, WHOLE)
        return find_rate(trainer, batches, start=start, end=end, steps=taken), taken


def _say_unused(config: TrainConfig) -> None:
    """A flagfile made for training may say what means nothing here."""
    changed = {
        "freeze_epochs": config.freeze_epochs > 0,
        "progressive_sizes": config.progressive_sizes != "off",
        "strategy": config.strategy not in ("auto", "none"),
    }
    names = ", ".join(f"--{name}" for name, is_changed in changed.items() if is_changed)
    if names:
        size = config.image_size
        print(f"not used  {names}: tested is the whole network at {size}×{size} on one device")
    if config.run_dir:
        print("not used  --run_dir: a test leaves no run, only what goes to --out_dir")


def _warn_of_few(asked: int, taken: int) -> None:
    cut = [f"cut to {taken}, for {_MOST_EPOCHS} epochs have no more"] if taken < asked else []
    few = [f"fewer than {_FEW_STEPS} say little"] if taken < _FEW_STEPS else []
    if cut or few:
        remedy = "lower --batch_size" if cut else "pass more"
        print(f"warning   --steps={asked}: {'; '.join([*cut, *few, remedy])}", flush=True)


def _say_rate(test: RangeTest, suggestion: Suggestion) -> None:
    if test.smoothed[-1] == min(test.smoothed):
        print("warning   the loss was still falling at the end; a higher --end_lr says more")
    print(f"steepest  {suggestion.steepest:.2g}, where the loss falls fastest")
    print(f"tenth     {suggestion.tenth:.2g}, a tenth of the rate with the lowest loss")
    print("choice    the lower of both, for a rate that is too high ruins a training")
    print(f"--lr={suggestion.rate:.2g}", flush=True)
