"""``seedtf lr_find``: sweeps the learning rate for a ``TrainConfig``, and writes plot and table."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from seedtf.config.network_flags import FITTED_HEAD
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines
from seedtf.model.families import short_name
from seedtf.plots.base import save_figure
from seedtf.plots.lr_finder import draw_lr_sweep
from seedtf.report import report, warn
from seedtf.runs.folder import create_named_folder, resolve_weights
from seedtf.runs.paths import RUNS
from seedtf.runs.presets import resolve_preset
from seedtf.training.batches import TrainBatches
from seedtf.training.fitted_head import start_from_fitted_head
from seedtf.training.lr_finder.finder import LRSuggestion, LRSweep, suggest_lr, sweep_lr
from seedtf.training.machine import inspect_machine
from seedtf.training.plan import make_plan
from seedtf.training.resolve import resolve
from seedtf.training.setup import (
    configure_tensorflow,
    load_training_data,
    make_network,
    make_phase_optimizer,
    runtime_errors_as_user_errors,
    seed_and_set_precision,
)
from seedtf.training.trainer import Trainer

__all__ = ["find_learning_rate"]

# A sweep over more epochs would measure how well the network memorizes the images.
_MAX_EPOCHS = 3
# With fewer steps, the rate rises so fast that the smoothed loss lags behind it.
_FEW_STEPS = 30


def find_learning_rate(
    config: TrainConfig, *, start: float = 1e-7, end: float = 1.0, steps: int = 100, out: str = ""
) -> LRSuggestion:
    """Suggests a learning rate, from a sweep of the rate over the first batches of a training.

    The sweep runs on one device and trains the whole network on images of ``config.image_size``, so
    ``strategy``, ``freeze_epochs`` and ``progressive_sizes`` have no effect. The suggested rate is
    printed as a flag; lr_find.png and lr_find.csv contain the losses of the sweep.

    Args:
        config: the flags of the training.
        start, end: the first and the last rate, 0 < start < end.
        steps: the number of steps, 2 or more; the sweep ends after three epochs at the latest.
        out: the folder of lr_find.png and lr_find.csv; empty for ``runs/<date>-<time>-lr_find``.

    Raises:
        UserError: a flag or a file has a mistake that the user can correct, or the loss never fell.
    """
    _report_unused(config)
    with _output_folder(out) as folder:
        sweep, num_steps, batch_size = _sweep(config, start, end, steps)
        suggestion = suggest_lr(sweep.lrs, sweep.smoothed)
        title = f"{short_name(config.model)}, {config.optimizer}, batches of {batch_size}"
        plot_path = _write_results(folder, sweep, suggestion, title)
    if sweep.stop_reason:
        report("stopped", f"after {len(sweep.losses)} steps: {sweep.stop_reason}")
    report("image", str(plot_path))
    report("table", str(plot_path.with_suffix(".csv")))
    if suggestion is None:
        if num_steps < steps:
            raise UserError(
                f"--batch_size={batch_size}: the loss never fell in {num_steps} steps, the "
                f"length of {_MAX_EPOCHS} epochs (see {plot_path}); lower --batch_size"
            )
        raise UserError(
            f"--steps={steps}: the loss never fell between --start_lr={start:g} and --end_lr={end:g} "
            f"(see {plot_path}); pass more steps or other rates"
        )
    _report_suggestion(sweep, suggestion)
    return suggestion


def _sweep(config: TrainConfig, start: float, end: float, steps: int) -> tuple[LRSweep, int, int]:
    """Returns the sweep, its planned number of steps and the number of images in a step."""
    # Several workers would have to agree on every learning rate, so the sweep uses one device.
    machine = replace(inspect_machine(), tf_config=None)
    config = replace(config, strategy="none", weights=resolve_weights(config.weights))
    settings = resolve(config, machine, resolve_preset(config))
    configure_tensorflow(settings)
    seed_and_set_precision(settings)
    config = settings.config
    dataset = load_training_data(config)
    # The rate changes at every step, so a call of the train function must run a single step.
    plan = replace(make_plan(settings, dataset), steps_per_execution=1)
    config = plan.config
    if plan.batch_size_note:
        report("batch", plan.batch_size_note)
    network = make_network(plan, dataset)
    if config.head == FITTED_HEAD:
        start_from_fitted_head(network, dataset, config.seed)
    num_steps = max(min(steps, _MAX_EPOCHS * plan.steps_per_epoch), 2)
    report(
        "lr_find",
        f"{num_steps} steps of {config.batch_size} images with {config.optimizer}, "
        f"learning rates {start:g} to {end:g}",
    )
    _warn_if_few(steps, num_steps)
    with runtime_errors_as_user_errors(config, dataset):
        batches = TrainBatches(plan, dataset)
        trainer = Trainer(network, batches.make_prepare(config.image_size))
        optimizer = make_phase_optimizer(plan, network, lr=start)
        trainer.compile_for(optimizer, jit_compile=settings.compilation.enabled)
        train_batches = batches.train(config.image_size, start_step=0)
        sweep = sweep_lr(trainer, train_batches, start=start, end=end, steps=num_steps)
        return sweep, num_steps, config.batch_size


def _report_unused(config: TrainConfig) -> None:
    """Prints which of the given flags have no effect here; a flagfile of a training may have them."""
    is_given = {
        "freeze_epochs": config.freeze_epochs > 0,
        "progressive_sizes": config.progressive_sizes != "off",
        "strategy": config.strategy not in ("auto", "none"),
    }
    names = ", ".join(f"--{name}" for name, given in is_given.items() if given)
    if names:
        size = config.image_size
        report(
            "not used", f"{names}: lr_find trains the whole network at {size}×{size} on one device"
        )
    if config.run_dir:
        report("not used", "--run_dir: lr_find makes no run; its results go to --out")


def _warn_if_few(requested: int, num_steps: int) -> None:
    is_cut = num_steps < requested
    reasons = [f"cut to {num_steps}, the length of {_MAX_EPOCHS} epochs"] if is_cut else []
    if num_steps < _FEW_STEPS:
        reasons.append(f"fewer than {_FEW_STEPS} give a rough curve")
    if reasons:
        remedy = "lower --batch_size" if is_cut else "pass more"
        warn(f"--steps={requested}: {'; '.join([*reasons, remedy])}")


def _report_suggestion(sweep: LRSweep, suggestion: LRSuggestion) -> None:
    # A sweep that stopped early never reached --end_lr, even if its smoothed loss was still falling.
    if not sweep.stop_reason and sweep.smoothed[-1] == min(sweep.smoothed):
        warn("the loss was still falling at the end; a higher --end_lr shows more of the curve")
    report("steepest", f"{suggestion.steepest:.2g}, where the loss falls fastest")
    report("tenth", f"{suggestion.tenth:.2g}, a tenth of the rate with the lowest loss")
    report("choice", "the lower of the two, because a rate that is too high ruins a training")
    report(f"--lr={suggestion.lr:.2g}", "")


@contextmanager
def _output_folder(out: str) -> Iterator[Path]:
    """Yields the output folder; raises UserError before the sweep if it is not writable.

    If the folder is new, it is removed after an error, unless it contains files.
    """
    is_new = not (out and Path(out).exists())
    try:
        folder = Path(out) if out else create_named_folder("lr_find")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out={out or RUNS}: {error.strerror}; pass another folder") from error
    try:
        yield folder
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _write_results(
    folder: Path, sweep: LRSweep, suggestion: LRSuggestion | None, title: str
) -> Path:
    """Writes lr_find.csv and lr_find.png; returns the path of lr_find.png."""
    plot_path = folder / "lr_find.png"
    rows = zip(sweep.lrs, sweep.losses, sweep.smoothed, strict=True)
    lines = [csv_line("step", "lr", "loss", "smoothed_loss")]
    lines += [csv_line(str(step), *map(repr, row)) for step, row in enumerate(rows, 1)]
    write_lines(plot_path.with_suffix(".csv"), lines)
    save_figure(draw_lr_sweep(sweep, suggestion, title=title), plot_path)
    return plot_path
