"""What augmentation does to the pictures, as one figure."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from seedtf.data import augment, reference_ops
from seedtf.data.draws import Parameters, Policy, draw_parameters
from seedtf.data.store import Store
from seedtf.plots import draw_augmentations

__all__ = ["draw_preview"]

_DRAWS = 15
_BATCH = 16


def draw_preview(
    store: Store, records: np.ndarray, policy: Policy, *, seed: int, impl: str
) -> Figure:
    """One training image as 15 epochs will see it, and a batch of the first epoch with its labels.

    Args:
        store: decoded images.
        records: int64 ``[n]``, the records that train.
        policy: the ranges, strength already applied.
        seed: root seed of the run; these are the very draws that training makes.
        impl: a value of ``--augment_impl``.
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
    labels = [catalog.class_names[catalog.labels[record]] for record in batch.numpy()]
    seen = apply(store.read(batch), parameters(0, batch), size)
    return draw_augmentations(
        original.numpy()[0], draws.numpy(), seen.numpy(), labels, title=str(catalog.root)
    )
