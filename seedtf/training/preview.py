"""What augmentation does to the images, as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from seedtf.augment import fused as augment
from seedtf.augment import reference as reference_ops
from seedtf.augment.mixing import Mixing, mix
from seedtf.augment.policy import Parameters, Policy, draw_parameters
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import list_files
from seedtf.data.store import Store, build_store, plan_cache
from seedtf.errors import UserError
from seedtf.plots.base import draw_augmentations, save_figure
from seedtf.training.plan import data_folder

__all__ = ["draw_preview", "write_preview"]

_DRAWS = 15
_BATCH = 16
# an evenly spaced sample of this many images represents the folder, so that little is decoded
_MAX_IMAGES = 64


def write_preview(config: TrainConfig, out: Path) -> None:
    """Draws what the augmentation flags of ``config`` do to its images, without training.

    Args:
        config: the flags of a run; those of the data and the augmentation matter.
        out: the PNG file to write or replace.

    Raises:
        UserError: the data cannot be listed, or none of the sampled images can be decoded.
    """
    catalog = list_files(data_folder(config), config.labels_csv)
    sampled = np.linspace(0, len(catalog) - 1, min(len(catalog), _MAX_IMAGES)).astype(np.int64)
    cache_dir = config.cache_folder
    plan = plan_cache("ram", len(sampled), config.image_size, cache_dir)
    store = build_store(
        catalog.take(sampled), config.image_size, plan, cache_dir, config.max_pixels
    )
    if not len(store.catalog):
        raise UserError(
            f"--data_dir={config.data_dir}: none of {len(sampled)} images can be decoded"
        )
    figure = draw_preview(
        store,
        np.arange(len(store.catalog), dtype=np.int64),
        config.policy(),
        seed=config.seed,
        impl=config.augment_impl,
        mixing=config.mixing(),
    )
    save_figure(figure, out)


def draw_preview(
    store: Store, records: np.ndarray, policy: Policy, *, seed: int, impl: str, mixing: Mixing
) -> Figure:
    """One training image as 15 epochs will see it, and a batch of the first epoch with its labels.

    The batch is a spread over all classes. Where images are mixed, each is mixed with the next one
    shown; in training that is the next one of its batch.

    Args:
        store: decoded images.
        records: int64 ``[n]``, the records that train.
        policy: the ranges, strength already applied.
        seed: root seed of the run; these are the very draws that training makes.
        impl: a value of ``--augment_impl``.
        mixing: how the images of the batch are mixed.
    """
    apply = augment.augment_images if impl == "fused" else reference_ops.make_chain(impl)
    size = (store.size, store.size)
    spread = np.linspace(0, len(records) - 1, min(_BATCH, len(records))).astype(np.int64)
    batch, subject = tf.constant(records[spread]), tf.constant(records[:1])

    def parameters(epoch: int, chosen: tf.Tensor) -> Parameters:
        return draw_parameters(policy, seed, tf.constant(epoch, tf.int64), chosen)

    epochs = [parameters(epoch, subject) for epoch in range(_DRAWS)]
    many = Parameters(*(tf.concat(field, 0) for field in zip(*epochs, strict=True)))
    original = store.read(subject)
    draws = apply(tf.tile(original, [_DRAWS, 1, 1, 1]), many, size)
    catalog = store.catalog
    seen = apply(store.read(batch), parameters(0, batch), size)
    shares = tf.one_hot(catalog.labels[batch.numpy()], len(catalog.class_names))
    seen, shares = mix(seen, shares, tf.constant(0, tf.int64), batch, seed=seed, mixing=mixing)
    labels = [_label(row, catalog.class_names) for row in shares.numpy()]
    return draw_augmentations(
        original.numpy()[0], draws.numpy(), seen.numpy(), labels, title=str(catalog.root)
    )


def _label(shares: np.ndarray, names: Sequence[str]) -> str:
    """The class, or a line for each that a mixed image consists of, with its share."""
    parts = [(share, names[k].replace("\n", " ")) for k, share in enumerate(shares) if share > 0]
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"{share:.0%} {name}" for share, name in sorted(parts, reverse=True))
