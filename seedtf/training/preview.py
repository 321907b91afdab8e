"""Draws what the augmentation does to images: for ``seedtf preview``, and in the folder of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seedtf.config.train_config import TrainConfig
from seedtf.data.columns import Columns
from seedtf.data.dataset import Dataset
from seedtf.data.listing import list_files
from seedtf.data.store import build_store, plan_cache
from seedtf.errors import UserError
from seedtf.plots.augmentation import draw_preview
from seedtf.plots.base import save_figure
from seedtf.training.setup import data_folder

__all__ = ["draw_run_preview", "write_preview"]

# Of a large folder, only this many evenly spaced images are decoded.
_MAX_IMAGES = 64


def draw_run_preview(config: TrainConfig, dataset: Dataset, out: Path) -> None:
    """Draws what the augmentation of a run does to its training images, as the PNG file ``out``.

    If ``out`` exists, nothing is drawn: the run was resumed, and its first process drew the figure.
    """
    if out.exists():
        return
    figure = draw_preview(
        dataset.store,
        dataset.split.train,
        config.make_policy(),
        seed=config.seed,
        impl=config.augment_impl,
        mixing=config.make_mixing(),
    )
    save_figure(figure, out)


def write_preview(config: TrainConfig, out: Path) -> None:
    """Draws what the augmentation flags of ``config`` do to its images, without training.

    Args:
        config: the flags of a run; only those for the data and the augmentation are used.
        out: the PNG file to write or replace.

    Raises:
        UserError: the data cannot be listed, or none of the sampled images can be decoded.
    """
    columns = Columns(config.file_column, config.label_column, config.split_column)
    catalog, split = list_files(data_folder(config), config.labels_csv, columns, config.layout)
    if split is not None:
        catalog = catalog.take(split.train)
    sampled = np.linspace(0, len(catalog) - 1, min(len(catalog), _MAX_IMAGES)).astype(np.int64)
    cache_dir = config.cache_folder
    plan = plan_cache("ram", len(sampled), config.image_size, cache_dir)
    catalog = catalog.take(sampled)
    store = build_store(
        catalog, config.image_size, plan, cache_dir, config.max_pixels, fit=config.fit
    )
    if not len(store.catalog):
        raise UserError(
            f"--data_dir={config.data_dir}: none of {len(sampled)} sampled images can be decoded; "
            "seedtf check names the fault of each file"
        )
    figure = draw_preview(
        store,
        np.arange(len(store.catalog), dtype=np.int64),
        config.make_policy(),
        seed=config.seed,
        impl=config.augment_impl,
        mixing=config.make_mixing(),
    )
    save_figure(figure, out)
