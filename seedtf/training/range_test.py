"""A range test from a ``TrainConfig``: composes the stages of a training up to the trainer."""

from __future__ import annotations

from dataclasses import replace

import keras
import tensorflow as tf

from seedtf.data.share import WHOLE
from seedtf.training.begin import (
    fix_threads,
    make_network,
    open_training_data,
    planned_optimizer,
)
from seedtf.training.config import TrainConfig
from seedtf.training.feed import Feed, make_order
from seedtf.training.plan import check_choices, make_plan
from seedtf.training.rate_finder import RangeTest, find_rate
from seedtf.training.trainer import Trainer

__all__ = ["run_range_test"]


def run_range_test(
    config: TrainConfig, *, start: float, end: float, steps: int, most_epochs: int
) -> RangeTest:
    """Tests rates from ``start`` to ``end`` on the batches that the training would begin with.

    On one device, with the whole network and at ``config.image_size``, whatever ``config`` says of
    devices, frozen epochs and smaller pictures.

    Args:
        config: every choice of the training.
        start, end: the first and the last rate, 0 < start < end.
        steps: of the test, at most ``most_epochs`` epochs' worth of which are taken.
        most_epochs: 1 or more.

    Raises:
        UserError: whatever the user can mend, naming the flag or file.
    """
    config = fix_threads(replace(config.with_absolute_paths(), strategy="none"))
    check_choices(config)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    intake = open_training_data(config)
    plan = make_plan(config, intake)
    keras.mixed_precision.set_global_policy(plan.precision.policy)
    network = make_network(config, intake, plan, weights=config.weights)
    feed = Feed(config, intake, plan)
    trainer = Trainer(network, feed.prepare(config.image_size))
    optimizer = planned_optimizer(config, plan, network, start)
    trainer.compile_for(optimizer, jit_compile=plan.compilation.enabled)
    steps = max(min(steps, most_epochs * plan.steps_per_epoch), 2)
    print(
        f"lr_find   {steps} steps of {config.batch_size} images with {config.optimizer}, "
        f"learning rates {start:g} to {end:g}",
        flush=True,
    )
    batches = feed.batches(config.image_size, make_order(config, intake), 0, WHOLE)
    return find_rate(trainer, batches, start=start, end=end, steps=steps)
