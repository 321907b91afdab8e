"""Draws augmented images: many versions of one image, and a training batch with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seedtf.augment import fused, reference
from seedtf.augment.mixing import Mixing, mix
from seedtf.augment.policy import Parameters, Policy, draw_parameters
from seedtf.compat.matplotlib import default_style
from seedtf.data.store import Store
from seedtf.plots.base import GREY, VALIDATION_COLOR, clip_label, new_figure

__all__ = ["draw_augmentations", "draw_preview"]

_NUM_EPOCHS = 15  # The training augments the image once in each epoch.
_BATCH_SIZE = 16
_COLUMNS = 8
_CELL_INCHES = 1.35  # side of an image in the figure


@default_style
def draw_preview(
    store: Store, records: np.ndarray, policy: Policy, *, seed: int, impl: str, mixing: Mixing
) -> Figure:
    """Draws one training image as augmented in each of the first 15 epochs, and a batch of images.

    The batch is augmented as in the first epoch. Its images are evenly spaced among the training
    images, not drawn at random. MixUp and CutMix mix each image with the next image of the batch.

    Args:
        store: decoded images.
        records: int64 ``[n]``, indices of the training images.
        policy: the augmentation ranges, already multiplied by the strength.
        seed: the root seed of a run. A training with this seed and the same training images augments
            them in the same way.
        impl: a value of ``--augment_impl``.
        mixing: how the images of the batch are mixed.
    """
    # The figure is computed on the CPU, because a training may need all memory and time of a GPU.
    with tf.device("/cpu:0"):
        return _draw_preview(store, records, policy, seed=seed, impl=impl, mixing=mixing)


def _draw_preview(
    store: Store, records: np.ndarray, policy: Policy, *, seed: int, impl: str, mixing: Mixing
) -> Figure:
    augment = fused.augment_images if impl == "fused" else reference.make_chain(impl)
    size = (store.size, store.size)
    spaced = np.linspace(0, len(records) - 1, min(_BATCH_SIZE, len(records))).astype(np.int64)
    batch_records, first_record = tf.constant(records[spaced]), tf.constant(records[:1])

    def parameters_in(epoch: int, indices: tf.Tensor) -> Parameters:
        return draw_parameters(policy, seed, tf.constant(epoch, tf.int64), indices)

    by_epoch = [parameters_in(epoch, first_record) for epoch in range(_NUM_EPOCHS)]
    all_epochs = Parameters(*(tf.concat(field, 0) for field in zip(*by_epoch, strict=True)))
    original = store.read(first_record)
    augmented = augment(tf.tile(original, [_NUM_EPOCHS, 1, 1, 1]), all_epochs, size)
    catalog = store.catalog
    batch = augment(store.read(batch_records), parameters_in(0, batch_records), size)
    labels = tf.one_hot(catalog.labels[batch_records.numpy()], len(catalog.class_names))
    batch, labels = mix(
        batch, labels, tf.constant(0, tf.int64), batch_records, seed=seed, mixing=mixing
    )
    return draw_augmentations(
        original.numpy()[0],
        augmented.numpy(),
        batch.numpy(),
        [_label_text(row, catalog.class_names) for row in labels.numpy()],
        title=str(catalog.root),
    )


@default_style
def draw_augmentations(
    original: npt.NDArray[Any],
    augmented: npt.NDArray[Any],
    batch: npt.NDArray[Any],
    batch_labels: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Draws one image beside N augmented versions of it, above a batch of B images with their labels.

    Args:
        original: the image, uint8 or float ``[H, W, 3]`` in 0–255; framed and labelled "original".
        augmented: the image augmented N times, ``[N, H, W, 3]`` in 0–255.
        batch: at least one image, ``[B, H, W, 3]`` in 0–255.
        batch_labels: B labels, which may have several lines and characters of any script; long lines
            are cut.
        title: shown above the images.
    """
    upper_rows, lower_rows = -(-(1 + len(augmented)) // _COLUMNS), -(-len(batch) // _COLUMNS)
    width = _COLUMNS * _CELL_INCHES
    height = (upper_rows + lower_rows) * (_CELL_INCHES + 0.18) + 1.0
    figure = new_figure(width, height, title, title_limit=90)
    parts: Any = figure.subfigures(2, 1, height_ratios=[upper_rows + 0.2, lower_rows + 0.2])
    upper, lower = parts
    names = ["original"] + [""] * len(augmented)
    heading = f"one training image, augmented {len(augmented)} times"
    cells = _draw_grid(upper, [original, *augmented], names, heading)
    for spine in cells[0].spines.values():
        spine.set(visible=True, color=VALIDATION_COLOR, linewidth=3)
    _draw_grid(lower, list(batch), batch_labels, "a training batch")
    return figure


def _draw_grid(
    figure: Any, images: Sequence[npt.NDArray[Any]], names: Sequence[str], heading: str
) -> list[Axes]:
    figure.suptitle(heading, fontsize="small", color=GREY)
    cells = figure.subplots(-(-len(images) // _COLUMNS), _COLUMNS, squeeze=False).ravel()
    for cell in cells:
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    for cell, image, name in zip(cells, images, names, strict=False):
        cell.imshow(np.clip(image, 0, 255).astype(np.uint8))
        lines = (clip_label(line, 18) for line in name.split("\n"))
        cell.set_title("\n".join(lines), fontsize=7, pad=2, parse_math=False)
    return list(cells)


def _label_text(fractions: np.ndarray, class_names: Sequence[str]) -> str:
    """The name of the class; for a mixed label, a line with percentage and name for each class."""
    parts = [
        (fraction, class_names[index].replace("\n", " "))
        for index, fraction in enumerate(fractions)
        if fraction > 0
    ]
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"{fraction:.0%} {name}" for fraction, name in sorted(parts, reverse=True))
