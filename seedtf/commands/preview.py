"""``seedtf preview``: what augmentation does to the images, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.commands.tensorflow_env import import_tensorflow
from seedtf.config.flags import option
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.paths import AUGMENTED

__all__ = ["PreviewConfig", "run"]

# images are decoded for the figure alone, so a spread of this many stands for the folder
_MOST_IMAGES = 64


@dataclass(frozen=True)
class PreviewConfig(TrainConfig):
    """The flags of ``train``, so that a run's flags.txt can be previewed, and where to draw."""

    out: str = option(AUGMENTED, "Image to write or replace; the suffix .png is expected.")


def run(arguments: list[str]) -> int:
    """Writes the image and returns the exit code."""
    config = parse_config(PreviewConfig, "preview", arguments)
    out = Path(config.out)
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: no folder {out.parent}; create it or pass another path")
    import_tensorflow()
    import numpy as np

    from seedtf.data.dataset import list_files
    from seedtf.data.store import build_store, plan_cache
    from seedtf.plots.base import save_figure
    from seedtf.training.plan import (
        augmentation_policy,
        cache_folder,
        choose_mixing,
        data_folder,
    )
    from seedtf.training.preview import draw_preview

    catalog = list_files(data_folder(config), config.labels_csv)
    few = np.linspace(0, len(catalog) - 1, min(len(catalog), _MOST_IMAGES)).astype(np.int64)
    cache_dir = cache_folder(config)
    plan = plan_cache("ram", len(few), config.image_size, cache_dir)
    store = build_store(catalog.take(few), config.image_size, plan, cache_dir, config.max_pixels)
    if not len(store.catalog):
        raise UserError(f"--data_dir={config.data_dir}: none of {len(few)} images can be decoded")
    policy = augmentation_policy(config)
    records = np.arange(len(store.catalog), dtype=np.int64)
    figure = draw_preview(
        store,
        records,
        policy,
        seed=config.seed,
        impl=config.augment_impl,
        mixing=choose_mixing(config),
    )
    save_figure(figure, out)
    print(out)
    return 0
